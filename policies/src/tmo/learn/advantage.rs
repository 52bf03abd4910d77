//! Generalised advantage estimation (Schulman et al. 2015, equation 16).

/// One number per step of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    pub advantages: Vec<f32>,
    /// Advantage plus value: what the critic is fitted to, TD(lambda).
    pub returns: Vec<f32>,
}

/// `delta_t = r_t + discount * V(s_{t+1}) - V(s_t)`, `A_t = delta_t + discount * lambda * A_{t+1}`; nothing flows back
/// over the end of an episode.
///
/// `ends[t]`: the episode ended with step t. `next_value`: V of the state after the last step, unused if that step
/// ended its episode. The slices are of one length.
pub fn advantages(
    rewards: &[f32],
    values: &[f32],
    ends: &[bool],
    next_value: f32,
    discount: f32,
    lambda: f32,
) -> Advantages {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut later, mut next) = (0.0, next_value);
    for at in (0..rewards.len()).rev() {
        let goes_on = if ends[at] { 0.0 } else { 1.0 };
        let delta = rewards[at] + discount * next * goes_on - values[at];
        later = delta + discount * lambda * goes_on * later;
        advantages[at] = later;
        next = values[at];
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    Advantages { advantages, returns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        // Two steps of an episode that ends, one of the next. delta = [1 + .5*3 - 2, 2 - 3, 4 + .5*8 - 1].
        let result = advantages(&[1.0, 2.0, 4.0], &[2.0, 3.0, 1.0], &[false, true, false], 8.0, 0.5, 0.5);
        assert_eq!(result.advantages, [0.25, -1.0, 7.0]);
        assert_eq!(result.returns, [2.25, 2.0, 8.0]);
    }

    proptest! {
        /// With lambda = 1 the return is the discounted sum of the rewards, whatever the critic says.
        #[test]
        fn lambda_one_is_monte_carlo(
            steps in prop::collection::vec((-2.0f32..2.0, -5.0f32..5.0, prop::bool::weighted(0.3)), 1..20),
            next_value in -5.0f32..5.0,
        ) {
            let of = |part: fn(&(f32, f32, bool)) -> f32| steps.iter().map(part).collect::<Vec<_>>();
            let ends: Vec<bool> = steps.iter().map(|step| step.2).collect();
            let result = advantages(&of(|s| s.0), &of(|s| s.1), &ends, next_value, 0.9, 1.0);
            let mut expected = next_value;
            for at in (0..steps.len()).rev() {
                expected = steps[at].0 + if ends[at] { 0.0 } else { 0.9 * expected };
                prop_assert!((result.returns[at] - expected).abs() < 1e-4);
            }
        }
    }
}
