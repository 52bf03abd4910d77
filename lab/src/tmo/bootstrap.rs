//! How far a mean may be off, by drawing the dialogues again.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Enough that the ends of the interval move by less than its third digit.
const DRAWS: usize = 2_000;
const SEED: u64 = 1;

/// The middle 95 % of the mean, dialogues drawn with replacement (Efron's percentile method). A dialogue that several
/// splits test is drawn or left out as a whole: its rewards are not independent.
///
/// `None` without a dialogue.
pub fn interval(rewards: impl IntoIterator<Item = (u64, f64)>) -> Option<[f64; 2]> {
    let mut by_dialogue: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (dialogue, reward) in rewards {
        let (sum, count) = by_dialogue.entry(dialogue).or_default();
        *sum += reward;
        *count += 1.0;
    }
    let dialogues: Vec<(f64, f64)> = by_dialogue.into_values().collect();
    if dialogues.is_empty() {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut draw = || {
        let drawn = (0..dialogues.len()).map(|_| dialogues[random.random_range(0..dialogues.len())]);
        let (sum, count) = drawn.fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        sum / count
    };
    let mut means: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    means.sort_by(f64::total_cmp);
    Some([means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_two_standard_errors_each_way() {
        // 100 dialogues, half 0 and half 1: the standard error is .05.
        let rewards = |copies: u64| (0..100 * copies).map(|at| (at % 100, f64::from(u8::from(at % 2 == 0))));
        let [low, high] = interval(rewards(1)).unwrap();
        assert!((low - 0.4).abs() < 0.02 && (high - 0.6).abs() < 0.02, "{low} {high}");
        // The same dialogues ten times over say no more.
        let [again_low, again_high] = interval(rewards(10)).unwrap();
        assert!((low - again_low).abs() < 1e-9 && (high - again_high).abs() < 1e-9);
        assert_eq!(interval([]), None);
        assert_eq!(interval([(1, 2.0)]), Some([2.0, 2.0]));
    }
}
