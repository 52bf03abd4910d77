//! `make bench-budgets`: caps and pacing over real link traces in virtual time, what the ledger adds to a turn, a million
//! turns, and two hundred kills. Rows whose part is not built say so and are not met.

use anyhow::{Context, Result};
use std::path::PathBuf;
use tether_tests::bench::{Good, row, skipped};
use tether_tests::kill::kill_and_count;
use tether_tests::system::folder;
use tether_tests::{ledger_bench, traces};

const KILLS: u32 = 200;

fn main() -> Result<()> {
    let data = data()?;
    caps_and_pace(data.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(ledger())?;
    runtime.block_on(kills())?;
    for (bar, target, unit, who) in [
        ("predicted_bytes_error", 0.02, "ratio", "the encoding for the link"),
        ("predicted_upload_time_median_error", 0.25, "ratio", "the encoding for the link"),
        ("replay_over_better_baseline", 1.15, "ratio", "the field tests' replay"),
        ("replay_turns_per_s", 20_000.0, "turns/s", "the field tests' replay"),
    ] {
        skipped(bar, target, unit, &format!("{who} has no row here yet"));
    }
    Ok(())
}

/// `--data FOLDER`, the folder that holds `data/traces`.
fn data() -> Result<Option<PathBuf>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => Ok(None),
        Some("--data") => Ok(Some(arguments.next().context("--data needs a folder")?.into())),
        Some(other) => anyhow::bail!("{other}: only --data FOLDER is understood"),
    }
}

fn caps_and_pace(data: Option<&std::path::Path>) -> Result<()> {
    let Some(data) = data else {
        let how = "DATA=folder with data/traces was not given";
        skipped("hard_cap_exceeded", 0.0, "events", how);
        skipped("pacing_overshoot", 0.4, "% of a budget", how);
        return Ok(());
    };
    let found = traces::load(&data.join("data/traces"))?;
    let outcome = traces::run_all(&found);
    let how = format!(
        "{} traces x {} seeds x {} levels x 2 policies, 4 budgets in 2 windows each, {} turns in virtual time, up to 8 at once, \
         costs up to their reservation and cut there; checked after every reservation and settlement",
        found.len(),
        traces::SEEDS,
        traces::LEVELS.len(),
        outcome.turns
    );
    row("hard_cap_exceeded", outcome.exceeded as f64, Good::AtMost, 0.0, "events", &how);
    let how = format!(
        "the same runs: the most that settled spending was ahead of its straight line (to 90 % of the cap) at any moment, any budget; \
         at their windows' ends the paced budgets had spent {:.1} % of the line in the mean",
        outcome.line_used * 100.0
    );
    row("pacing_overshoot", outcome.overshoot * 100.0, Good::AtMost, 0.4, "% of a budget", &how);
    Ok(())
}

async fn ledger() -> Result<()> {
    let folder = folder()?;
    let added = ledger_bench::added_us(folder.path()).await?;
    let how = format!(
        "median of {} turns, alternating: reserve, begin, lease, settle and charge of a cloud turn with 16 actions; local turns without budgets, whose begin \
         is not waited for: {:.0} us; 90th percentile of cloud turns {:.0} us",
        ledger_bench::TURNS,
        added.local_us,
        added.cloud_p90_us
    );
    row("ledger_added_to_a_turn", added.cloud_us, Good::AtMost, 150.0, "us", &how);
    let queries = ledger_bench::million(folder.path()).await?;
    let how = format!(
        "the slowest of: {}; {} turns written in {:.0} s, {:.2} GB",
        queries.seconds.iter().map(|(name, s)| format!("{name} {s:.3} s")).collect::<Vec<_>>().join(", "),
        queries.turns,
        queries.written_s,
        queries.bytes as f64 / 1e9
    );
    let slowest = queries.seconds.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    row("query_of_a_million_turns", slowest, Good::AtMost, 2.0, "s", &how);
    Ok(())
}

async fn kills() -> Result<()> {
    let folder = folder()?;
    let (wrong, how) = match kill_and_count(folder.path(), KILLS, 1).await {
        Ok(tally) => (
            0.0,
            format!(
                "{} SIGKILLs at random moments under 8 clients: {} turns, {} answered, {} cut off; none lost or counted twice, \
                 budgets right to the nano-dollar and byte",
                tally.kills, tally.turns, tally.answered, tally.cut_off
            ),
        ),
        Err(error) => (1.0, format!("{error:#}")),
    };
    row("books_wrong_after_kills", wrong, Good::AtMost, 0.0, "faults", &how);
    Ok(())
}
