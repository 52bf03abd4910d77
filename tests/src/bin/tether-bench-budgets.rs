//! `make bench-budgets`: caps and pacing over real link traces in virtual time, what the ledger adds to a turn, a million
//! turns, two hundred kills, and field tests replayed. Rows whose part is not built say so and are not met.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use tether_tests::bench::{Good, row, skipped};
use tether_tests::kill::kill_and_count;
use tether_tests::system::folder;
use tether_tests::{bytes_bench, caps_bench, ledger_bench, replay_bench, traces};
use tokio::runtime::Runtime;

const KILLS: u32 = 200;

fn main() -> Result<()> {
    let Arguments { data, alone, seed, records } = arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match alone {
        Some(Alone::Bytes) => return runtime.block_on(bytes(data.as_deref(), seed, records.as_deref())),
        Some(Alone::Replay) => return replay(data.as_deref()),
        Some(Alone::Speed) => {
            runtime.block_on(added(folder()?.path()))?;
            return replay_speed(&runtime);
        }
        None => {}
    }
    caps_and_pace(data.as_deref())?;
    runtime.block_on(live_caps())?;
    replay(data.as_deref())?;
    replay_speed(&runtime)?;
    upload_time(data.as_deref())?;
    runtime.block_on(ledger())?;
    runtime.block_on(bytes(data.as_deref(), seed, records.as_deref()))?;
    runtime.block_on(kills())?;
    Ok(())
}

struct Arguments {
    data: Option<PathBuf>,
    alone: Option<Alone>,
    seed: u64,
    records: Option<PathBuf>,
}

/// The only rows that are asked for.
enum Alone {
    Bytes,
    Replay,
    Speed,
}

/// `--data FOLDER`, the folder that holds `data/traces`; `--bytes`, only the rows of real QUIC, with `--seed N` under other
/// circumstances; `--records FILE`, where their turns' records go; `--replay`, only what policies earn; `--speed`, only what
/// the ledger costs a turn, and a replay's speed.
fn arguments() -> Result<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut arguments = Arguments { data: None, alone: None, seed: 0, records: None };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--data" => arguments.data = Some(given.next().context("--data needs a folder")?.into()),
            "--bytes" => arguments.alone = Some(Alone::Bytes),
            "--seed" => {
                arguments.seed = given.next().and_then(|seed| seed.parse().ok()).context("--seed needs a number")?;
            }
            "--replay" => arguments.alone = Some(Alone::Replay),
            "--speed" => arguments.alone = Some(Alone::Speed),
            "--records" => arguments.records = Some(given.next().context("--records needs a file")?.into()),
            other => anyhow::bail!(
                "{other}: only --data FOLDER, --bytes, --seed N, --replay, --speed and --records FILE are understood"
            ),
        }
    }
    Ok(arguments)
}

fn caps_and_pace(data: Option<&Path>) -> Result<()> {
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

async fn live_caps() -> Result<()> {
    let held = caps_bench::run().await?;
    row("hard_cap_exceeded_live", held.exceeded as f64, Good::AtMost, 0.0, "events", &held.how());
    Ok(())
}

async fn added(folder: &Path) -> Result<()> {
    let added = ledger_bench::added_us(folder).await?;
    let how = format!(
        "median of {} turns, alternating: reserve, begin, lease, settle and charge of a cloud turn with 16 actions; local turns without budgets, whose begin \
         is not waited for: {:.0} us; 90th percentile of cloud turns {:.0} us",
        ledger_bench::TURNS,
        added.local_us,
        added.cloud_p90_us
    );
    row("ledger_added_to_a_turn", added.cloud_us, Good::AtMost, 150.0, "us", &how);
    Ok(())
}

async fn ledger() -> Result<()> {
    let folder = folder()?;
    added(folder.path()).await?;
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

async fn bytes(data: Option<&Path>, seed: u64, records: Option<&Path>) -> Result<()> {
    let Some(data) = data else {
        let how = "DATA=folder with data/traces was not given";
        skipped("predicted_bytes_error", 0.02, "ratio", how);
        skipped("predicted_upload_time_error_live", 0.25, "ratio", how);
        return Ok(());
    };
    let errors = bytes_bench::run(&data.join("data/traces"), seed, records).await?;
    row("predicted_bytes_error", errors.value(), Good::AtMost, 0.02, "ratio", &errors.how());
    row("predicted_upload_time_error_live", errors.time_median, Good::AtMost, 0.25, "ratio", &errors.how_time());
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

/// What the committed policy earns over the naive ones, on every trace.
fn replay(data: Option<&Path>) -> Result<()> {
    const TARGET: f64 = 1.15;
    let bars =
        [("replay_over_better_baseline", None), ("replay_over_better_baseline_m4a1", Some("data/m4a1/M4A1.json"))];
    let Some(data) = data else {
        let how = "DATA=folder with data/traces was not given";
        bars.iter().for_each(|(bar, _)| skipped(bar, TARGET, "ratio", how));
        skipped("replay_hard_cap_exceeded", 0.0, "events", how);
        return Ok(());
    };
    let found = traces::load(&data.join("data/traces"))?;
    let (mut turns, mut exceeded) = (0, 0);
    for (bar, file) in bars {
        let file = file.map(|file| data.join(file));
        if let Some(file) = file.as_ref().filter(|file| !file.exists()) {
            skipped(bar, TARGET, "ratio", &format!("{} does not exist", file.display()));
            continue;
        }
        let earned = replay_bench::earned(&found, file.as_deref(), TARGET)?;
        turns += earned.turns;
        exceeded += earned.exceeded;
        let [tether, unrated, naive, local] = earned.rewards;
        let dialogues = match file {
            Some(_) => {
                "M4A1's dialogues (the committed policy was trained on them; what judges an answer never saw its dialogue)"
            }
            None => "synthetic dialogues, other ones for each seed (the committed policy never saw any)",
        };
        let how = format!(
            "{} traces x {} seeds x budgets of 10, 30 and 70 % of what three views at every turn take (USD, uplink bytes), 8 hours \
             at 60 turns an hour on a Jetson Orin NX, pictures made smaller for the link and the bytes left whatever decides, \
             {dialogues}: every answer rated, with the scatter of the dialogues' own: mean reward {tether:.4}; nothing rated: \
             {unrated:.4}; the cloud with every view until a budget \
             is gone, then local: {naive:.4}; always local: {local:.4}; below the target on {} traces",
            found.len(),
            traces::SEEDS,
            earned.traces_below
        );
        row(bar, earned.over_better(), Good::AtLeast, TARGET, "ratio", &how);
    }
    let how = format!("the same flights, {turns} turns: caps passed, or more spent than reserved");
    row("replay_hard_cap_exceeded", exceeded as f64, Good::AtMost, 0.0, "events", &how);
    Ok(())
}

fn replay_speed(runtime: &Runtime) -> Result<()> {
    let (turns, rate) = replay_bench::turns_per_s(None)?;
    let how = format!(
        "{turns} turns of the committed policy by processor time, every one with its ledger record, none written"
    );
    row("replay_turns_per_s", rate, Good::AtLeast, 20_000.0, "turns/s", &how);
    let folder = folder()?;
    let (turns, rate) = replay_bench::turns_per_s(Some((&folder.path().join("replay.db"), runtime)))?;
    let how = format!(
        "the same {turns} turns, every record written to a ledger, 1,000 a transaction, by processor time of both threads"
    );
    row("replay_turns_per_s_with_ledger", rate, Good::AtLeast, 20_000.0, "turns/s", &how);
    Ok(())
}

/// `tether-lab link` prints rows of this form itself.
fn upload_time(data: Option<&Path>) -> Result<()> {
    let Some(data) = data else {
        let how = "DATA=folder with data/traces was not given";
        skipped("predicted upload time, median error", 0.25, "ratio", how);
        skipped("predicted upload time, interval covers", 0.9, "ratio", how);
        return Ok(());
    };
    let lab = std::env::current_exe()?.with_file_name("tether-lab");
    let output = Command::new(&lab)
        .arg("link")
        .arg(data.join("data/traces"))
        .args(["--prefix", "wifi_", "--json"])
        .output()
        .with_context(|| format!("{} (built by `make bench-budgets`)", lab.display()))?;
    ensure!(output.status.success(), "tether-lab link: {}", String::from_utf8_lossy(&output.stderr));
    print!("{}", String::from_utf8(output.stdout)?);
    Ok(())
}
