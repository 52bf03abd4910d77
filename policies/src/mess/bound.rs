//! What the virtual queue promises.
//!
//! `Q <- max(0, Q + alpha - s)` gives, for every sequence of ratings, `sum(alpha - s) <= Q`. So after n ratings
//! the measured mean is at least `alpha - Q / n`, always, whatever was predicted ([`shortfall`]).
//!
//! How large Q may grow is the guard's matter. Let one permitted model have a mean of at least alpha + margin, ratings
//! independent with variance at most v = 1/4. Above q_max the guard answers with the model of the highest upper
//! confidence index, from samples that no predictor has chosen. A model whose mean is below alpha + margin/2 is
//! left for good after about `2 v ln(n / delta) / (margin/2 + gap)^2` samples and costs `gap` each, at most
//! `4 v ln(n / delta) / margin` together; the others drift the queue down, and a walk with that drift climbs by more
//! than `v ln(n / delta) / margin` with a probability below delta / n ([`queue_bound`]). The bound grows as the
//! logarithm of n, so the shortfall vanishes as `ln(n) / n`.

/// The margin for which the bound is stated: some permitted model reaches alpha + 0.02.
pub const MARGIN: f64 = 0.02;
/// The probability with which the bound may fail.
pub const FAILURE: f64 = 0.01;

/// The bound on the queue after `rated` ratings with `models` permitted models, `trials` samples forced on each.
pub fn queue_bound(alpha: f64, q_max: f64, models: usize, trials: u64, rated: u64) -> f64 {
    // The variance of a rating near alpha; a mean far from alpha has a strong drift instead.
    let variance = (alpha * (1.0 - alpha)).max(0.05);
    let surprise = (rated.max(2) as f64 / FAILURE).ln();
    let others = models.saturating_sub(1) as f64;
    let left = others * (alpha * trials as f64 + 4.0 * variance * surprise / MARGIN);
    q_max + 1.0 + left + variance * surprise / MARGIN
}

/// How far the mean over all `answered` requests may lie below alpha: certain for the rated ones (`queue / rated`),
/// with Hoeffding's term for those that nobody rated, if ratings are missing at random.
pub fn shortfall(queue: f64, rated: u64, answered: u64) -> f64 {
    if rated == 0 {
        return 1.0;
    }
    let missing = answered.saturating_sub(rated) as f64 / answered.max(1) as f64;
    let doubt = ((1.0 / FAILURE).ln() / (2.0 * rated as f64)).sqrt();
    (queue / rated as f64 + missing * doubt).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_slower_than_the_stream() {
        let share = |rated: u64| queue_bound(0.8, 40.0, 3, 40, rated) / rated as f64;
        assert!(share(100_000) < 0.015 && share(10_000) < share(1_000) / 5.0);
    }

    #[test]
    fn nothing_rated_promises_nothing_and_missing_ratings_widen() {
        assert_eq!(shortfall(0.0, 0, 10), 1.0);
        assert!(shortfall(5.0, 100, 1_000) > shortfall(5.0, 100, 100));
        assert_eq!(shortfall(5.0, 100, 100), 0.05);
    }
}
