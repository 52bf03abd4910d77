//! Policies on all splits and budgets.

use super::bootstrap::interval;
use super::contender::{Chance, Constant, Greedy, Optimum, TaskTable, best_constant};
use super::data::{Split, environment, named};
use super::learned::{BUDGET, Plan};
use super::run::{Budget, Contender, Score, play};
use super::tether::paper::Tether;
use rayon::prelude::*;
use serde::Serialize;
use tether_policies::tmo::data::{Dataset, Dialogue};
use tether_policies::tmo::learn::progress::Point;
use tether_policies::tmo::paper::{ACTIONS, Environment};

/// Seconds and USD of a dialogue: the paper's, and two that bind.
pub const BUDGETS: [Budget; 3] = [BUDGET, [15.0, 0.02], [8.0, 0.01]];

/// One policy under one budget, over the splits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub policy: String,
    pub budget_s: f64,
    pub budget_usd: f64,
    /// Mean reward per turn of a dialogue, over the test dialogues; mean over the splits, and their standard
    /// deviation, unknown for one split.
    pub reward: f64,
    pub reward_sd: Option<f64>,
    /// 95 % of the mean, dialogues drawn again.
    pub reward_low: f64,
    pub reward_high: f64,
    /// Per dialogue.
    pub latency_s: f64,
    pub usage_usd: f64,
    /// Dialogues over a budget, and turns refused, in 0..1.
    pub over_ratio: f64,
    pub refused_ratio: f64,
    /// Over all dialogues, those within counted as 0: by how much of a budget a dialogue goes over (fault 6: the
    /// reference averages over those that do).
    pub overshoot_ratio: f64,
    /// The share of each action.
    pub actions: [f64; ACTIONS],
}

/// How one policy learned, on one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    pub policy: String,
    pub split: usize,
    pub points: Vec<Point>,
}

/// What is compared.
pub struct Study<'a> {
    pub data: &'a Dataset,
    pub splits: &'a [Split],
    pub budgets: &'a [Budget],
    pub baselines: bool,
    /// The exhaustive searches: a second or two for each split and budget.
    pub optima: bool,
    /// Trained anew on each split, with its number added to the seed.
    pub plans: &'a [Plan],
    /// The tether policy of each split; empty: it is not shown.
    pub tether: &'a [Tether],
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    pub lines: Vec<Line>,
    pub curves: Vec<Curve>,
}

/// A policy with the name it is shown by.
type Named<'a> = (String, Box<dyn Contender + 'a>);

impl Study<'_> {
    /// All baselines and bounds under [`BUDGETS`], nothing trained.
    pub fn bounds<'a>(data: &'a Dataset, splits: &'a [Split]) -> Study<'a> {
        Study { data, splits, budgets: &BUDGETS, baselines: true, optima: true, plans: &[], tether: &[] }
    }

    /// Steps of training in all, for a progress bar.
    pub fn steps(&self) -> usize {
        self.plans.iter().map(|plan| plan.steps).sum::<usize>() * self.splits.len()
    }

    /// Trains and plays; `report` is told of steps trained since it was told last, from several threads.
    pub fn run(&self, report: &(dyn Fn(usize) + Sync)) -> anyhow::Result<Findings> {
        let numbered = self.splits.par_iter().enumerate();
        let runs: Vec<(Vec<Played>, Vec<Curve>)> =
            numbered.map(|(number, split)| self.one_split(number, split, report)).collect::<anyhow::Result<_>>()?;
        let (runs, curves): (Vec<Vec<Played>>, Vec<Vec<Curve>>) = runs.into_iter().unzip();
        Ok(Findings { lines: lines(&runs), curves: curves.concat() })
    }

    fn one_split(
        &self,
        number: usize,
        split: &Split,
        report: &(dyn Fn(usize) + Sync),
    ) -> anyhow::Result<(Vec<Played>, Vec<Curve>)> {
        let environment = environment(self.data, split)?;
        let (training, test) = (named(self.data, &split.train)?, named(self.data, &split.test)?);
        let learned: Vec<_> = self
            .plans
            .par_iter()
            .map(|plan| {
                let plan = Plan { seed: plan.seed + number as u64, ..*plan };
                let mut known = 0;
                plan.train(&environment, &training, &mut |progress| {
                    report(progress.steps.saturating_sub(known));
                    known = progress.steps;
                })
            })
            .collect();
        let curve = |policy: &super::learned::Learned| Curve {
            policy: policy.name(),
            split: number,
            points: policy.curve.clone(),
        };
        let curves = learned.iter().map(curve).collect();
        let mut contenders = if self.baselines { baselines(&environment, &training) } else { Vec::new() };
        contenders.extend(learned.into_iter().map(|policy| (policy.name(), Box::new(policy) as Box<dyn Contender>)));
        contenders
            .extend(self.tether.get(number).map(|tether| (tether.name(), Box::new(tether) as Box<dyn Contender + '_>)));
        let mut bounds: Vec<Box<dyn Contender>> =
            vec![Box::new(Greedy { masked: false }), Box::new(Greedy { masked: true })];
        if self.optima {
            bounds.extend([false, true].map(|budgets| Box::new(Optimum { budgets }) as Box<dyn Contender>));
        }
        contenders.extend(bounds.into_iter().map(|bound| (bound.name(), bound)));
        Ok((play_all(&contenders, &environment, &test, self.budgets), curves))
    }
}

/// One policy, one budget, one split.
pub type Played = (String, Budget, Score);

pub fn play_all(
    contenders: &[Named<'_>],
    environment: &Environment,
    test: &[&Dialogue],
    budgets: &[Budget],
) -> Vec<Played> {
    let pairs: Vec<(&Named<'_>, Budget)> =
        contenders.iter().flat_map(|contender| budgets.iter().map(move |&budget| (contender, budget))).collect();
    let played = |((name, contender), budget): (&Named<'_>, Budget)| {
        (name.clone(), budget, play(contender.as_ref(), environment, test, budget))
    };
    pairs.into_par_iter().map(played).collect()
}

/// What needs no learning beyond a table.
fn baselines(environment: &Environment, training: &[&Dialogue]) -> Vec<Named<'static>> {
    let contenders: Vec<(&str, Box<dyn Contender>)> = vec![
        ("", Box::new(Chance::Any { seed: 1 })),
        ("", Box::new(Constant(0))),
        ("", Box::new(Chance::Cloud { seed: 1 })),
        ("", Box::new(Constant(2))),
        ("", Box::new(Constant(5))),
        ("best constant", Box::new(Constant(best_constant(environment, training)))),
        ("", Box::new(TaskTable::learn(environment, training))),
    ];
    let shown = |(name, contender): (&str, Box<dyn Contender>)| {
        (if name.is_empty() { contender.name() } else { name.to_owned() }, contender)
    };
    contenders.into_iter().map(shown).collect()
}

/// The same policies and budgets in each run, in the same order.
pub fn lines(runs: &[Vec<Played>]) -> Vec<Line> {
    let count = runs.first().map_or(0, Vec::len);
    (0..count).map(|at| line(&runs.iter().map(|run| &run[at]).collect::<Vec<_>>())).collect()
}

fn line(runs: &[&Played]) -> Line {
    let count = runs.len() as f64;
    let mean = |of: &dyn Fn(&Score) -> f64| runs.iter().map(|run| of(&run.2)).sum::<f64>() / count;
    let per_dialogue = |score: &Score| score.reward / score.dialogues as f64;
    let reward = mean(&per_dialogue);
    let squares = count * mean(&|score| (per_dialogue(score) - reward).powi(2));
    let all = runs.iter().flat_map(|run| run.2.rewards.iter().copied());
    let [reward_low, reward_high] = interval(all).unwrap_or([reward; 2]);
    let (policy, [budget_s, budget_usd], _) = runs[0];
    Line {
        policy: policy.clone(),
        budget_s: *budget_s,
        budget_usd: *budget_usd,
        reward,
        reward_sd: (runs.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
        reward_low,
        reward_high,
        latency_s: mean(&|score| score.latency_s / score.dialogues as f64),
        usage_usd: mean(&|score| score.usage_usd / score.dialogues as f64),
        over_ratio: mean(&|score| score.over as f64 / score.dialogues as f64),
        refused_ratio: mean(&|score| score.refused as f64 / score.turns as f64),
        overshoot_ratio: mean(&|score| score.overshoot / score.dialogues as f64),
        actions: std::array::from_fn(|action| mean(&|score| score.actions[action] as f64 / score.turns as f64)),
    }
}

pub fn text(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<34} {:>14} {:>16} {:>15} {:>9} {:>8} {:>7} {:>8}\n",
        "policy", "budget", "reward", "95 %", "latency s", "USD", "over", "refused"
    );
    for line in lines {
        text += &format!(
            "{:<34} {:>4} s / {:<7} {:>7.3} +- {:<6} {:>6.3} .. {:<6.3} {:>8.2} {:>9.4} {:>5.1} % {:>6.1} %\n",
            line.policy,
            line.budget_s,
            line.budget_usd,
            line.reward,
            sd_text(line.reward_sd),
            line.reward_low,
            line.reward_high,
            line.latency_s,
            line.usage_usd,
            100.0 * line.over_ratio,
            100.0 * line.refused_ratio
        );
    }
    text
}

/// Three digits, or a dash where one split says nothing.
pub fn sd_text(sd: Option<f64>) -> String {
    sd.map_or("-".to_owned(), |sd| format!("{sd:.3}"))
}

/// JSON, one line after the other.
pub fn json(lines: &[Line]) -> serde_json::Result<String> {
    lines.iter().map(|line| serde_json::to_string(line).map(|line| line + "\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::made_up;
    use crate::tmo::learned::{Algorithm, Handling};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_bounds_are_in_order_and_masks_hold() {
        let (mut data, splits) = made_up();
        // Short dialogues keep the exhaustive search quick.
        data.dialogues.iter_mut().for_each(|dialogue| dialogue.turns.truncate(3));
        let lines = Study::bounds(&data, &splits[..2]).run(&|_| {}).unwrap().lines;
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
            assert!(greedy.reward_low < greedy.reward && greedy.reward < greedy.reward_high);
            assert!((of("random").actions[0] - 0.5).abs() < 0.12 && of("local").actions[0] == 1.0);
            assert!((greedy.actions.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert_eq!(greedy.over_ratio > 0.0, greedy.overshoot_ratio > 0.0);
        }
    }

    #[test]
    fn learners_stand_in_the_table_and_all_steps_are_reported() {
        let (data, splits) = made_up();
        let plans = Algorithm::ALL.map(|algorithm| Plan { steps: 256, ..Plan::new(algorithm, Handling::Journal, 0) });
        let study = Study {
            data: &data,
            splits: &splits[..2],
            budgets: &BUDGETS[..1],
            baselines: false,
            optima: false,
            plans: &plans,
            tether: &[],
        };
        let steps = AtomicUsize::new(0);
        let count = |more| {
            steps.fetch_add(more, Ordering::Relaxed);
        };
        let findings = study.run(&count).unwrap();
        let names: Vec<&str> = findings.lines.iter().map(|line| line.policy.as_str()).collect();
        assert_eq!(names[..3], ["RC-A2C (journal)", "RC-PPO (journal)", "RC-DQN (journal)"]);
        assert_eq!((names.len(), findings.curves.len()), (5, 6));
        // A rollout is finished beyond the last step.
        assert!(steps.into_inner() >= study.steps());
        assert!(text(&findings.lines).contains("RC-DQN"));
        assert_eq!(json(&findings.lines).unwrap().lines().count(), 5);
    }
}
