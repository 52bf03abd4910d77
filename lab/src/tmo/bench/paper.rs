//! Paper mode against the reference: recorded steps, and bounds that no learner is part of.

use super::{Given, Show, skipped};
use crate::mess::bench::Bar;
use crate::tmo::golden;
use crate::tmo::table::Study;

/// The reference's own bounds on the same splits: reproducing them is what shows that the environment is the same.
const BOUNDS: [(&str, f64, f64); 7] = [
    ("local", 30.0, 0.880),
    ("greedy on the estimator", 30.0, 1.251),
    ("greedy on the estimator, masked", 15.0, 1.207),
    ("greedy on the estimator, masked", 8.0, 1.126),
    ("exhaustive optimum within budget", 30.0, 1.479),
    ("exhaustive optimum within budget", 15.0, 1.413),
    ("exhaustive optimum within budget", 8.0, 1.250),
];

pub(super) fn run(given: Option<&Given<'_>>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let golden_bar = "paper mode, recorded steps that agree";
    let Some(Given { folder, data, splits }) = given else {
        return show(&skipped(golden_bar, 1.0, "ratio", "skipped: no DATA"));
    };
    let golden = golden::check(folder, data, splits)?;
    show(&Bar {
        bar: golden_bar.to_owned(),
        value: Some(golden.agree as f64 / golden.all.max(1) as f64),
        target: 1.0,
        unit: "ratio",
        met: golden.all > 0 && golden.agree == golden.all,
        how: format!("{} of {} steps of tmo_golden.json, to 1e-6", golden.agree, golden.all),
    })?;
    let lines = Study::bounds(data, splits).run(&|_| {})?.lines;
    for (policy, budget_s, target) in BOUNDS {
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
    Ok(())
}
