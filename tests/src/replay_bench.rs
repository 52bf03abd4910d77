//! Field tests replayed over every trace: how fast, whether caps hold, and what the committed policy earns.

use crate::traces::{LEVELS, Recorded, SEEDS};
use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::convert::Infallible;
use std::path::Path;
use tether::replay::{Contender, Mission, Robot, fly};
use tether::store::Store;
use tether_policies::budget::{Budget, BudgetName, Resource, Window};
use tether_policies::tmo::data::Dataset;
use tether_policies::tmo::honest::link::uplink_bytes;
use tether_policies::tmo::paper::Profile;
use tether_policies::tmo::synthetic;
use tether_policies::trace::Trace;
use tokio::runtime::Runtime;

const DEVICE: &str = "Jetson Orin NX";
const HOURS: f64 = 8.0;
const TURNS_PER_HOUR: f64 = 60.0;
/// Enough for eight hours, so that budgets decide and not when the battery is empty.
const BATTERY_WH: f64 = 120.0;
const DIALOGUES: usize = 200;
const VIEWS: usize = 3;
/// The policy in question and the two naive ones, and what share of their answers is rated: only the first one learns from it.
pub const FLOWN: [(&str, f64); 4] =
    [("tether", 1.0), ("tether", 0.0), ("cloud-then-local", 0.0), ("always-local", 0.0)];
const SPEED_TURNS_PER_HOUR: f64 = 6_000.0;
const BATCH: usize = 1_000;

/// Means over all flights, in the order of [`FLOWN`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Earned {
    pub rewards: [f64; FLOWN.len()],
    pub turns: u64,
    pub exceeded: u64,
    /// Traces on which the policy earns less than the target over the better of the others.
    pub traces_below: usize,
}

impl Earned {
    pub fn over_better(&self) -> f64 {
        self.rewards[0] / self.rewards[2].max(self.rewards[3])
    }
}

/// The caps: a share of what three views at every turn would take.
fn budgets(level: f64) -> Result<Vec<Budget>> {
    let turns = HOURS * TURNS_PER_HOUR;
    let budget = |resource: Resource, cap: f64| -> Result<Budget> {
        let name = BudgetName { resource, window: Window::Mission };
        let cap = resource.count(cap).context("a cap")?;
        Ok(Budget { name, cap, mission_ms: Some((HOURS * 3.6e6) as i64), floor_percent: None })
    };
    Ok(vec![
        budget(Resource::Usd, level * turns * Profile::default().usage_usd[VIEWS + 1])?,
        budget(Resource::UplinkBytes, level * turns * uplink_bytes(VIEWS))?,
    ])
}

/// `data`: M4A1's file; synthetic dialogues without it, other ones for each seed.
///
/// # Errors
/// A file that is no data, or a mission that cannot be flown.
pub fn earned(traces: &[Recorded], data: Option<&Path>, target: f64) -> Result<Earned> {
    let known = data.map(|path| -> Result<Dataset> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Dataset::parse(&text).with_context(|| path.display().to_string())
    });
    let known = known.transpose()?;
    let contenders = FLOWN.map(|(name, _)| Contender::named(name)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut all = Earned::default();
    for recorded in traces {
        let mut sums = Earned::default();
        for seed in 0..SEEDS {
            let dialogues = known.clone().unwrap_or_else(|| synthetic::dataset(DIALOGUES, VIEWS, seed));
            for level in LEVELS {
                let robot = Robot::new(DEVICE, BATTERY_WH)?;
                let trace = recorded.trace.clone();
                let mut mission =
                    Mission::new(robot, trace, dialogues.clone(), budgets(level)?, HOURS, TURNS_PER_HOUR)?;
                for ((contender, (_, rated_share)), sum) in contenders.iter().zip(FLOWN).zip(&mut sums.rewards) {
                    mission.rated_share = rated_share;
                    let outcome = fly(&mission, contender, &recorded.name, seed, &mut |_| Ok::<(), Infallible>(()))?;
                    *sum += outcome.reward.unwrap_or(0.0);
                    all.turns += outcome.turns;
                    all.exceeded += outcome.caps_exceeded;
                }
            }
        }
        all.traces_below += usize::from(sums.over_better() < target);
        all.rewards.iter_mut().zip(sums.rewards).for_each(|(all, one)| *all += one);
    }
    let flights = traces.len() as f64 * SEEDS as f64 * LEVELS.len() as f64;
    all.rewards.iter_mut().for_each(|sum| *sum /= flights);
    Ok(all)
}

/// Turns a second of processor time, which other programs on the machine do not change: of the committed policy; with a
/// ledger every turn is written, a thousand a transaction, and the database's thread counts too.
///
/// # Errors
/// The mission cannot be flown, or the ledger not written.
pub fn turns_per_s(ledger: Option<(&Path, &Runtime)>) -> Result<(u64, f64)> {
    let rows: String = (0..600).map(|t| format!("{t},,{},40\n", 4 + t % 9)).collect();
    let trace = Trace::parse(&format!("t_s,down_mbps,up_mbps,rtt_ms\n{rows}"), 0.1)?;
    let dialogues = synthetic::dataset(DIALOGUES, VIEWS, 1);
    // One that lasts: a turn is served whatever the hour.
    let robot = Robot::new(DEVICE, 100.0 * BATTERY_WH)?;
    let mission = Mission::new(robot, trace, dialogues, budgets(10.0)?, HOURS, SPEED_TURNS_PER_HOUR)?;
    let contender = Contender::named(FLOWN[0].0)?;
    let store = match ledger {
        Some((path, runtime)) => Some((Store::create(path)?, runtime)),
        None => None,
    };
    let mut batch = Vec::new();
    let begun_s = processor_s()?;
    let outcome = fly(&mission, &contender, "speed", 1, &mut |turn| {
        let Some((store, runtime)) = &store else { return Ok(()) };
        batch.push(turn);
        if batch.len() < BATCH {
            return Ok(());
        }
        runtime.block_on(store.settle_all(std::mem::take(&mut batch)))
    })?;
    if let Some((store, runtime)) = &store {
        runtime.block_on(store.settle_all(batch))?;
    }
    // Closed: what was posted is written.
    drop(store);
    Ok((outcome.turns, outcome.turns as f64 / (processor_s()? - begun_s).max(1e-6)))
}

/// Processor time of all threads of this process so far.
fn processor_s() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
