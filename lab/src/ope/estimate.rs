//! What another policy would have earned: inverse propensity (Horvitz and Thompson 1952), self-normalised (Hajek;
//! Swaminathan and Joachims 2015) and doubly robust (Dudik, Langford and Li 2011), with intervals by drawing whole
//! dialogues again.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// Enough that the ends of an interval move by less than its third digit.
const DRAWS: usize = 1_000;
/// The reward model of a dialogue never saw it.
const FOLDS: usize = 5;

/// A logged choice, and what the policy in question does with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Turns of one dialogue are not independent.
    pub cluster: usize,
    /// What answers are like: choices of one cell have one mean.
    pub cell: Cell,
    /// Of the logged action, when it was logged.
    pub propensity: f64,
    pub reward: f64,
    /// The probability of the logged action under the policy in question.
    pub target: f64,
    /// All of its actions, with their probabilities.
    pub actions: Vec<(f64, Cell)>,
}

/// The task, and the action's kind: local, or the cloud with so many views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub task: usize,
    pub kind: usize,
}

/// A value and the middle 95 % of its draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimates {
    pub turns: usize,
    /// The mean of the rewards as they were logged.
    pub logged: Estimate,
    pub inverse_propensity: Estimate,
    pub self_normalised: Estimate,
    pub doubly_robust: Estimate,
    /// Turns that the weights are worth: (sum of weights)^2 / sum of squares.
    pub effective_turns: f64,
    pub largest_weight: f64,
}

/// One turn's parts of the sums.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    count: f64,
    logged: f64,
    weighted: f64,
    weight: f64,
    robust: f64,
}

impl Part {
    fn add(&mut self, other: &Part) {
        self.count += other.count;
        self.logged += other.logged;
        self.weighted += other.weighted;
        self.weight += other.weight;
        self.robust += other.robust;
    }

    /// In the order of [`Estimates`].
    fn values(&self) -> [f64; 4] {
        let mean = |sum: f64| sum / self.count.max(1.0);
        let normal = if self.weight > 0.0 { self.weighted / self.weight } else { 0.0 };
        [mean(self.logged), mean(self.weighted), normal, mean(self.robust)]
    }
}

/// `None` without a choice.
pub fn estimate(choices: &[Choice], seed: u64) -> Option<Estimates> {
    let mut clusters: BTreeMap<usize, Part> = BTreeMap::new();
    let models: Vec<Model> =
        (0..FOLDS).map(|fold| Model::fit(choices.iter().filter(|c| c.cluster % FOLDS != fold))).collect();
    let (mut squares, mut largest) = (0.0, 0.0f64);
    for choice in choices {
        let model = &models[choice.cluster % FOLDS];
        let weight = choice.target / choice.propensity;
        let expected: f64 = choice.actions.iter().map(|(share, cell)| share * model.mean(cell)).sum();
        squares += weight * weight;
        largest = largest.max(weight);
        clusters.entry(choice.cluster).or_default().add(&Part {
            count: 1.0,
            logged: choice.reward,
            weighted: weight * choice.reward,
            weight,
            robust: expected + weight * (choice.reward - model.mean(&choice.cell)),
        });
    }
    let parts: Vec<Part> = clusters.into_values().collect();
    if parts.is_empty() {
        return None;
    }
    let sum = |parts: &mut dyn Iterator<Item = &Part>| {
        parts.fold(Part::default(), |mut all, part| {
            all.add(part);
            all
        })
    };
    let whole = sum(&mut parts.iter());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let draws: Vec<[f64; 4]> = (0..DRAWS)
        .map(|_| sum(&mut (0..parts.len()).map(|_| &parts[random.random_range(0..parts.len())])).values())
        .collect();
    let of = |at: usize| {
        let mut drawn: Vec<f64> = draws.iter().map(|values| values[at]).collect();
        drawn.sort_by(f64::total_cmp);
        Estimate { value: whole.values()[at], low: drawn[DRAWS / 40], high: drawn[DRAWS - 1 - DRAWS / 40] }
    };
    Some(Estimates {
        turns: choices.len(),
        logged: of(0),
        inverse_propensity: of(1),
        self_normalised: of(2),
        doubly_robust: of(3),
        effective_turns: if squares > 0.0 { whole.weight * whole.weight / squares } else { 0.0 },
        largest_weight: largest,
    })
}

/// Mean rewards: of a cell, drawn towards its kind's, and that towards the mean of all, as if each had [`PRIOR`] turns of
/// the coarser mean. It need not be right: where it is not, the weights put it right.
#[derive(Debug, Default)]
struct Model {
    all: Mean,
    kinds: BTreeMap<usize, Mean>,
    cells: BTreeMap<Cell, Mean>,
}

const PRIOR: f64 = 4.0;

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn towards(&self, coarser: f64) -> f64 {
        (self.sum + PRIOR * coarser) / (self.count + PRIOR)
    }
}

impl Model {
    fn fit<'c>(choices: impl Iterator<Item = &'c Choice>) -> Model {
        let mut model = Model::default();
        for choice in choices {
            model.all.add(choice.reward);
            model.kinds.entry(choice.cell.kind).or_default().add(choice.reward);
            model.cells.entry(choice.cell).or_default().add(choice.reward);
        }
        model
    }

    fn mean(&self, cell: &Cell) -> f64 {
        let all = self.all.sum / self.all.count.max(1.0);
        let kind = self.kinds.get(&cell.kind).copied().unwrap_or_default().towards(all);
        self.cells.get(cell).copied().unwrap_or_default().towards(kind)
    }
}
