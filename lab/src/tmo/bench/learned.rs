//! Our A2C, PPO and DQN in paper mode against the reference's, and how fast the first one learns.

use super::{Given, Show, skipped};
use crate::mess::bench::Bar;
use crate::tmo::data::{environment, named};
use crate::tmo::learned::{Algorithm, Handling, Plan, STEPS};
use crate::tmo::progress::Steps;
use crate::tmo::table::{BUDGETS, Study, sd_text};
use std::time::Instant;

/// The reference's mean and standard deviation over the same ten splits, all-tied rule.
const REFERENCE: [(&str, f64, f64); 6] = [
    ("A2C", 1.110, 0.131),
    ("PPO", 1.165, 0.097),
    ("DQN", 1.111, 0.100),
    ("RC-A2C (journal)", 0.990, 0.105),
    ("RC-PPO (journal)", 1.139, 0.117),
    ("RC-DQN (journal)", 1.104, 0.109),
];
/// The reference takes about 800 steps/s.
const STEPS_PER_S: f64 = 20.0 * 800.0;
const SPEED: &str = "A2C steps on one core";
/// Odd, for a median.
const RUNS: usize = 5;

pub(super) fn run(given: Option<&Given<'_>>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let name = |policy: &str| format!("paper mode, our {policy}, as the reference");
    let Some(given) = given else {
        for (policy, reward, _) in REFERENCE {
            show(&skipped(&name(policy), reward, "reward", "skipped: no DATA"))?;
        }
        return show(&skipped(SPEED, STEPS_PER_S, "steps/s", "skipped: no DATA"));
    };
    show(&speed(given)?)?;
    let plans = Plan::reference(0);
    let study = Study {
        data: &given.data,
        splits: &given.splits,
        budgets: &BUDGETS[..1],
        baselines: false,
        optima: false,
        plans: &plans,
        tether: &[],
    };
    let steps = Steps::new(study.steps(), "steps");
    let lines = study.run(&|more| steps.advance(more))?.lines;
    steps.done();
    for (policy, reward, sd) in REFERENCE {
        let Some(line) = lines.iter().find(|line| line.policy == policy) else { continue };
        show(&Bar {
            bar: name(policy),
            value: Some(line.reward),
            target: reward,
            unit: "reward",
            met: (line.reward - reward).abs() <= sd,
            how: format!(
                "mean of {} splits, one seed each, all-tied rule, 30 s / 0.05 USD, {STEPS} steps; sd {}, over {:.1} \
                 %; within the reference's sd of {sd}",
                given.splits.len(),
                sd_text(line.reward_sd),
                100.0 * line.over_ratio
            ),
        })?;
    }
    Ok(())
}

/// Whole trainings, one after the other, in a pool of one thread, by the time that this thread had a processor: other
/// work on the machine delays a training, and says nothing about it.
fn speed(given: &Given<'_>) -> anyhow::Result<Bar> {
    let split = &given.splits[0];
    let environment = environment(&given.data, split)?;
    let training = named(&given.data, &split.train)?;
    let once = |seed: usize| {
        let (begin, begin_s) = (Instant::now(), processor_s());
        Plan::new(Algorithm::A2c, Handling::None, seed as u64).train(&environment, &training, &mut |_| {});
        let wall_s = begin.elapsed().as_secs_f64();
        let used_s = begin_s.zip(processor_s()).map_or(wall_s, |(begin_s, end_s)| end_s - begin_s);
        [used_s, wall_s].map(|seconds| STEPS as f64 / seconds)
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut rates: Vec<[f64; 2]> = pool.install(|| (0..RUNS).map(once).collect());
    rates.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [median, wall] = rates[RUNS / 2];
    Ok(Bar {
        bar: SPEED.to_owned(),
        value: Some(median),
        target: STEPS_PER_S,
        unit: "steps/s",
        met: median >= STEPS_PER_S,
        how: format!(
            "median of {RUNS} trainings of {STEPS} steps on one thread by its processor time, {:.0} to {:.0}; by the \
             wall clock beside whatever else ran, {wall:.0}; burn's autodiff and RMSProp",
            rates[0][0],
            rates[RUNS - 1][0]
        ),
    })
}

/// Seconds that this thread had a processor (Linux); `None` where the kernel does not say.
fn processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let used_ns: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(used_ns / 1e9)
}
