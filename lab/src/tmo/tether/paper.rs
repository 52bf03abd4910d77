//! Paper mode: one network a split for all budgets, taught by the plan over the split's training dialogues, judged as the
//! reference judges (the split's own estimator, the true number of turns).

use super::{HIDDEN, progress};
use crate::tmo::data::{Split, environment, named};
use crate::tmo::run::{Budget, Contender, Now, play};
use crate::tmo::table::BUDGETS;
use anyhow::Context;
use rayon::prelude::*;
use tether_policies::tmo::data::Dataset;
use tether_policies::tmo::paper::{ACTIONS, HISTORY, OBSERVATION, VIEWS};
use tether_policies::tmo::tether::train::paper_stage::{PaperStage, config, facts, scene};
use tether_policies::tmo::tether::train::plan::Plan;
use tether_policies::tmo::tether::train::recipe::{Recipe, Trainer};
use tether_policies::tmo::tether::{Past, TetherPolicy, WhenNothingFits};
use tether_protocol::ViewSet;

/// Imitation alone: what PPO on the same dialogues would add was not measured.
pub fn recipe(seed: u64) -> Recipe {
    Recipe { imitation: 1_500, rollouts: 0, ..Recipe::new(seed) }
}

/// The tether policy as one of paper mode's contenders.
pub struct Tether(pub TetherPolicy);

impl Contender for Tether {
    fn name(&self) -> String {
        "tether".to_owned()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        let history = pasts(now.observation);
        let facts = facts(now.environment, now.turn);
        let scene = scene(&history, now.turn.task, now.left, now.rest.len());
        self.0.choose(&scene, &facts, 0, &mut [0.0; ACTIONS]).ok().map(|choice| choice.index)
    }
}

/// The earlier turns that an observation tells of: a step holds its task and the action before it.
fn pasts(observation: &[f64; OBSERVATION]) -> Vec<Past> {
    let steps: Vec<&[f64]> = observation.chunks_exact(OBSERVATION / HISTORY).collect();
    let told = steps.windows(2).filter(|pair| pair[0][1 + VIEWS] >= 0.0);
    let past = told.map(|pair| {
        let sent = (0..VIEWS).filter(|&view| pair[1][1 + view] > 0.5);
        Past {
            cloud: pair[1][0] > 0.5,
            views: sent.fold(ViewSet::EMPTY, ViewSet::with),
            task: Some(pair[0][1 + VIEWS] as usize),
        }
    });
    past.collect()
}

/// Trains on one split's training dialogues.
pub fn train(data: &Dataset, split: &Split, seed: u64, step: &(dyn Fn(usize) + Sync)) -> anyhow::Result<Tether> {
    let (environment, training) = (environment(data, split)?, named(data, &split.train)?);
    let plan = Plan::new(&environment, &training, &BUDGETS);
    let config = config(&data.tasks, HIDDEN);
    let mut stage = PaperStage::new(&environment, &plan, &training);
    let weights = Trainer::new(config.clone(), recipe(seed)).run(&mut stage, &mut |progress| step(progress.step))?;
    Ok(Tether(TetherPolicy::new(config, &weights)?.with(0.0, WhenNothingFits::Refuse)))
}

/// One policy for each split, trained on its training dialogues.
pub fn train_all(data: &Dataset, splits: &[Split]) -> anyhow::Result<Vec<Tether>> {
    let bar = progress(recipe(0).steps() * splits.len(), "paper mode");
    let one = |(number, split): (usize, &Split)| {
        let last = std::sync::atomic::AtomicUsize::new(0);
        let step = |now: usize| {
            let before = last.swap(now, std::sync::atomic::Ordering::Relaxed);
            bar.inc(now.saturating_sub(before) as u64);
        };
        train(data, split, number as u64, &step).with_context(|| format!("split {number}"))
    };
    let trained = splits.par_iter().enumerate().map(one).collect();
    bar.finish_and_clear();
    trained
}

/// One budget over all splits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub budget: Budget,
    pub reward: f64,
    pub reward_sd: f64,
    pub dialogues: usize,
    pub over: usize,
    pub refused: usize,
}

/// Trains and judges on every split.
pub fn rows(data: &Dataset, splits: &[Split]) -> anyhow::Result<Vec<Row>> {
    let trained = train_all(data, splits)?;
    let one = |(tether, split): (&Tether, &Split)| -> anyhow::Result<Vec<_>> {
        let (environment, test) = (environment(data, split)?, named(data, &split.test)?);
        Ok(BUDGETS.iter().map(|&budget| play(tether, &environment, &test, budget)).collect())
    };
    let scores = trained.par_iter().zip(splits).map(one).collect::<anyhow::Result<Vec<_>>>()?;
    let row = |at: usize| {
        let of = |split: usize| scores[split][at].reward / scores[split][at].dialogues as f64;
        let count = scores.len() as f64;
        let reward = (0..scores.len()).map(of).sum::<f64>() / count;
        let variance =
            (0..scores.len()).map(|split| (of(split) - reward).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Row {
            budget: BUDGETS[at],
            reward,
            reward_sd: variance.sqrt(),
            dialogues: scores.iter().map(|split| split[at].dialogues).sum(),
            over: scores.iter().map(|split| split[at].over).sum(),
            refused: scores.iter().map(|split| split[at].refused).sum(),
        }
    };
    Ok((0..BUDGETS.len()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_policies::tmo::paper::History;

    #[test]
    fn an_observation_tells_the_earlier_turns() {
        let mut history = History::default();
        assert!(pasts(history.observe(2)).is_empty());
        history.acted(6);
        history.observe(1);
        history.acted(0);
        let pasts = pasts(history.observe(3));
        let expected = [
            Past { cloud: true, views: ViewSet(0b101), task: Some(2) },
            Past { cloud: false, views: ViewSet::EMPTY, task: Some(1) },
        ];
        assert_eq!(pasts, expected);
    }
}
