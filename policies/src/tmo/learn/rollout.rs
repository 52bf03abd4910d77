//! What an on-policy learner collects between two updates.

use super::advantage::{Advantages, advantages};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One step: what was seen, done, earned and spent.
///
/// `O` is the observation in whatever form its network takes; `R` the number of constrained resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Experience<O, const R: usize> {
    pub observation: O,
    pub action: usize,
    /// log pi(action | observation) of the policy that acted.
    pub log_prob: f32,
    /// V(observation) of the critic at that time.
    pub value: f32,
    pub reward: f32,
    pub costs: [f32; R],
    /// The episode ended with this step.
    pub end: bool,
}

/// Experiences in the order in which they happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout<O, const R: usize> {
    pub steps: Vec<Experience<O, R>>,
}

impl<O, const R: usize> Rollout<O, R> {
    pub fn with_capacity(steps: usize) -> Self {
        Rollout { steps: Vec::with_capacity(steps) }
    }

    /// Advantages and returns of `reward` as it is given for each step: the plain one, or a penalised one.
    pub fn advantages(
        &self,
        reward: impl Fn(&Experience<O, R>) -> f32,
        next_value: f32,
        discount: f32,
        lambda: f32,
    ) -> Advantages {
        let rewards: Vec<f32> = self.steps.iter().map(reward).collect();
        let values: Vec<f32> = self.steps.iter().map(|step| step.value).collect();
        let ends: Vec<bool> = self.steps.iter().map(|step| step.end).collect();
        advantages(&rewards, &values, &ends, next_value, discount, lambda)
    }

    /// Mean of each cost over the steps; zeros without a step.
    pub fn mean_costs(&self) -> [f32; R] {
        let count = self.steps.len().max(1) as f32;
        std::array::from_fn(|resource| self.steps.iter().map(|step| step.costs[resource]).sum::<f32>() / count)
    }
}

/// The numbers 0..count in random batches of at most `size`, each number once (SB3: RolloutBuffer.get).
pub fn batches(count: usize, size: usize, random: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(random);
    order.chunks(size.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn batches_hold_each_step_once() {
        let batches = batches(130, 64, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 2]);
        let mut all = batches.concat();
        assert_ne!(all[..5], [0, 1, 2, 3, 4]);
        all.sort_unstable();
        assert_eq!(all, (0..130).collect::<Vec<_>>());
    }

    #[test]
    fn a_penalised_reward_reaches_the_advantage() {
        let step =
            Experience { observation: (), action: 0, log_prob: 0.0, value: 0.0, reward: 1.0, costs: [2.0], end: true };
        let rollout = Rollout { steps: vec![step] };
        let result = rollout.advantages(|step| step.reward - 3.0 * step.costs[0], 9.0, 0.99, 0.95);
        assert_eq!((result.advantages[0], rollout.mean_costs()), (-5.0, [2.0]));
    }
}
