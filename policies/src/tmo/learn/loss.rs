//! Losses over logits, values and numbers, for any network. One number per step of a batch of B.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

/// Weights of the parts of an actor-critic's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    pub value: f64,
    pub entropy: f64,
}

/// A batch as the present network sees it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// `[B]` log-probabilities of the actions taken.
    pub log_probs: Tensor<1>,
    /// `[B]`
    pub entropies: Tensor<1>,
    /// `[B]` the critic's values.
    pub values: Tensor<1>,
}

/// `logits` [B, A] (masked actions: a large negative number), `values` `[B]`, `actions` [B, 1].
pub fn judge(logits: Tensor<2>, values: Tensor<1>, actions: Tensor<2, Int>) -> Judged {
    let log_probs = log_softmax(logits, 1);
    let entropies = -(log_probs.clone().exp() * log_probs.clone()).sum_dim(1).squeeze_dim(1);
    Judged { log_probs: log_probs.gather(1, actions).squeeze_dim(1), entropies, values }
}

/// Advantage actor-critic: `-mean(A log pi) + value * mean((R - V)^2) - entropy * mean(H)` (Mnih et al. 2016, section
/// 4; SB3, a2c.py). `advantages` and `returns` are `[B]`.
pub fn a2c(judged: Judged, advantages: Tensor<1>, returns: Tensor<1>, parts: Parts) -> Tensor<1> {
    let policy = -(advantages * judged.log_probs).mean();
    policy + critic(judged.values, judged.entropies, returns, parts)
}

/// Clipped surrogate (Schulman et al. 2017, equations 7 and 9; SB3, ppo.py): `-mean(min(rho A, clip(rho, 1 - clip, 1 +
/// clip) A))`, `rho = pi / pi_old`, with the same critic and entropy as [`a2c`]. All tensors are `[B]`.
pub fn ppo(
    judged: Judged,
    old_log_probs: Tensor<1>,
    advantages: Tensor<1>,
    returns: Tensor<1>,
    clip: f64,
    parts: Parts,
) -> Tensor<1> {
    let ratio = (judged.log_probs - old_log_probs).exp();
    let clipped = ratio.clone().clamp(1.0 - clip, 1.0 + clip);
    let policy = -(ratio * advantages.clone()).min_pair(clipped * advantages).mean();
    policy + critic(judged.values, judged.entropies, returns, parts)
}

fn critic(values: Tensor<1>, entropies: Tensor<1>, returns: Tensor<1>, parts: Parts) -> Tensor<1> {
    let value = (returns - values).square().mean() * parts.value;
    if parts.entropy == 0.0 { value } else { value - entropies.mean() * parts.entropy }
}

/// Huber with threshold 1, mean (SB3, dqn.py: smooth_l1_loss): half the square within 1, linear outside. Both `[B]`.
pub fn huber(predicted: Tensor<1>, targets: Tensor<1>) -> Tensor<1> {
    let apart = (predicted - targets).abs();
    // The square of what is within 1, and the rest to the first power: equal to the two cases.
    let within = apart.clone().clamp_max(1.0);
    (within.clone().square() * 0.5 + (apart - within)).mean()
}

/// To mean 0 and standard deviation 1, as torch's unbiased one (SB3, ppo.py); fewer than two stay as they are.
pub fn standardised(values: &[f32]) -> Vec<f32> {
    if values.len() < 2 {
        return values.to_vec();
    }
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / (values.len() - 1) as f32;
    values.iter().map(|value| (value - mean) / (variance.sqrt() + 1e-8)).collect()
}

/// `[B]` numbers.
pub fn numbers(values: impl Into<Vec<f32>>, device: &Device) -> Tensor<1> {
    let values = values.into();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// [B, W] from rows one after the other.
pub fn rows(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let count = values.len() / width;
    Tensor::from_data(TensorData::new(values, [count, width]), device)
}

/// [B, 1] action numbers.
pub fn actions(actions: &[usize], device: &Device) -> Tensor<2, Int> {
    let numbers: Vec<i64> = actions.iter().map(|&action| action as i64).collect();
    Tensor::from_data(TensorData::new(numbers, [actions.len(), 1]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::learn::training_device;

    fn scalar(tensor: Tensor<1>) -> f32 {
        tensor.into_scalar()
    }

    #[test]
    fn judged_by_the_softmax() {
        let device = training_device();
        let logits = rows(vec![0.0, 2f32.ln(), 1.0, 1.0], 2, &device);
        let judged = judge(logits, numbers([5.0, 6.0], &device), actions(&[1, 0], &device));
        let log_probs: Vec<f32> = judged.log_probs.into_data().iter::<f32>().collect();
        assert!((log_probs[0] - (2.0f32 / 3.0).ln()).abs() < 1e-6 && (log_probs[1] - 0.5f32.ln()).abs() < 1e-6);
        let entropies: Vec<f32> = judged.entropies.into_data().iter::<f32>().collect();
        assert!((entropies[1] - 2f32.ln()).abs() < 1e-6, "{entropies:?}");
    }

    /// Masked actions (a large negative logit) have no probability, and their gradient is a number.
    #[test]
    fn a_masked_action_is_out_of_the_way() {
        let device = training_device();
        let logits = rows(vec![0.0, -1e9, 0.0], 3, &device).require_grad();
        let judged = judge(logits.clone(), numbers([0.0], &device), actions(&[0], &device));
        let parts = Parts { value: 0.5, entropy: 0.1 };
        let loss = a2c(judged, numbers([1.0], &device), numbers([1.0], &device), parts);
        let gradient: Vec<f32> =
            logits.grad(&loss.backward()).map(|g| g.into_data().iter::<f32>().collect()).unwrap_or_default();
        assert_eq!(gradient.len(), 3);
        assert!((gradient[0] + 0.5).abs() < 1e-6 && gradient[1] == 0.0 && gradient[2].is_finite(), "{gradient:?}");
    }

    #[test]
    fn the_surrogate_is_clipped_on_the_side_that_gains() {
        let device = training_device();
        let parts = Parts { value: 0.0, entropy: 0.0 };
        let loss = |ratio: f32, advantage: f32| {
            let judged = Judged {
                log_probs: numbers([ratio.ln()], &device),
                entropies: numbers([0.0], &device),
                values: numbers([0.0], &device),
            };
            let number = |value: f32| numbers([value], &device);
            scalar(ppo(judged, number(0.0), number(advantage), number(0.0), 0.2, parts))
        };
        for (ratio, advantage, expected) in
            [(1.5, 2.0, -2.4), (1.1, 2.0, -2.2), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)]
        {
            let loss = loss(ratio, advantage);
            assert!((loss - expected).abs() < 1e-5, "{ratio} {advantage} {loss}");
        }
    }

    #[test]
    fn huber_is_half_the_square_and_then_linear() {
        let device = training_device();
        let loss = scalar(huber(numbers([0.5, 3.0, -3.0], &device), numbers([0.0, 0.0, 0.0], &device)));
        assert!((loss - (0.125 + 2.5 + 2.5) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn standardised_has_mean_0_and_deviation_1() {
        let values = standardised(&[1.0, 2.0, 3.0]);
        assert!(values.iter().zip([-1.0, 0.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
        assert_eq!(standardised(&[4.0]), [4.0]);
    }
}
