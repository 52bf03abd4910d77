//! A Bayesian head: a Gaussian over the weights of a linear or a logistic regression, one rank-one update per label
//! (an extended Kalman filter). Constant time and memory: `dim^2` multiplications and numbers.

use serde::{Deserialize, Serialize};

/// What the linear score means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    /// The log-odds of a label in 0..1.
    Logistic,
    /// A number itself, observed with this variance.
    Linear { noise: f32 },
}

/// Mean and variance of the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) mean: f32,
    pub(super) variance: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    link: Link,
    /// dim
    mean: Vec<f32>,
    /// dim x dim, row by row, symmetric
    covariance: Vec<f32>,
}

/// The curvature of the logistic loss where it is nearly flat: below this a surprising label could not teach.
const MIN_CURVATURE: f32 = 0.02;

impl Head {
    /// `dim` includes the bias, which is the last weight and has a prior of its own.
    pub(super) fn new(link: Link, dim: usize, variance: f32, bias: f32, bias_variance: f32) -> Self {
        let mut covariance = vec![0.0; dim * dim];
        (0..dim).for_each(|i| covariance[i * dim + i] = variance);
        covariance[dim * dim - 1] = bias_variance;
        let mut mean = vec![0.0; dim];
        mean[dim - 1] = bias;
        Self { link, mean, covariance }
    }

    pub(super) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of the score; `x` has `dim` numbers, the last of them 1.
    pub(super) fn mean(&self, x: &[f32]) -> f32 {
        dot(&self.mean, x)
    }

    pub(super) fn score(&self, x: &[f32]) -> Score {
        // The matrix is symmetric: the part left of the diagonal counts twice, the part right of it is not read.
        let rows = self.covariance.chunks_exact(self.dim()).enumerate();
        let row = |(i, row): (usize, &[f32])| x[i] * (2.0 * dot(&row[..i], &x[..i]) + row[i] * x[i]);
        let variance: f32 = rows.map(row).sum();
        Score { mean: self.mean(x), variance: variance.max(0.0) }
    }

    /// Learns that `x` gave `target`, as if it had been seen `weight` times.
    pub(super) fn update(&mut self, x: &[f32], target: f32, weight: f32) {
        let gain: Vec<f32> = self.covariance.chunks_exact(self.dim()).map(|row| dot(row, x)).collect();
        let variance = dot(&gain, x).max(0.0);
        let (error, curvature) = self.error(x, target);
        let shrink = weight * curvature / (1.0 + weight * curvature * variance);
        let step = weight * error / (1.0 + weight * curvature * variance);
        self.mean.iter_mut().zip(&gain).for_each(|(mean, gain)| *mean += step * gain);
        for (row, gain_i) in self.covariance.chunks_exact_mut(gain.len()).zip(&gain) {
            let scaled = shrink * gain_i;
            row.iter_mut().zip(&gain).for_each(|(value, gain_j)| *value -= scaled * gain_j);
        }
    }

    fn error(&self, x: &[f32], target: f32) -> (f32, f32) {
        let score = self.mean(x);
        match self.link {
            Link::Logistic => {
                let p = sigmoid(score);
                (target - p, (p * (1.0 - p)).max(MIN_CURVATURE))
            }
            Link::Linear { noise } => ((target - score) / noise, 1.0 / noise),
        }
    }

    /// Makes room for change: adds to the variances, so that the next labels weigh more.
    pub(super) fn loosen(&mut self, variance: f32, bias_variance: f32) {
        let dim = self.dim();
        (0..dim).for_each(|i| self.covariance[i * dim + i] += variance);
        self.covariance[dim * dim - 1] += bias_variance;
    }

    /// Starts from another head's mean, with this head's own uncertainty; `lift` is added to the bias.
    pub(super) fn inherit(&mut self, from: &Head, lift: f32) {
        self.mean.copy_from_slice(&from.mean);
        let last = self.dim() - 1;
        self.mean[last] += lift;
    }

    /// Whether the numbers can be those of a head of this dimension.
    pub(super) fn is_sound(&self, dim: usize) -> bool {
        let shaped = self.mean.len() == dim && self.covariance.len() == dim * dim;
        shaped
            && self.mean.iter().chain(&self.covariance).all(|value| value.is_finite())
            && (0..dim).all(|i| self.covariance[i * dim + i] >= -1e-3)
    }
}

pub(super) fn sigmoid(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

impl Score {
    /// The probability that a logistic score means, averaged over its uncertainty (MacKay's approximation).
    pub(super) fn probability(self) -> f64 {
        f64::from(sigmoid(self.mean / (1.0 + std::f32::consts::PI / 8.0 * self.variance).sqrt()))
    }

    /// The same with `deviations` standard deviations of hope added.
    pub(super) fn optimistic(self, deviations: f32) -> f64 {
        let centre = self.mean / (1.0 + std::f32::consts::PI / 8.0 * self.variance).sqrt();
        f64::from(sigmoid(centre + deviations * self.variance.sqrt()))
    }
}

/// Eight running sums, so that the compiler may use vector instructions without reordering a float sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (chunks_a, chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; 8];
    for (x, y) in chunks_a.zip(chunks_b) {
        (0..8).for_each(|lane| sums[lane] += x[lane] * y[lane]);
    }
    rest + sums.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn learns_a_logistic_rule_and_grows_sure() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut head = Head::new(Link::Logistic, 3, 4.0, 0.0, 4.0);
        let before = head.score(&[1.0, 0.0, 1.0]).variance;
        for _ in 0..2_000 {
            let x = [rng.random_range(-1.0..1.0f32), rng.random_range(-1.0..1.0f32), 1.0];
            let label = rng.random_bool(f64::from(sigmoid(2.0 * x[0] - 1.0 * x[1] + 0.5)));
            head.update(&x, f32::from(u8::from(label)), 1.0);
        }
        for (learned, truth) in head.mean.iter().zip([2.0, -1.0, 0.5]) {
            assert!((learned - truth).abs() < 0.35, "{:?}", head.mean);
        }
        assert!(head.score(&[1.0, 0.0, 1.0]).variance < before / 20.0);
    }

    #[test]
    fn a_linear_head_is_ridge_regression() {
        // One weight and no bias to speak of: the posterior mean is sum(xy) / (sum(x^2) + noise / prior variance).
        let mut head = Head::new(Link::Linear { noise: 0.5 }, 2, 2.0, 0.0, 1e-9);
        for (x, y) in [(1.0, 2.0), (2.0, 3.0), (-1.0, -1.5)] {
            head.update(&[x, 0.0], y, 1.0);
        }
        let expected = (2.0 + 6.0 + 1.5) / (6.0 + 0.25);
        assert!((head.mean[0] - expected).abs() < 1e-4, "{} {expected}", head.mean[0]);
    }

    proptest! {
        #[test]
        fn stays_sound_whatever_it_is_taught(
            labels in prop::collection::vec((prop::collection::vec(-3.0f32..3.0, 4), 0.0f32..=1.0, 0.1f32..4.0), 1..300),
        ) {
            let mut head = Head::new(Link::Logistic, 5, 2.0, 1.0, 1.0);
            for (x, label, weight) in &labels {
                let x: Vec<f32> = x.iter().copied().chain([1.0]).collect();
                head.update(&x, *label, *weight);
                let score = head.score(&x);
                prop_assert!(score.mean.is_finite() && score.variance >= 0.0);
                prop_assert!((0.0..=1.0).contains(&score.probability()));
            }
            prop_assert!(head.is_sound(5));
        }
    }
}
