//! The guard: while a tenant's queue is above q_max, the model with the highest measured mean answers, whatever the
//! predictor says.
//!
//! It measures with answers that no predictor chose (the guard's own, and forced trials): a predictor that sends
//! a weak model only easy requests would make it look strong. An upper confidence index on the mean keeps an unlucky start
//! from hiding the right model.

use super::model::Tally;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Guard {
    pub(super) active: bool,
    /// (model id, its unbiased sample)
    samples: Vec<(u32, Tally)>,
}

impl Guard {
    /// Follows the queue: in above `q_max`, out at half of it.
    pub(super) fn follow(&mut self, queue: f64, q_max: f64) {
        self.active = if self.active { queue > q_max / 2.0 } else { queue > q_max };
    }

    pub(super) fn learn(&mut self, model: u32, label: f64) {
        match self.samples.iter_mut().find(|(id, _)| *id == model) {
            Some((_, tally)) => tally.add(label),
            None => self.samples.push((model, Tally { count: 1.0, sum: label })),
        }
    }

    /// The model of the highest index among `usable` (ids); one never sampled comes first.
    pub(super) fn best(&self, usable: &[u32]) -> Option<u32> {
        let total: f64 = self.samples.iter().map(|(_, tally)| tally.count).sum();
        let index = |id: u32| {
            let tally = self.samples.iter().find(|(sampled, _)| *sampled == id).map(|(_, tally)| *tally);
            let tally = tally.unwrap_or_default();
            let Some(mean) = tally.mean() else { return f64::INFINITY };
            // The variance of a Bernoulli mean, smoothed so that a short run of equal labels does not look certain.
            let smooth = (tally.sum + 1.0) / (tally.count + 2.0);
            mean + (2.0 * (1.0 + total).ln() * smooth * (1.0 - smooth) / tally.count).sqrt()
        };
        usable.iter().copied().max_by(|&a, &b| index(a).total_cmp(&index(b)))
    }

    /// A model has changed: what was measured of it weighs little now.
    pub(super) fn forget(&mut self, model: u32) {
        for (_, tally) in self.samples.iter_mut().filter(|(id, _)| *id == model) {
            let keep = (5.0 / tally.count).min(1.0);
            *tally = Tally { count: tally.count * keep, sum: tally.sum * keep };
        }
    }

    pub(super) fn remove(&mut self, model: u32) {
        self.samples.retain(|(id, _)| *id != model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_queue_with_hysteresis() {
        let mut guard = Guard::default();
        let seen: Vec<bool> = [39.0, 41.0, 21.0, 20.0, 39.0]
            .iter()
            .map(|&queue| {
                guard.follow(queue, 40.0);
                guard.active
            })
            .collect();
        assert_eq!(seen, [false, true, true, false, false]);
    }

    #[test]
    fn tries_each_and_settles_on_the_highest_mean() {
        let mut guard = Guard::default();
        let mut calls = [0; 3];
        for round in 0..600u32 {
            let best = guard.best(&[0, 1, 2]).unwrap();
            calls[best as usize] += 1;
            // 50 %, 75 % and 100 % satisfied, in a fixed pattern.
            guard.learn(best, f64::from(u8::from(round % 4 < 2 + best)));
        }
        assert!(calls[2] > 400 && calls[0] > 0 && calls[1] > 0, "{calls:?}");
    }
}
