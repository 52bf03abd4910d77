//! `tether report`: what a real log came to, as the page that a replay gives.

use super::output::{self, note};
use super::replay::{budget, table};
use super::{Global, UsageError};
use crate::config;
use crate::export::Source;
use crate::replay::{log, page};
use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use std::path::PathBuf;
use std::process::ExitCode;
use tether_policies::budget::Budget;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tether report                                   a table of what was answered where, and what it cost\n  tether report -o today.html --since 2026-11-25T00:00:00Z\n  tether report --ledger robot7.db --budget usd_per_mission=0.5 --mission-h 8 -o robot7.html\n\nReads the ledger's file itself, read-only, also while the daemon runs. Budgets are those in force: of the settings, or set\nwhile running; of another robot's ledger, those set while it ran and those named here. Spending is booked anew from the\nrecords, so that the page shows how far it was ahead of its lines."
)]
pub(crate) struct ReportArgs {
    /// Write the page with plots
    #[arg(long, short, value_name = "PAGE.html")]
    output: Option<PathBuf>,
    /// The ledger's file [default: ledger.path of the settings]
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Only turns from this moment on, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// NAME=CAP, such as uplink_bytes_per_mission=50e6; may be given several times
    #[arg(long, value_name = "NAME=CAP")]
    budget: Vec<String>,
    /// How long a mission was to last, for the line of its budgets
    #[arg(long, value_name = "HOURS")]
    mission_h: Option<f64>,
}

pub(crate) fn run(args: &ReportArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(hours) = args.mission_h.filter(|hours| !(*hours > 0.0 && *hours <= 1e5)) {
        return Err(UsageError(format!("--mission-h {hours} is not above 0 and at most 100000")).into());
    }
    let asked_ms = args.mission_h.map(|hours| (hours * 3.6e6) as i64);
    let mut budgets: Vec<Budget> = Vec::new();
    let (mut path, mut mission_ms) = (args.ledger.clone(), asked_ms);
    // Another robot's ledger has nothing to do with the settings here, unless they are named.
    if path.is_none() || global.config.is_some() {
        let settings = config::load(global.config.as_deref())?.settings;
        mission_ms = mission_ms.or(settings.budgets.mission_ms);
        budgets.extend(&settings.budgets.budgets);
        path = path.or(Some(settings.ledger.path));
    }
    let path = path.context("no ledger is named")?;
    let source = Source::open(&path, args.since.map_or(i64::MIN, Timestamp::as_millisecond))?;
    let set = source.caps()?.into_iter().map(|(name, cap)| Budget { name, cap, mission_ms, floor_percent: None });
    let named = args.budget.iter().map(|text| budget(text, mission_ms)).collect::<anyhow::Result<Vec<_>>>()?;
    for other in set.chain(named) {
        budgets.retain(|budget| budget.name != other.name);
        budgets.push(other);
    }
    budgets.iter_mut().for_each(|budget| budget.mission_ms = mission_ms);
    let Some(log::Read { outcome, first_ms, last_ms }) = log::read(&source, &budgets)? else {
        note(format_args!("{} holds no settled turn in this time", path.display()));
        return Ok(ExitCode::SUCCESS);
    };
    let outcomes = [outcome];
    if let Some(file) = &args.output {
        let html = page::page("What was answered where", &intro(&path, first_ms, last_ms, &budgets), &outcomes);
        std::fs::write(file, html).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if global.json {
        output::json(&outcomes[0])?;
    } else {
        table(&outcomes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn intro(path: &std::path::Path, first_ms: i64, last_ms: i64, budgets: &[Budget]) -> String {
    let time = |ms| Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let caps: Vec<String> =
        budgets.iter().map(|budget| format!("{}={}", budget.name, budget.name.resource.value(budget.cap))).collect();
    let caps = if caps.is_empty() { "no budgets".to_owned() } else { caps.join(", ") };
    format!(
        "{name}, from {} to {}; {caps}. Hours count from the first turn. Ratings are those that people gave. \"Ahead\" is the \
         furthest that spending was ahead of its straight line, as a share of a cap.",
        time(first_ms),
        time(last_ms)
    )
}
