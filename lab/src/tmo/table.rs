//! All policies on all splits and budgets.

use super::contender::{Constant, Greedy, Optimum, TaskTable, Uniform, best_constant};
use super::data::{Split, environment, named};
use super::run::{Budget, Contender, Score, play};
use rayon::prelude::*;
use serde::Serialize;
use tether_policies::tmo::data::Dataset;

/// Seconds and USD of a dialogue: the paper's, and two that bind.
pub const BUDGETS: [Budget; 3] = [[30.0, 0.05], [15.0, 0.02], [8.0, 0.01]];

/// One policy under one budget, over the splits.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub policy: String,
    pub budget_s: f64,
    pub budget_usd: f64,
    /// Mean reward per turn of a dialogue, over the test dialogues; mean over the splits, and its standard deviation.
    pub reward: f64,
    pub reward_sd: f64,
    /// Per dialogue.
    pub latency_s: f64,
    pub usage_usd: f64,
    /// Dialogues over a budget, and turns refused, in 0..1.
    pub over_ratio: f64,
    pub refused_ratio: f64,
}

pub fn table(data: &Dataset, splits: &[Split]) -> anyhow::Result<Vec<Line>> {
    let runs: Vec<Vec<(String, Budget, Score)>> =
        splits.par_iter().map(|split| one_split(data, split)).collect::<anyhow::Result<_>>()?;
    Ok((0..runs[0].len()).map(|at| line(&runs.iter().map(|run| &run[at]).collect::<Vec<_>>())).collect())
}

fn one_split(data: &Dataset, split: &Split) -> anyhow::Result<Vec<(String, Budget, Score)>> {
    let environment = environment(data, split)?;
    let (training, test) = (named(data, &split.train)?, named(data, &split.test)?);
    let contenders: Vec<(&str, Box<dyn Contender>)> = vec![
        ("", Box::new(Uniform { name: "random", from: 0, seed: 1 })),
        ("", Box::new(Constant(0))),
        ("", Box::new(Uniform { name: "cloud", from: 1, seed: 1 })),
        ("", Box::new(Constant(2))),
        ("", Box::new(Constant(5))),
        ("best constant", Box::new(Constant(best_constant(&environment, &training)))),
        ("", Box::new(TaskTable::learn(&environment, &training))),
        ("", Box::new(Greedy { masked: false })),
        ("", Box::new(Greedy { masked: true })),
        ("", Box::new(Optimum { budgets: false })),
        ("", Box::new(Optimum { budgets: true })),
    ];
    let mut scores = Vec::new();
    for (name, contender) in &contenders {
        let name = if name.is_empty() { contender.name() } else { (*name).to_owned() };
        for budget in BUDGETS {
            scores.push((name.clone(), budget, play(contender.as_ref(), &environment, &test, budget)));
        }
    }
    Ok(scores)
}

fn line(runs: &[&(String, Budget, Score)]) -> Line {
    let count = runs.len() as f64;
    let mean = |of: &dyn Fn(&Score) -> f64| runs.iter().map(|run| of(&run.2)).sum::<f64>() / count;
    let per_dialogue = |score: &Score| score.reward / score.dialogues as f64;
    let reward = mean(&per_dialogue);
    let variance = mean(&|score| (per_dialogue(score) - reward).powi(2)) * count / (count - 1.0).max(1.0);
    let (policy, [budget_s, budget_usd], _) = runs[0];
    Line {
        policy: policy.clone(),
        budget_s: *budget_s,
        budget_usd: *budget_usd,
        reward,
        reward_sd: variance.sqrt(),
        latency_s: mean(&|score| score.latency_s / score.dialogues as f64),
        usage_usd: mean(&|score| score.usage_usd / score.dialogues as f64),
        over_ratio: mean(&|score| score.over as f64 / score.dialogues as f64),
        refused_ratio: mean(&|score| score.refused as f64 / score.turns as f64),
    }
}

pub fn text(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<34} {:>12} {:>16} {:>9} {:>8} {:>7} {:>8}\n",
        "policy", "budget", "reward", "latency s", "USD", "over", "refused"
    );
    for line in lines {
        text += &format!(
            "{:<34} {:>4} s / {:<5} {:>7.3} +- {:<6.3} {:>8.2} {:>9.4} {:>5.1} % {:>6.1} %\n",
            line.policy,
            line.budget_s,
            line.budget_usd,
            line.reward,
            line.reward_sd,
            line.latency_s,
            line.usage_usd,
            100.0 * line.over_ratio,
            100.0 * line.refused_ratio
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::made_up;

    #[test]
    fn the_bounds_are_in_order_and_masks_hold() {
        let (mut data, splits) = made_up();
        // Short dialogues keep the exhaustive search quick.
        data.dialogues.iter_mut().for_each(|dialogue| dialogue.turns.truncate(3));
        let lines = table(&data, &splits[..2]).unwrap();
        for budget in BUDGETS {
            let of = |name: &str| {
                lines.iter().find(|line| line.policy == name && line.budget_s == budget[0]).unwrap().clone()
            };
            let (within, without) = (of("exhaustive optimum within budget"), of("exhaustive optimum, no budget"));
            let (greedy, masked) = (of("greedy on the estimator"), of("greedy on the estimator, masked"));
            assert!(
                without.reward >= within.reward && within.reward >= masked.reward && without.reward >= greedy.reward
            );
            assert_eq!((within.over_ratio, masked.over_ratio, masked.refused_ratio), (0.0, 0.0, 0.0));
            assert!(greedy.reward > of("random").reward);
        }
    }
}
