//! `tether replay`: policies over recorded links, in virtual time.

use super::output::{self, note};
use super::{Global, UsageError};
use crate::replay::mission::{MissionError, RATED_SHARE};
use crate::replay::page::{self, cells, lines};
use crate::replay::{Contender, Flown, Mission, Outcome, Robot, fly};
use crate::store::{Store, StoreError};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tether_policies::budget::{Budget, BudgetName};
use tether_policies::tmo::data::{Dataset, MAX_FILE_BYTES};
use tether_policies::tmo::synthetic;
use tether_policies::trace::{self, DEFAULT_UPLINK_SHARE, Trace};

const EXAMPLES: &str = "\
Examples:
  tether replay --trace wifi.csv --policy tether,cloud-then-local,always-local,always-cloud
  tether replay --trace traces/ --battery 100Wh --device \"Jetson Orin NX\" --hours 8 --seeds 5 \\
      --budget uplink_bytes_per_mission=50e6 --budget usd_per_mission=0.5 -o replay.html
  tether replay --trace wifi.csv --dialogues M4A1.json --policy rule,my-policy.json --json
  tether replay --trace wifi.csv --policy tether --ledger field.db && tether export --ledger field.db --format jsonl

A trace is t_s,down_mbps,up_mbps,rtt_ms, a row a second, blank where nothing was measured; short ones loop from an
offset that the seed decides. Policies: tether, rule, always-local, always-cloud (held to the pace),
cloud-then-local (not held to it: the cloud until a budget is gone), or a policy's .json with its .safetensors beside it.
The same arguments give the same JSON, byte for byte.";

/// Synthetic dialogues.
const SYNTHETIC_DIALOGUES: usize = 200;
const VIEWS: usize = 3;
const MAX_BATTERY_WH: f64 = 1e6;
const MAX_SEEDS: u64 = 10_000;
/// Turns of a ledger written in one transaction.
const BATCH: usize = 1_000;

/// How large pictures travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pictures {
    /// As in the daemon: as large as the link and the bytes that are left allow
    Sized,
    /// Always in the configured form
    Fixed,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReplayArgs {
    /// A recorded link, or a folder of them; may be given several times
    #[arg(long, required = true, value_name = "FILE|FOLDER")]
    trace: Vec<PathBuf>,
    /// The battery's capacity
    #[arg(long, default_value = "40Wh", value_name = "WH")]
    battery: String,
    /// The robot's computer: a name of TMO's table of devices
    #[arg(long, default_value = "Jetson Orin NX", value_name = "NAME")]
    device: String,
    /// `synthetic`, or a file of M4A1's form (`tether export --format m4a1` writes one)
    #[arg(long, default_value = "synthetic", value_name = "FILE")]
    dialogues: String,
    /// Policies, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tether,rule,cloud-then-local,always-local,always-cloud",
        value_name = "NAMES"
    )]
    policy: Vec<String>,
    /// NAME=CAP, such as uplink_bytes_per_mission=50e6; or NAME=CAP@FLOOR, such as usd_per_mission=0.5@20: nothing is
    /// given from it while the battery is at or below 20 %. May be given several times
    #[arg(long, value_name = "NAME=CAP[@FLOOR]")]
    budget: Vec<String>,
    /// How long the robot is out
    #[arg(long, default_value_t = 8.0)]
    hours: f64,
    #[arg(long, default_value_t = 60.0, value_name = "TURNS")]
    turns_per_hour: f64,
    /// Share of the answers that somebody rates; policies that learn from ratings see no others
    #[arg(long, default_value_t = RATED_SHARE, value_name = "SHARE")]
    rated: f64,
    /// The first seed: of arrivals, dialogues, the trace's offset and everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    seeds: u64,
    /// Uplink as a share of the downlink, for traces whose uplink is only acknowledgements
    #[arg(long, default_value_t = DEFAULT_UPLINK_SHARE, value_name = "SHARE")]
    uplink_share: f64,
    /// How large pictures travel
    #[arg(long, value_enum, default_value_t = Pictures::Sized, value_name = "HOW")]
    pictures: Pictures,
    /// Write the turns into a new database of the ledger's form; for one trace, policy and seed
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, short, value_name = "PAGE.html")]
    output: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    device: &'a str,
    battery_wh: f64,
    dialogues: &'a str,
    hours: f64,
    turns_per_hour: f64,
    rated_share: f64,
    budgets: &'a [String],
    pictures: Pictures,
    /// Of the downlink, in the traces named in `uplink_is_a_share`.
    uplink_share: f64,
    uplink_is_a_share: &'a [String],
    outcomes: &'a [Outcome],
}

pub(crate) fn run(args: &ReplayArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let contenders = args.policy.iter().map(|name| Contender::named(name)).collect::<Result<Vec<_>, _>>();
    let contenders = contenders.map_err(|error| UsageError(error.to_string()))?;
    if !(args.uplink_share > 0.0 && args.uplink_share <= 1.0) {
        return Err(UsageError(format!("--uplink-share {} is not above 0 and at most 1", args.uplink_share)).into());
    }
    if !(1..=MAX_SEEDS).contains(&args.seeds) {
        return Err(UsageError(format!("--seeds {} is not between 1 and {MAX_SEEDS}", args.seeds)).into());
    }
    if !(0.0..=1.0).contains(&args.rated) {
        return Err(UsageError(format!("--rated {} is not between 0 and 1", args.rated)).into());
    }
    let battery_wh = watt_hours(&args.battery)?;
    let robot = Robot::new(&args.device, battery_wh).map_err(usage)?;
    let mission_ms = (args.hours * 3.6e6) as i64;
    let budgets = args.budget.iter().map(|text| budget(text, Some(mission_ms))).collect::<Result<Vec<_>, _>>()?;
    let files = traces(&args.trace)?;
    if args.ledger.is_some() && files.len() * contenders.len() * args.seeds as usize != 1 {
        return Err(
            UsageError("a ledger is one robot's: with --ledger give one trace, one --policy, one seed".into()).into()
        );
    }
    let data = dialogues(&args.dialogues, args.seed)?;
    let start = Instant::now();
    let bar = progress(files.len() as u64 * args.seeds * contenders.len() as u64);
    let (mut outcomes, mut shared) = (Vec::new(), Vec::new());
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let trace = read_trace(file, args.uplink_share)?;
        if trace.has_shared_uplink() {
            shared.push(name.clone());
        }
        let mission = Mission::new(robot, trace, data.clone(), budgets.clone(), args.hours, args.turns_per_hour);
        let mission = match args.pictures {
            Pictures::Sized => mission,
            Pictures::Fixed => mission.map(Mission::with_fixed_pictures),
        };
        let mut mission = mission.map_err(usage)?;
        mission.rated_share = args.rated;
        for seed in args.seed..args.seed.saturating_add(args.seeds) {
            for contender in &contenders {
                outcomes.push(match &args.ledger {
                    None => fly(&mission, contender, &name, seed, &mut |_| Ok::<(), Infallible>(()))?,
                    Some(path) => with_ledger(path, |keep| fly(&mission, contender, &name, seed, keep))?,
                });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &args.output {
        let html = page::page("Field tests, replayed", &intro(args, &shared), &outcomes);
        std::fs::write(path, html).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if global.json {
        output::json(&Report {
            device: robot.hardware.device.name,
            battery_wh,
            dialogues: &args.dialogues,
            hours: args.hours,
            turns_per_hour: args.turns_per_hour,
            rated_share: args.rated,
            budgets: &args.budget,
            pictures: args.pictures,
            uplink_share: args.uplink_share,
            uplink_is_a_share: &shared,
            outcomes: &outcomes,
        })?;
    } else {
        if !shared.is_empty() {
            note(share_note(args.uplink_share, shared.len()));
        }
        print(&outcomes, seconds)?;
    }
    let exceeded: u64 = outcomes.iter().map(|outcome| outcome.caps_exceeded).sum();
    if exceeded > 0 {
        bail!("a budget's cap was exceeded {exceeded} times");
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(error: MissionError) -> anyhow::Error {
    UsageError(error.to_string()).into()
}

fn watt_hours(text: &str) -> Result<f64, UsageError> {
    let number = text.trim().trim_end_matches(['h', 'H']).trim_end_matches(['w', 'W']).trim();
    let value = number.parse::<f64>().ok().filter(|value| *value > 0.0 && *value <= MAX_BATTERY_WH);
    value.ok_or_else(|| UsageError(format!("--battery {text:?} is not a capacity such as 40Wh")))
}

fn dialogues(name: &str, seed: u64) -> anyhow::Result<Dataset> {
    if name == "synthetic" {
        return Ok(synthetic::dataset(SYNTHETIC_DIALOGUES, VIEWS, seed));
    }
    Dataset::parse(&read(Path::new(name), MAX_FILE_BYTES)?).with_context(|| name.to_owned())
}

/// The length is checked first, so that a wrong path does not fill the memory.
fn read(path: &Path, limit: usize) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let given = std::fs::metadata(path).with_context(cannot)?.len();
    if given > limit as u64 {
        bail!("{} has {given} bytes, at most {limit} are allowed", path.display());
    }
    std::fs::read_to_string(path).with_context(cannot)
}

fn read_trace(path: &Path, uplink_share: f64) -> anyhow::Result<Trace> {
    Trace::parse(&read(path, trace::MAX_FILE_BYTES)?, uplink_share).with_context(|| path.display().to_string())
}

pub(super) fn budget(text: &str, mission_ms: Option<i64>) -> anyhow::Result<Budget> {
    let wrong = |problem: String| UsageError(format!("--budget {text:?}: {problem}"));
    let (name, cap) = text.split_once('=').ok_or_else(|| wrong("write NAME=CAP".into()))?;
    let name: BudgetName = name.trim().parse().map_err(|error| wrong(format!("{error}")))?;
    let (cap, floor) = cap.split_once('@').map_or((cap, None), |(cap, floor)| (cap, Some(floor)));
    let percent = |floor: &str| {
        let percent = floor.trim().trim_end_matches('%').parse::<f64>().ok();
        let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
        percent.ok_or_else(|| wrong("the floor is no percentage from 0 to 100".into()))
    };
    let floor_percent = floor.map(percent).transpose()?;
    let cap = cap.trim().parse::<f64>().ok().and_then(|cap| name.resource.count(cap));
    let cap =
        cap.filter(|cap| *cap <= i64::MAX as u64 / 2).ok_or_else(|| wrong("the cap is no number from 0 on".into()))?;
    Ok(Budget { name, cap, mission_ms, floor_percent })
}

/// The files named, and the `.csv` files of the folders named.
fn traces(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_trace = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "csv");
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_trace).collect();
        if found.is_empty() {
            bail!("no trace (*.csv) in {}", path.display());
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

type Keep<'a> = &'a mut dyn FnMut(Flown) -> Result<(), StoreError>;

/// A new database, written in batches.
fn with_ledger(path: &Path, flight: impl FnOnce(Keep<'_>) -> Result<Outcome, StoreError>) -> anyhow::Result<Outcome> {
    if path.exists() {
        bail!("{} exists already; a replay begins a new ledger: name another file", path.display());
    }
    let store = Store::create(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut batch = Vec::with_capacity(BATCH);
    let outcome = flight(&mut |turn| {
        batch.push(turn);
        if batch.len() < BATCH {
            return Ok(());
        }
        runtime.block_on(store.settle_all(std::mem::take(&mut batch)))
    })?;
    runtime.block_on(store.settle_all(batch))?;
    Ok(outcome)
}

fn progress(flights: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} flights, {eta} left");
    // Hidden by itself where standard error is no terminal.
    ProgressBar::new(flights).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn share_note(share: f64, traces: usize) -> String {
    format!("{traces} of the traces measured the downlink: the uplink is taken to be {share} of it (--uplink-share)")
}

fn intro(args: &ReplayArgs, shared: &[String]) -> String {
    let budgets = if args.budget.is_empty() { "no budgets".to_owned() } else { args.budget.join(", ") };
    let mut intro = format!(
        "{}, {}, {} hours, about {} turns an hour, dialogues: {}; {budgets}. Virtual time over recorded links. Rewards are \
         TMO's, response + (association - latency - usage) / 3, judged by a model that never saw the dialogue; a turn \
         that nobody answered earns the least. \"Ahead\" is the furthest that spending was ahead of its straight line, as \
         a share of a cap.",
        args.device, args.battery, args.hours, args.turns_per_hour, args.dialogues
    );
    if !shared.is_empty() {
        intro += &format!(" {}.", share_note(args.uplink_share, shared.len()));
    }
    intro
}

fn print(outcomes: &[Outcome], seconds: f64) -> std::io::Result<()> {
    table(outcomes)?;
    let turns: u64 = outcomes.iter().map(|outcome| outcome.turns).sum();
    let exceeded: u64 = outcomes.iter().map(|outcome| outcome.caps_exceeded).sum();
    let rate = turns as f64 / seconds.max(1e-9);
    let mut out = output::stdout();
    writeln!(out, "{turns} turns in {seconds:.2} s ({rate:.0} a second); caps exceeded: {exceeded}")?;
    out.flush()
}

/// The outcomes as a table of text, over all traces; a column of which nothing is known is left out.
pub(super) fn table(outcomes: &[Outcome]) -> std::io::Result<()> {
    let mut rows = vec![page::HEAD.map(str::to_owned).to_vec()];
    rows.extend(lines(outcomes, false).iter().map(cells));
    let known = |column: &usize| rows[1..].iter().any(|row| row[*column] != "-");
    let columns: Vec<usize> = (0..page::HEAD.len()).filter(known).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut out = output::stdout();
    for row in &rows {
        write!(out, "{:<1$}", row[0], width(0))?;
        for &column in columns.iter().filter(|column| **column > 0) {
            write!(out, "  {:>1$}", row[column], width(column))?;
        }
        writeln!(out)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        assert_eq!(
            (watt_hours("40Wh").unwrap(), watt_hours("12.5 wh").unwrap(), watt_hours("7").unwrap()),
            (40.0, 12.5, 7.0)
        );
        assert!(watt_hours("0Wh").is_err() && watt_hours("1e7Wh").is_err() && watt_hours("full").is_err());
        let read = budget("usd_per_mission=0.5", Some(1_000)).unwrap();
        assert_eq!((read.cap, read.mission_ms), (500_000_000, Some(1_000)));
        assert_eq!(read.floor_percent, None);
        let floors = ["usd_per_day=0.5@20", "usd_per_day=0.5@20%"].map(|text| budget(text, None).unwrap());
        assert!(floors.iter().all(|read| (read.cap, read.floor_percent) == (500_000_000, Some(20.0))));
        for wrong in ["usd_per_day=1@", "usd_per_day=1@101", "usd_per_day=1@low", "usd_per_day=@20"] {
            assert!(budget(wrong, None).unwrap_err().to_string().contains("--budget"), "{wrong}");
        }
        for wrong in ["usd_per_mission", "usd_per_week=1", "usd_per_day=-1", "usd_per_day=many", "usd_per_day=inf"] {
            assert!(budget(wrong, None).unwrap_err().to_string().contains("--budget"), "{wrong}");
        }
    }
}
