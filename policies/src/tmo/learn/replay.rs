//! Bounded memory of transitions.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

#[derive(Debug, Clone, PartialEq)]
pub struct Transition<const R: usize> {
    pub observation: Box<[f32]>,
    pub action: usize,
    pub reward: f32,
    pub costs: [f32; R],
    /// Without meaning after an end.
    pub next: Box<[f32]>,
    pub end: bool,
}

/// The newest transitions, at most as many as it was made for.
#[derive(Debug, Clone)]
pub struct Replay<const R: usize> {
    steps: Vec<Transition<R>>,
    limit: usize,
    /// Where the next one goes once it is full.
    oldest: usize,
}

impl<const R: usize> Replay<R> {
    pub fn new(limit: usize) -> Self {
        Replay { steps: Vec::new(), limit: limit.max(1), oldest: 0 }
    }

    pub fn push(&mut self, step: Transition<R>) {
        if self.steps.len() < self.limit {
            self.steps.push(step);
        } else {
            self.steps[self.oldest] = step;
            self.oldest = (self.oldest + 1) % self.limit;
        }
    }

    /// With replacement, as SB3 does; nothing from an empty memory.
    pub fn sample(&self, count: usize, random: &mut ChaCha8Rng) -> Vec<&Transition<R>> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        (0..count).map(|_| &self.steps[random.random_range(0..self.steps.len())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn keeps_the_newest() {
        let mut replay = Replay::<0>::new(3);
        assert!(replay.sample(2, &mut ChaCha8Rng::seed_from_u64(1)).is_empty());
        for action in 0..5 {
            let (observation, next) = (Box::new([0.0]), Box::new([0.0]));
            replay.push(Transition { observation, action, reward: 0.0, costs: [], next, end: false });
        }
        let sample = replay.sample(100, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(sample.iter().map(|step| step.action).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3, 4]));
    }
}
