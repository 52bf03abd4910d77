//! The scorer, as plain arithmetic on slices. Shapes: G inputs of the turn, A of one action, H hidden, N actions.
//!
//! ```text
//! h_n   = relu(turn `[G]` * W_turn [G,H] + action_n `[A]` * W_action [A,H] + b_1 `[H]`)
//! pool  = mean over n of h_n                                                      `[H]`
//! score = relu(h_n * W_mix [H,H] + pool * W_pool [H,H] + b_2 `[H]`) * w_score `[H]`   for each n
//! ```
//!
//! The same weights score every action and the pool is a mean, so actions may be permuted and their number may change.

use crate::tmo::tether::config::MAX_HIDDEN;

/// Weights are row-major [in, out], as burn's `Linear` stores them.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(super) hidden: usize,
    pub(super) turn: Vec<f32>,
    pub(super) action: Vec<f32>,
    pub(super) first_bias: Vec<f32>,
    pub(super) mix: Vec<f32>,
    pub(super) pool: Vec<f32>,
    pub(super) second_bias: Vec<f32>,
    pub(super) score: Vec<f32>,
}

impl Network {
    /// Scores `scores.len()` actions, at most N of them; `write(n, out)` puts the n-th action's inputs into `out`.
    ///
    /// All memory is on the stack: `4 * N * MAX_HIDDEN` bytes.
    ///
    /// # Panics
    /// If there are more than N actions.
    pub fn score<const N: usize>(
        &self,
        turn_inputs: &[f32],
        action_inputs: &mut [f32],
        mut write: impl FnMut(usize, &mut [f32]),
        scores: &mut [f32],
    ) {
        let hidden = self.hidden;
        let mut base = [0.0; MAX_HIDDEN];
        let base = &mut base[..hidden];
        base.copy_from_slice(&self.first_bias);
        multiply_add(turn_inputs, &self.turn, base);

        let mut firsts = [[0.0; MAX_HIDDEN]; N];
        let firsts = &mut firsts[..scores.len()];
        let mut pooled = [0.0; MAX_HIDDEN];
        let pooled = &mut pooled[..hidden];
        for (n, first) in firsts.iter_mut().enumerate() {
            let first = &mut first[..hidden];
            first.copy_from_slice(base);
            write(n, action_inputs);
            multiply_add(action_inputs, &self.action, first);
            first.iter_mut().zip(pooled.iter_mut()).for_each(|(x, sum)| {
                *x = x.max(0.0);
                *sum += *x;
            });
        }
        let share = 1.0 / scores.len().max(1) as f32;
        pooled.iter_mut().for_each(|sum| *sum *= share);

        base.copy_from_slice(&self.second_bias);
        multiply_add(pooled, &self.pool, base);
        for (first, score) in firsts.iter().zip(scores) {
            let mut second = [0.0; MAX_HIDDEN];
            let second = &mut second[..hidden];
            second.copy_from_slice(base);
            multiply_add(&first[..hidden], &self.mix, second);
            *score = second.iter().zip(&self.score).map(|(x, w)| x.max(0.0) * w).sum();
        }
    }
}

/// `out += inputs * matrix`, matrix [inputs.len(), out.len()]. Inputs are mostly zero (flags, rectified units), and a
/// zero costs nothing here.
fn multiply_add(inputs: &[f32], matrix: &[f32], out: &mut [f32]) {
    for (&x, row) in inputs.iter().zip(matrix.chunks_exact(out.len())) {
        if x != 0.0 {
            out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(random: impl Fn(usize) -> Vec<f32>) -> Network {
        Network {
            hidden: 3,
            turn: random(6),
            action: random(12),
            first_bias: random(3),
            mix: random(9),
            pool: random(9),
            second_bias: random(3),
            score: random(3),
        }
    }

    fn scores(network: &Network, actions: &[[f32; 4]]) -> Vec<f32> {
        let (mut inputs, mut scores) = ([0.0; 4], vec![0.0; actions.len()]);
        network.score::<9>(&[0.5, -1.0], &mut inputs, |n, out| out.copy_from_slice(&actions[n]), &mut scores);
        scores
    }

    proptest! {
        #[test]
        fn scores_follow_their_actions_when_those_are_permuted(
            weights in prop::collection::vec(-1.0f32..1.0, 48),
            actions in prop::collection::vec(prop::array::uniform4(0.0f32..1.0), 1..9),
            by in 0usize..9,
        ) {
            let network = network(|n| weights[..n].to_vec());
            let mut turned = actions.clone();
            turned.rotate_left(by % actions.len());
            let mut expected = scores(&network, &actions);
            expected.rotate_left(by % actions.len());
            for (a, b) in scores(&network, &turned).iter().zip(&expected) {
                prop_assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn one_action_by_hand() {
        let ones = |n: usize| vec![1.0; n];
        // h = relu(.5 - 1 + 1 + 1) = 1.5 each; second = 3*1.5 + 3*1.5 + 1 = 10 each; score = 30.
        assert_eq!(scores(&network(ones), &[[1.0, 0.0, 0.0, 0.0]]), [30.0]);
    }
}
