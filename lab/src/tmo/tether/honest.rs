//! The honest environment, cross-fitted: what scores a policy never saw what trained it.
//!
//! The dialogues are halved at random; each half has its own response model. Policies are trained on one half (its
//! dialogues, its model) and judged on the other (its dialogues, its model); then the halves change places. Several
//! halvings are averaged, and intervals are bootstrapped over dialogues.

use super::a2c::A2c;
use super::bootstrap::interval;
use super::rivals::{Reader, Rival};
use super::{HIDDEN, progress};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::BTreeMap;
use tether_policies::text::TaskClassifier;
use tether_policies::tmo::data::{Dataset, Dialogue, Turn};
use tether_policies::tmo::honest::moment::actions;
use tether_policies::tmo::honest::play::{Scoring, play};
use tether_policies::tmo::honest::response::ResponseModel;
use tether_policies::tmo::honest::scenario::{Combination, Scenario, budget, combinations, costs};
use tether_policies::tmo::paper::Weights;
use tether_policies::tmo::tether::train::honest_stage::HonestStage;
use tether_policies::tmo::tether::train::recipe::{Recipe, Trainer};
use tether_policies::tmo::tether::{Config, TetherPolicy, WhenNothingFits};

/// Jetson TX2, wired: the published default.
pub const DEFAULT: Combination = (3, 0);
/// Halvings, and budgets drawn for each dialogue.
const HALVINGS: u64 = 5;
const BUDGETS: usize = 4;
/// Share of training dialogues over a measured link.
const MEASURED: f64 = 0.25;

/// Of the network for every profile: the one that is committed.
pub fn recipe(seed: u64) -> Recipe {
    Recipe { imitation: 1_500, rollouts: 6, ..Recipe::new(seed) }
}

/// Every published profile, and measured links of these rates.
pub fn everything(uplinks_mbps: Vec<f64>) -> Scenario {
    Scenario { combinations: combinations(), measured: MEASURED, uplinks_mbps }
}

pub fn model(dialogues: &[&Dialogue], tasks: usize) -> ResponseModel {
    ResponseModel::fit(&dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect::<Vec<&Turn>>(), tasks)
}

/// A network from some dialogues.
pub fn train(
    data: &Dataset,
    training: &[&Dialogue],
    scenario: Scenario,
    recipe: Recipe,
    step: &mut dyn FnMut(usize),
) -> anyhow::Result<(Config, Vec<u8>)> {
    let model = model(training, data.tasks.len());
    let mut stage = HonestStage::new(training, &model, scenario, true)?;
    let mut tasks = data.tasks.clone();
    tasks.truncate(tether_policies::tmo::tether::scene::KNOWN_TASKS);
    let config = Config { responses: Some(model.clone()), ..Config::new("tether-tmo-1", tasks, 0, HIDDEN) };
    let weights = Trainer::new(config.clone(), recipe).run(&mut stage, &mut |progress| step(progress.step))?;
    Ok((config, weights))
}

pub fn policy((config, weights): (Config, Vec<u8>)) -> anyhow::Result<TetherPolicy> {
    Ok(TetherPolicy::new(config, &weights)?.with(0.0, WhenNothingFits::Refuse))
}

/// Two halves of the dialogues, by a seed.
pub fn halves(data: &Dataset, seed: u64) -> [Vec<&Dialogue>; 2] {
    let mut order: Vec<&Dialogue> = data.dialogues.iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let second = order.split_off(order.len() / 2);
    [order, second]
}

/// In the order of `Outcome::rewards`.
pub const NAMES: [&str; 8] = [
    "tether",
    "A2C, masked",
    "task table, masked",
    "greedy on the training model, masked",
    "optimum",
    "A2C",
    "tether as in the daemon",
    "documented rule, masked",
];

/// One dialogue's mean rewards per turn, by policy, summed over its servable budgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    pub rewards: [f64; NAMES.len()],
    /// The answers' own score in it.
    pub responses: [f64; NAMES.len()],
    pub count: usize,
}

#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub by_dialogue: BTreeMap<u64, Sums>,
    /// Dialogues under a budget, those that no sequence of actions serves among them, and those of the tether policy (of
    /// both its forms) that were over one.
    pub played: usize,
    pub unservable: usize,
    pub over: usize,
    /// Servable dialogues that A2C without a mask took over a budget.
    pub unmasked_over: usize,
    /// Refused turns of servable dialogues: none, if the mask is right.
    pub refused: usize,
}

impl Outcome {
    fn add(&mut self, other: &Outcome) {
        for (id, sums) in &other.by_dialogue {
            let mine = self.by_dialogue.entry(*id).or_default();
            mine.rewards.iter_mut().zip(sums.rewards).for_each(|(mine, other)| *mine += other);
            mine.responses.iter_mut().zip(sums.responses).for_each(|(mine, other)| *mine += other);
            mine.count += sums.count;
        }
        self.played += other.played;
        self.unservable += other.unservable;
        self.over += other.over;
        self.unmasked_over += other.unmasked_over;
        self.refused += other.refused;
    }

    fn rewards(&self, places: Option<&[usize]>) -> [f64; NAMES.len()] {
        let all: Vec<&Sums> = self.by_dialogue.values().filter(|sums| sums.count > 0).collect();
        let mut mean = [0.0; NAMES.len()];
        let chosen: Vec<&Sums> = match places {
            Some(places) => places.iter().map(|&place| all[place]).collect(),
            None => all,
        };
        for sums in &chosen {
            mean.iter_mut().zip(sums.rewards).for_each(|(mean, reward)| *mean += reward / sums.count as f64);
        }
        mean.map(|sum| sum / chosen.len().max(1) as f64)
    }

    /// The mean of each policy's answers over dialogues: what is left without association and costs.
    pub fn responses(&self) -> [f64; NAMES.len()] {
        let all: Vec<&Sums> = self.by_dialogue.values().filter(|sums| sums.count > 0).collect();
        let mean = |place: usize| all.iter().map(|sums| sums.responses[place] / sums.count as f64).sum::<f64>();
        std::array::from_fn(|place| mean(place) / all.len().max(1) as f64)
    }

    /// The mean of each policy over dialogues.
    pub fn means(&self) -> [f64; NAMES.len()] {
        self.rewards(None)
    }

    /// A number from the policies' means, with its interval over dialogues.
    pub fn statistic(&self, of: impl Fn(&[f64; NAMES.len()]) -> f64) -> (f64, [f64; 2]) {
        let count = self.by_dialogue.values().filter(|sums| sums.count > 0).count();
        (of(&self.means()), interval(count, 1, |places| of(&self.rewards(Some(places)))))
    }
}

/// The tether policy for every profile against its rivals on the default one, under random budgets.
pub fn cross_fitted(data: &Dataset, seed: u64, uplinks_mbps: &[f64]) -> anyhow::Result<Outcome> {
    let bar = progress(HALVINGS as usize * 2, "halves");
    let classifier = Reader::classifier()?;
    let jobs: Vec<(u64, usize)> = (0..HALVINGS).flat_map(|halving| [(halving, 0), (halving, 1)]).collect();
    let one = |&(halving, side): &(u64, usize)| -> anyhow::Result<Outcome> {
        let halves = halves(data, seed * 1_000 + halving);
        let outcome =
            one_side(data, &classifier, &halves[side], &halves[1 - side], seed * 1_000 + halving, uplinks_mbps);
        bar.inc(1);
        outcome
    };
    let outcomes = jobs.par_iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let mut sum = Outcome::default();
    outcomes.iter().for_each(|outcome| sum.add(outcome));
    Ok(sum)
}

fn one_side<'a>(
    data: &'a Dataset,
    classifier: &'a TaskClassifier,
    training: &[&Dialogue],
    test: &[&'a Dialogue],
    seed: u64,
    uplinks_mbps: &[f64],
) -> anyhow::Result<Outcome> {
    let tasks = data.tasks.len();
    let (costs, actions, weights) = (costs(DEFAULT), actions(data.view_count)?, Weights::default());
    let (known, hidden) = (model(training, tasks), model(test, tasks));
    let scoring = |model| Scoring { model, costs: &costs, actions: &actions, weights: &weights };
    let tether = policy(train(data, training, everything(uplinks_mbps.to_vec()), recipe(seed), &mut |_| {})?)?;
    let a2c = A2c::train(training, scoring(&known), seed);
    let reader = Reader::new(data, classifier, training, test)?;
    let rivals = [
        Rival::Tether(&tether),
        Rival::A2c(&a2c),
        Rival::table(training, &scoring(&known), tasks),
        Rival::Greedy(scoring(&known)),
        Rival::Optimum,
        Rival::Unmasked(&a2c),
        Rival::Deployed(&tether, &reader),
        Rival::Rule(&reader),
    ];
    let mut outcome = Outcome::default();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for dialogue in test {
        for _ in 0..BUDGETS {
            let budget = budget(&costs, data.view_count, dialogue.turns.len(), &mut random);
            let played = rivals.each_ref().map(|rival| {
                play(dialogue, &budget, &scoring(&hidden), &mut |now| rival.choose(now, &scoring(&hidden)))
            });
            outcome.played += 1;
            outcome.over += usize::from(played[0].over) + usize::from(played[6].over);
            if !played[0].servable {
                outcome.unservable += 1;
                continue;
            }
            outcome.unmasked_over += usize::from(played[5].over);
            outcome.refused += played[0].refused + played[6].refused;
            let sums = outcome.by_dialogue.entry(dialogue.id).or_default();
            sums.rewards.iter_mut().zip(played).for_each(|(sum, played)| *sum += played.reward);
            sums.responses.iter_mut().zip(played).for_each(|(sum, played)| *sum += played.response);
            sums.count += 1;
        }
    }
    Ok(outcome)
}
