//! `tether turns`: the ledger's newest turns.

use super::output::{self, BOLD, DIM};
use super::{Global, units};
use crate::export::Source;
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tether_protocol::TurnRecord;
use tether_protocol::api::TurnList;
use tether_protocol::record::Outcome;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tether turns --limit 5\n  tether turns --session kitchen\n  tether turns --json | jq -r '[.turn_id,.route,.reason.code] | @tsv'\n  tether turns --ledger robot7.db                    of a replay, or of another robot; no daemon is asked\n\nWith --json, one record a line, newest first."
)]
pub(crate) struct TurnsArgs {
    /// How many, newest first
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only turns of this session
    #[arg(long, value_name = "NAME")]
    session: Option<tether_protocol::SessionId>,
    /// Only turns before this one
    #[arg(long, value_name = "TURN")]
    before: Option<tether_protocol::TurnId>,
    /// Read this ledger's file instead of asking the daemon
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl TurnsArgs {
    /// Session names and turn ids hold nothing that a query string would have to escape.
    fn path(&self) -> String {
        let session = self.session.iter().map(|session| format!("&session={session}"));
        let before = self.before.iter().map(|turn| format!("&before={turn}"));
        format!("/v1/turns?limit={}", self.limit) + &session.chain(before).collect::<String>()
    }
}

pub(crate) async fn run(args: TurnsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let list: TurnList = match &args.ledger {
        None => global.client()?.get(&args.path()).await?,
        Some(path) => Source::open(path, i64::MIN)?.newest(args.limit, args.before.as_ref(), args.session.as_ref())?,
    };
    if global.json {
        list.turns.iter().try_for_each(output::json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    if list.turns.is_empty() {
        writeln!(out, "no turns yet; ask something: tether ask \"Hello\"")?;
    }
    for turn in &list.turns {
        writeln!(out, "{BOLD}{}{BOLD:#}  {}", turn.turn_id, headline(turn))?;
        writeln!(out, "    {DIM}{}{DIM:#}", details(turn))?;
    }
    if let Some(before) = list.next_before {
        let ledger = args.ledger.map(|path| format!(" --ledger {}", path.display())).unwrap_or_default();
        writeln!(out, "{DIM}older turns: tether turns{ledger} --before {before}{DIM:#}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn headline(turn: &TurnRecord) -> String {
    let views: Vec<&str> = turn.views.iter().map(|view| view.as_str()).collect();
    let place = if views.is_empty() { turn.route.to_string() } else { format!("{} +{}", turn.route, views.join("+")) };
    let outcome = match &turn.outcome {
        Outcome::Answered { .. } => String::new(),
        Outcome::Cancelled => "  cancelled".into(),
        Outcome::Failed { error } => format!("  failed: {error}"),
        Outcome::Refused { .. } => return format!("{}  refused", local_time(turn.started_unix_ms)),
        Outcome::Unfinished => "  unfinished".into(),
    };
    format!("{}  {place:<8} {}{outcome}", local_time(turn.started_unix_ms), turn.model.as_deref().unwrap_or("-"))
}

fn details(turn: &TurnRecord) -> String {
    let mut parts = vec![format!("{}: {}", turn.reason.code, turn.reason.detail)];
    parts.extend(turn.fallback.iter().map(|why| format!("fell back: {why}")));
    parts.push(format!("{} + {} tokens", turn.usage.prompt_tokens, turn.usage.completion_tokens));
    parts.extend(turn.timings.total_ms.map(units::duration_ms));
    let cost = &turn.measured;
    parts.extend(cost.uplink_bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("up {}", units::bytes(bytes))));
    parts.extend(cost.cost_usd.map(units::usd));
    parts.extend(cost.energy_j.map(|energy_j| format!("{energy_j:.2} J")));
    parts.extend(turn.session.iter().map(|session| format!("session {session}")));
    parts.extend(turn.rating.map(|rating| format!("rated {rating}")));
    parts.join(" · ")
}

pub(super) fn local_time(unix_ms: i64) -> String {
    let Ok(time) = Timestamp::from_millisecond(unix_ms) else { return "-".into() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_what_is_asked_for() {
        let args = TurnsArgs { limit: 5, session: Some("kitchen".parse().unwrap()), before: None, ledger: None };
        assert_eq!(args.path(), "/v1/turns?limit=5&session=kitchen");
    }
}
