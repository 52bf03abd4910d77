//! Primal-dual constraints: one Lagrange multiplier per resource, raised while the resource is overspent and lowered
//! while there is slack.
//!
//! The penalty is part of the reward, so it reaches the policy's gradient through the advantage (Tessler et al. 2018,
//! equation 9): unlike the reference's penalty, which is a constant of the loss.

use serde::{Deserialize, Serialize};

/// How the multipliers move.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MultiplierSettings {
    /// Added to a multiplier, per step, for each unit by which the mean cost of a step exceeds its limit.
    pub rate: f32,
    /// Multipliers stay within 0 and this, so that an impossible limit does not drown the reward.
    pub max: f32,
}

impl Default for MultiplierSettings {
    /// Costs are shares of a budget: at a mean overspending of .1 a multiplier passes 1 (a whole budget against one
    /// unit of reward) after 2,000 steps, about one rollout of PPO. Guessed.
    fn default() -> Self {
        MultiplierSettings { rate: 0.005, max: 100.0 }
    }
}

/// One multiplier for each of `R` resources.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers<const R: usize> {
    pub values: [f32; R],
    /// Permitted mean cost of a step, in the unit of the costs.
    limits: [f32; R],
    settings: MultiplierSettings,
}

impl<const R: usize> Multipliers<R> {
    pub fn new(limits: [f32; R], settings: MultiplierSettings) -> Self {
        Multipliers { values: [0.0; R], limits, settings }
    }

    /// `(r - sum lambda_i c_i) / (1 + sum lambda_i)`: divided so that the size of the advantage, and with it the step
    /// of the optimiser, does not grow with the multipliers (Ray et al. 2019, section 4).
    pub fn penalised(&self, reward: f32, costs: &[f32; R]) -> f32 {
        let penalty: f32 = self.values.iter().zip(costs).map(|(multiplier, cost)| multiplier * cost).sum();
        (reward - penalty) / (1.0 + self.values.iter().sum::<f32>())
    }

    /// Dual ascent over the mean costs of some steps: `lambda_i <- lambda_i + rate * steps * (mean cost_i - limit_i)`,
    /// kept within 0 and the maximum.
    pub fn ascend(&mut self, mean_costs: &[f32; R], steps: usize) {
        let rate = self.settings.rate * steps as f32;
        for ((value, mean), limit) in self.values.iter_mut().zip(mean_costs).zip(self.limits) {
            *value = (*value + rate * (mean - limit)).clamp(0.0, self.settings.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rises_above_the_limit_and_falls_below_it() {
        let mut multipliers = Multipliers::new([0.5], MultiplierSettings::default());
        (0..20).for_each(|_| multipliers.ascend(&[1.5], 20));
        assert!((multipliers.values[0] - 2.0).abs() < 1e-5);
        assert!((multipliers.penalised(1.0, &[1.0]) - (1.0 - 2.0) / 3.0).abs() < 1e-5);
        (0..100).for_each(|_| multipliers.ascend(&[0.0], 20));
        assert_eq!(multipliers.values, [0.0]);
    }

    /// Two actions, the dear one better: the multiplier settles where the mean cost is the limit.
    #[test]
    fn a_softmax_policy_settles_at_the_limit() {
        let mut multipliers = Multipliers::new([0.3], MultiplierSettings { rate: 0.05, max: 10.0 });
        let (mut preference, mut mean) = (0.0f32, 0.0);
        for _ in 0..20_000 {
            let dear = 1.0 / (1.0 + (-preference).exp());
            let gap = multipliers.penalised(1.0, &[1.0]) - multipliers.penalised(0.0, &[0.0]);
            preference += 0.05 * dear * (1.0 - dear) * gap;
            multipliers.ascend(&[dear], 1);
            mean = 0.999 * mean + 0.001 * dear;
        }
        assert!((mean - 0.3).abs() < 0.05, "{mean}, {:?}", multipliers.values);
    }

    proptest! {
        #[test]
        fn multipliers_stay_in_range(costs in prop::collection::vec(-10.0f32..1e6, 1..50)) {
            let mut multipliers = Multipliers::new([1.0], MultiplierSettings::default());
            for cost in costs {
                multipliers.ascend(&[cost], 5);
                prop_assert!((0.0..=100.0).contains(&multipliers.values[0]));
            }
        }
    }
}
