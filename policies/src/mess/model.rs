//! One model of the zoo: what it is, and what was learned about its satisfaction and its cost.

use super::features::RequestFeatures;
use super::head::{Head, Link, Score};
use super::params::Params;
use serde::{Deserialize, Serialize};

/// A list price, US dollars (or joules, or seconds) per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenPrice {
    pub input_per_token: f64,
    pub output_per_token: f64,
}

/// A model as the operator names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    pub name: String,
    /// With a price, cost is computed from prompt tokens and a learned answer length; without, it is learned whole.
    pub price: Option<TokenPrice>,
}

/// Sums that measure a mean.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: f64,
    pub(super) sum: f64,
}

impl Tally {
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Model {
    /// Never used twice in one router, so that late news of a removed model finds nobody.
    pub(super) id: u32,
    pub(super) spec: ModelSpec,
    satisfaction: Head,
    length: Head,
    /// The first length or cost seen; lengths are learned relative to it, on a log scale.
    unit: Option<f64>,
    /// What lengths were, over what they were predicted to be: corrects the mean of a log scale.
    actual: f64,
    predicted: f64,
    pub(super) labels: Tally,
    pub(super) costs: Tally,
    pub(super) calls: u64,
    /// Cumulative sums of predictions minus labels, and the reverse.
    worse: f64,
    better: f64,
    /// How much better the head's log loss was than that of the constant mean, forgetting.
    skill: f64,
}

/// Lengths further than e^3 = 20 times from the first one seen are not believed.
const MAX_LOG_LENGTH: f32 = 3.0;
/// Per label; the skill of a few hundred labels back does not count any more.
const SKILL_MEMORY: f64 = 0.995;
/// Allowance of the change detector: predictions may be wrong by this much on the average.
const CHANGE_ALLOWANCE: f64 = 0.1;

impl Model {
    pub(super) fn new(id: u32, spec: ModelSpec, rung: usize, width: usize, params: &Params) -> Self {
        let dim = width + 1;
        // Weak knowledge: 73 % satisfied, more on a higher rung. A few labels outweigh it.
        let bias = 1.0 + 0.4 * rung as f32;
        Self {
            id,
            spec,
            satisfaction: Head::new(Link::Logistic, dim, params.weight_variance, bias, params.bias_variance),
            length: Head::new(Link::Linear { noise: params.length_noise }, dim, params.length_variance, 0.0, 25.0),
            unit: None,
            actual: 1.0,
            predicted: 1.0,
            labels: Tally::default(),
            costs: Tally::default(),
            calls: 0,
            worse: 0.0,
            better: 0.0,
            skill: 0.0,
        }
    }

    /// `x` is the request's features and a final 1.
    pub(super) fn score(&self, x: &[f32]) -> Score {
        self.satisfaction.score(x)
    }

    /// The expected cost; `None` while nothing is known about it.
    pub(super) fn cost(&self, x: &[f32], prompt_tokens: u32) -> Option<f64> {
        let length = self.raw_length(x)? * self.actual / self.predicted;
        Some(match self.spec.price {
            Some(price) => price.input_per_token * f64::from(prompt_tokens) + price.output_per_token * length,
            None => length,
        })
    }

    fn raw_length(&self, x: &[f32]) -> Option<f64> {
        let log = self.length.mean(x).clamp(-MAX_LOG_LENGTH, MAX_LOG_LENGTH);
        self.unit.map(|unit| unit * f64::from(log).exp())
    }

    /// Learns what one answer cost. `length` is in tokens where the price is known, else in the unit of cost.
    pub(super) fn learn_cost(&mut self, x: &[f32], cost: f64, length: f64) {
        self.costs.add(cost);
        if length <= 0.0 {
            return;
        }
        let unit = *self.unit.get_or_insert(length);
        if let Some(predicted) = self.raw_length(x)
            && self.costs.count > 16.0
        {
            self.actual = 0.99 * self.actual + 0.01 * length / unit;
            self.predicted = 0.99 * self.predicted + 0.01 * predicted / unit;
        }
        let log = ((length / unit).ln() as f32).clamp(-2.0 * MAX_LOG_LENGTH, 2.0 * MAX_LOG_LENGTH);
        self.length.update(x, log, 1.0);
    }

    /// Learns one label in 0..1. True if the model seems to have changed, in which case its past weighs less now.
    pub(super) fn learn_label(&mut self, x: &[f32], label: f64, weight: f32, params: &Params) -> bool {
        let expected = self.score(x).probability();
        let constant = ((self.labels.sum + 1.0) / (self.labels.count + 2.0)).clamp(0.01, 0.99);
        self.skill = SKILL_MEMORY * self.skill + log_loss(constant, label) - log_loss(expected, label);
        self.labels.add(label);
        self.satisfaction.update(x, label as f32, weight);
        self.worse = (self.worse + expected - label - CHANGE_ALLOWANCE).max(0.0);
        self.better = (self.better + label - expected - CHANGE_ALLOWANCE).max(0.0);
        let changed = self.worse.max(self.better) > params.change;
        if changed {
            self.satisfaction.loosen(params.weight_variance * 0.1, params.bias_variance);
            (self.worse, self.better) = (0.0, 0.0);
            // A twentieth of the past: the mean follows the new behaviour within a few dozen labels.
            let keep = (20.0 / self.labels.count).min(1.0);
            self.labels = Tally { count: self.labels.count * keep, sum: self.labels.sum * keep };
        }
        changed
    }

    pub(super) fn skill(&self) -> f64 {
        self.skill
    }

    /// A stronger model satisfies where a weaker one does, and a little more: its head starts from the weaker's.
    pub(super) fn inherit(&mut self, weaker: &Model) {
        if self.labels.count < 10.0 {
            self.satisfaction.inherit(&weaker.satisfaction, 0.4);
        }
    }

    /// The price changed: costs follow at once, lengths stay learned.
    pub(super) fn reprice(&mut self, price: Option<TokenPrice>, factor: f64) {
        match (self.spec.price, price) {
            (Some(_), Some(_)) | (None, None) => {}
            // What was learned was the other quantity.
            _ => self.unit = None,
        }
        if price.is_none() {
            self.unit = self.unit.map(|unit| unit * factor);
        }
        self.spec.price = price;
        self.costs.sum *= factor;
    }

    pub(super) fn is_sound(&self, width: usize) -> bool {
        let numbers = [self.actual, self.predicted, self.worse, self.better, self.skill];
        let tallies = [self.labels.count, self.labels.sum, self.costs.count, self.costs.sum];
        let finite = numbers.iter().chain(&tallies).all(|number| number.is_finite());
        let unit = self.unit.is_none_or(|unit| unit.is_finite() && unit > 0.0);
        finite && unit && self.satisfaction.is_sound(width + 1) && self.length.is_sound(width + 1)
    }
}

/// The features of a request with the heads' constant input behind them.
pub(super) fn with_bias(features: &RequestFeatures) -> Vec<f32> {
    features.values.iter().copied().chain([1.0]).collect()
}

fn log_loss(p: f64, label: f64) -> f64 {
    let p = p.clamp(0.01, 0.99);
    -(label * p.ln() + (1.0 - label) * (1.0 - p).ln())
}
