//! `tether export`: the ledger for elsewhere.

use super::output::note;
use super::{Global, UsageError};
use crate::config;
use crate::export::{self, Format, Skipped, Source};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tether export --format parquet --output turns.parquet\n  tether export --format csv --since 2026-11-01T00:00:00Z > turns.csv\n  tether export --format m4a1 --output field.json    what TMO trains on: rated turns only\n  tether export --ledger robot7.db --format jsonl | jq .route\n\nReads the ledger's file itself, read-only, also while the daemon runs. Text is in it only where ledger.content kept it."
)]
pub(crate) struct ExportArgs {
    #[arg(long, value_enum)]
    format: Format,
    /// Where to [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The ledger's file [default: ledger.path of the settings]
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Only turns from this moment on, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
}

pub(crate) fn run(args: ExportArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let path = match args.ledger {
        Some(path) => path,
        None => config::load(global.config.as_deref())?.settings.ledger.path,
    };
    if args.output.is_none() && args.format == Format::Parquet && io::stdout().is_terminal() {
        return Err(UsageError("Parquet is not for a terminal; name a file: --output FILE".into()).into());
    }
    let source = Source::open(&path, args.since.map_or(i64::MIN, Timestamp::as_millisecond))?;
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} turns ({per_sec})")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let progress = |turns| bar.set_position(turns);
    let report = match &args.output {
        Some(file) => {
            // Whole or not at all: a reader never finds half a file under its name.
            let mut new = file.clone().into_os_string();
            new.push(".new");
            let report = export::export(&source, args.format, File::create(&new)?, progress)?;
            std::fs::rename(&new, file)?;
            report
        }
        None => export::export(&source, args.format, io::stdout(), progress)?,
    };
    bar.finish_and_clear();
    let Skipped { unrated, unanswered, other_views } = report.skipped;
    let kept = report.turns - unrated - unanswered - other_views;
    note(format_args!("{kept} of {} turns written", report.turns));
    for (count, why) in [
        (unrated, "without a rating (tether feedback TURN RATING)"),
        (unanswered, "without a whole answer"),
        (other_views, "with other views than the first"),
    ] {
        if count > 0 {
            note(format_args!("left out: {count} {why}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
