//! The rows of `make bench-tmo`. What has no implementation yet is a row that says so, and is not met.

use super::{association, data, golden, table, task};
use crate::mess::bench::Bar;
use std::path::Path;

pub fn run(folder: Option<&Path>, show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>) -> anyhow::Result<()> {
    task::bench(folder, show)?;
    association::bench(folder, show)?;
    let Some(folder) = folder else {
        for (bar, target, unit) in
            [("paper mode, recorded steps that agree", 1.0, "ratio"), ("dialogues over budget", 0.0, "dialogues")]
        {
            show(&skipped(bar, target, unit, "skipped: no DATA"))?;
        }
        return absent(show);
    };
    let (all, splits) = (data::dialogues(folder)?, data::splits(folder)?);
    let golden = golden::check(folder, &all, &splits)?;
    let ratio = golden.agree as f64 / golden.all.max(1) as f64;
    show(&Bar {
        bar: "paper mode, recorded steps that agree".to_owned(),
        value: Some(ratio),
        target: 1.0,
        unit: "ratio",
        met: golden.all > 0 && golden.agree == golden.all,
        how: format!("{} of {} steps of tmo_golden.json, to 1e-6", golden.agree, golden.all),
    })?;
    let lines = table::table(&all, &splits)?;
    // The reference's own bounds on the same splits: reproducing them is what shows that the environment is the same.
    let bounds = [
        ("local", 30.0, 0.880),
        ("greedy on the estimator", 30.0, 1.251),
        ("greedy on the estimator, masked", 15.0, 1.207),
        ("greedy on the estimator, masked", 8.0, 1.126),
        ("exhaustive optimum within budget", 30.0, 1.479),
        ("exhaustive optimum within budget", 15.0, 1.413),
        ("exhaustive optimum within budget", 8.0, 1.250),
    ];
    for (policy, budget_s, target) in bounds {
        let Some(line) = lines.iter().find(|line| line.policy == policy && line.budget_s == budget_s) else { continue };
        show(&Bar {
            bar: format!("paper mode, {policy}, {budget_s} s / {} USD, as the reference", line.budget_usd),
            value: Some(line.reward),
            target,
            unit: "reward",
            met: (line.reward - target).abs() < 0.0015,
            how: format!("mean of {} splits, all-tied rule; within 0.0015 of the reference's figure", splits.len()),
        })?;
    }
    absent(show)
}

/// The targets that nothing here can be measured for yet.
fn absent(show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let rows = [
        ("paper mode, our A2C, all-tied rule", 1.110, "reward"),
        ("paper mode, our PPO, all-tied rule", 1.165, "reward"),
        ("paper mode, our DQN, all-tied rule", 1.111, "reward"),
        ("paper mode, tether policy, 30 s / 0.05 USD", 1.25, "reward"),
        ("paper mode, tether policy, 15 s / 0.02 USD", 1.20, "reward"),
        ("paper mode, tether policy, 8 s / 0.01 USD", 1.12, "reward"),
        ("honest mode, tether policy over A2C", 1.0, "ratio"),
        ("unseen profiles, against a network of their own", 0.97, "ratio"),
        ("decision, X = 4, median", 15.0, "us"),
        ("decision, X = 4, p99", 40.0, "us"),
        ("A2C steps on one core", 16_000.0, "steps/s"),
    ];
    rows.into_iter().try_for_each(|(bar, target, unit)| show(&skipped(bar, target, unit, "skipped: not implemented")))
}

fn skipped(bar: &str, target: f64, unit: &'static str, how: &str) -> Bar {
    Bar { bar: bar.to_owned(), value: None, target, unit, met: false, how: how.to_owned() }
}
