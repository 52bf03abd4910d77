//! The router's constants. All were fixed on synthetic zoos and on other orders of the data than those that the
//! reports measure; none depends on a data set, a zoo or alpha.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Standard deviations of hope added to a predicted satisfaction before models are compared.
    pub optimism: f32,
    /// Prior variance of a satisfaction weight, and of its bias (log-odds).
    pub weight_variance: f32,
    pub bias_variance: f32,
    /// Prior variance of a weight of the answer's length, and the variance of a length around its mean (log scale).
    pub length_variance: f32,
    pub length_noise: f32,
    /// Ratings within which a deficit is to be made good.
    pub horizon: f64,
    /// A surplus is spent over `horizon x (1 + (room / margin)^2)` ratings, where `margin` is how far the best
    /// measured mean lies above alpha: what cannot be earned back soon is not spent.
    pub room: f64,
    /// The largest surplus that is remembered, in satisfied answers.
    pub bank: f64,
    /// How far towards the highest reachable satisfaction a deficit may push the target, from this share at no
    /// deficit to all the way at `peek`.
    pub push: f64,
    /// Above this queue the guard answers, until the queue is half of it.
    pub q_max: f64,
    /// The deficit at which the next model of the ladder is asked once, to learn its price.
    pub peek: f64,
    /// The ladder is climbed at a deficit of `patience x ln(price ratio)`, kept between `peek` and `q_max`.
    pub patience: f64,
    /// Requests with which a model that was just climbed to is tried, whatever is predicted.
    pub trials: u64,
    /// Recent requests over which the shadow price is solved.
    pub recent: usize,
    /// Requests of a tenant between two solutions.
    pub price_every: u64,
    /// Probability of asking one extra, much cheaper model where its answer could change such a decision.
    pub extra: f64,
    /// "Much cheaper": at most this share of the chosen model's predicted cost.
    pub extra_cost: f64,
    /// The largest weight that a label's propensity may give it.
    pub max_weight: f32,
    /// A model has changed when its labels fall this far behind their predictions, in satisfied answers (CUSUM with
    /// an allowance of 0.1 a label).
    pub change: f64,
    /// The predictor is set aside for the static mix while its log loss is this far behind that of constant means.
    pub floor: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            optimism: 0.5,
            weight_variance: 1.0,
            bias_variance: 1.0,
            length_variance: 2.0,
            length_noise: 0.6,
            horizon: 100.0,
            room: 0.03,
            bank: 12.0,
            push: 0.5,
            q_max: 40.0,
            peek: 12.0,
            patience: 8.0,
            trials: 60,
            recent: 256,
            price_every: 8,
            extra: 0.02,
            extra_cost: 0.1,
            max_weight: 3.0,
            change: 8.0,
            floor: 8.0,
        }
    }
}
