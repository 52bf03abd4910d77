//! Bootstrap intervals over dialogues.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const RESAMPLES: usize = 2_000;

/// The 95 % percentile interval of a statistic over resampled places `0..count`.
pub fn interval(count: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> [f64; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| statistic(&(0..count).map(|_| random.random_range(0..count)).collect::<Vec<_>>()))
        .collect();
    values.sort_by(f64::total_cmp);
    [values[RESAMPLES * 25 / 1_000], values[RESAMPLES * 975 / 1_000]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_fair_coin_is_within_its_interval() {
        let mean =
            |places: &[usize]| places.iter().filter(|place| *place % 2 == 0).count() as f64 / places.len() as f64;
        let [low, high] = interval(400, 1, mean);
        // Plus or minus two standard errors of .025.
        assert!((0.44..0.46).contains(&low) && (0.54..0.56).contains(&high), "{low} {high}");
    }
}
