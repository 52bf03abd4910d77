//! The reward against each budget, the other one held at the paper's.

use super::data::Split;
use super::learned::{BUDGET, Plan};
use super::run::Budget;
use super::table::{Curve, Line, Study};
use super::tether::paper::Tether;
use serde::Serialize;
use tether_policies::tmo::data::Dataset;

/// Seconds and USD of a dialogue: from below two cheap cloud turns to more than five dear ones.
const LATENCY_S: [f64; 8] = [5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0];
const USAGE_USD: [f64; 8] = [0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// Ordered by policy, then by the budget that varies.
    pub latency: Vec<Line>,
    pub usage: Vec<Line>,
    #[serde(skip)]
    pub curves: Vec<Curve>,
}

/// Trains each plan once per split and plays it, and the tether policies given, under all budgets.
pub fn sweep(
    data: &Dataset,
    splits: &[Split],
    plans: &[Plan],
    tether: &[Tether],
    optima: bool,
    report: &(dyn Fn(usize) + Sync),
) -> anyhow::Result<Sweep> {
    let latency = LATENCY_S.map(|latency_s| [latency_s, BUDGET[1]]);
    let usage = USAGE_USD.map(|usage_usd| [BUDGET[0], usage_usd]);
    let budgets: Vec<Budget> = latency.into_iter().chain(usage).collect();
    let study = Study { data, splits, budgets: &budgets, baselines: false, optima, plans, tether };
    let findings = study.run(report)?;
    // The lines of one policy follow each other, in the order of the budgets.
    let of = |range: std::ops::Range<usize>| {
        let chunks = findings.lines.chunks(budgets.len());
        chunks.flat_map(|lines| lines[range.clone()].to_vec()).collect()
    };
    let split = LATENCY_S.len();
    Ok(Sweep { latency: of(0..split), usage: of(split..budgets.len()), curves: findings.curves })
}

impl Sweep {
    pub fn text(&self) -> String {
        let section = |title: &str, lines: &[Line]| format!("{title}\n{}", super::table::text(lines));
        section("seconds vary", &self.latency) + "\n" + &section("USD vary", &self.usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::made_up;

    #[test]
    fn more_of_a_budget_is_never_worse_for_the_masked_bound_by_much_and_no_line_is_lost() {
        let (data, splits) = made_up();
        let sweep = sweep(&data, &splits[..1], &[], &[], false, &|_| {}).unwrap();
        assert_eq!((sweep.latency.len(), sweep.usage.len()), (16, 16));
        assert!(sweep.latency.iter().all(|line| line.budget_usd == BUDGET[1]));
        assert!(sweep.usage.iter().all(|line| line.budget_s == BUDGET[0]));
        let masked: Vec<&Line> = sweep.latency.iter().filter(|line| line.policy.ends_with("masked")).collect();
        assert!(masked.len() == 8 && masked[0].reward < masked[7].reward);
        assert!(sweep.usage.iter().filter(|line| line.policy.ends_with("masked")).all(|line| line.over_ratio == 0.0));
        assert!(sweep.text().contains("USD vary"));
    }
}
