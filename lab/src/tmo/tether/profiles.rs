//! Profiles that a network never saw, against networks trained for each of them alone.

use super::honest::{halves, model, policy, recipe, train};
use super::progress;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tether_policies::tmo::data::{Dataset, Dialogue};
use tether_policies::tmo::honest::moment::actions;
use tether_policies::tmo::honest::play::{Scoring, play};
use tether_policies::tmo::honest::scenario::{Combination, Scenario, budget, combinations, costs};
use tether_policies::tmo::paper::Weights;
use tether_policies::tmo::tether::TetherPolicy;
use tether_policies::tmo::tether::train::recipe::Recipe;

/// The combinations are dealt to this many folds; a network is trained on all folds but one.
const FOLDS: usize = 4;
/// Budgets drawn for each dialogue and profile.
const BUDGETS: usize = 4;

/// A network of one profile alone takes half of the steps, all of them of its profile. What more steps would give it was not
/// measured.
fn own_recipe(seed: u64) -> Recipe {
    Recipe { imitation: recipe(seed).imitation / 2, ..recipe(seed) }
}

fn fold((device, network): Combination) -> usize {
    (device + network) % FOLDS
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub combination: Combination,
    /// Mean reward of the network that never saw this profile, and of the one that saw nothing else, over dialogues that
    /// can be served.
    pub general: f64,
    pub own: f64,
    pub played: usize,
    pub unservable: usize,
    pub over: usize,
}

/// Both trained on one half of the dialogues and judged on the other, with the other's response model.
pub fn lines(data: &Dataset, seed: u64) -> anyhow::Result<Vec<Line>> {
    let [training, test] = halves(data, seed);
    let bar = progress(FOLDS + combinations().len(), "networks");
    let general = |left_out: usize| {
        let seen = combinations().into_iter().filter(|&combination| fold(combination) != left_out).collect();
        let scenario = Scenario { combinations: seen, measured: 0.0, uplinks_mbps: Vec::new() };
        let policy = policy(train(data, &training, scenario, recipe(seed), &mut |_| {})?);
        bar.inc(1);
        policy
    };
    let general = (0..FOLDS).into_par_iter().map(general).collect::<anyhow::Result<Vec<_>>>()?;
    let one = |&combination: &Combination| {
        let own = policy(train(data, &training, Scenario::only(combination), own_recipe(seed), &mut |_| {})?)?;
        let line = judge(data, &test, combination, &general[fold(combination)], &own);
        bar.inc(1);
        line
    };
    let lines = combinations().par_iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    bar.finish_and_clear();
    Ok(lines)
}

fn judge(
    data: &Dataset,
    test: &[&Dialogue],
    combination: Combination,
    general: &TetherPolicy,
    own: &TetherPolicy,
) -> anyhow::Result<Line> {
    let (costs, actions, weights) = (costs(combination), actions(data.view_count)?, Weights::default());
    let hidden = model(test, data.tasks.len());
    let scoring = Scoring { model: &hidden, costs: &costs, actions: &actions, weights: &weights };
    let mut random = ChaCha8Rng::seed_from_u64((combination.0 * 100 + combination.1) as u64);
    let mut line = Line { combination, general: 0.0, own: 0.0, played: 0, unservable: 0, over: 0 };
    for dialogue in test {
        for _ in 0..BUDGETS {
            let budget = budget(&costs, data.view_count, dialogue.turns.len(), &mut random);
            let [general, own] = [general, own].map(|policy| {
                play(dialogue, &budget, &scoring, &mut |now| {
                    let mut scores = vec![0.0; now.moment.facts.len()];
                    policy.choose(&now.scene, &now.moment.facts, 0, &mut scores).ok().map(|choice| choice.index)
                })
            });
            line.played += 1;
            line.over += usize::from(general.over);
            if !general.servable {
                line.unservable += 1;
                continue;
            }
            line.general += general.reward;
            line.own += own.reward;
        }
    }
    let servable = (line.played - line.unservable).max(1) as f64;
    Ok(Line { general: line.general / servable, own: line.own / servable, ..line })
}
