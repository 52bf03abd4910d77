//! How training goes.

use serde::{Deserialize, Serialize};

/// Points of a learning curve: as many as a plot can show.
const POINTS: usize = 60;

/// A stretch of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// At the end of the stretch.
    pub steps: usize,
    /// Mean over the episodes that ended within the stretch of each one's mean reward per step, exploration included.
    pub reward: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub steps: usize,
    pub total_steps: usize,
    /// Of the newest stretch; `None` before the first is complete.
    pub reward: Option<f64>,
}

/// Counts steps and averages rewards.
pub(crate) struct Tracker {
    total: usize,
    steps: usize,
    episode: (f64, usize),
    stretch: (f64, usize),
    curve: Vec<Point>,
}

impl Tracker {
    pub(crate) fn new(total: usize) -> Self {
        Tracker { total, steps: 0, episode: (0.0, 0), stretch: (0.0, 0), curve: Vec::new() }
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    pub(crate) fn step(&mut self, reward: f32, end: bool) {
        self.steps += 1;
        self.episode = (self.episode.0 + f64::from(reward), self.episode.1 + 1);
        if end {
            let (sum, steps) = std::mem::take(&mut self.episode);
            self.stretch = (self.stretch.0 + sum / steps as f64, self.stretch.1 + 1);
        }
        if self.steps.is_multiple_of(self.total.div_ceil(POINTS).max(1)) && self.stretch.1 > 0 {
            let (sum, episodes) = std::mem::take(&mut self.stretch);
            self.curve.push(Point { steps: self.steps, reward: sum / episodes as f64 });
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let reward = self.curve.last().map(|point| point.reward);
        Progress { steps: self.steps, total_steps: self.total, reward }
    }

    pub(crate) fn curve(self) -> Vec<Point> {
        self.curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_mean_over_episodes_of_their_means() {
        let mut tracker = Tracker::new(240);
        // Stretches of 4 steps: an episode of mean 2 and one of mean 4, then one that is still going.
        for (reward, end) in [(1.0, false), (3.0, true), (4.0, true), (9.0, false), (1.0, true), (0.0, false)] {
            tracker.step(reward, end);
        }
        assert_eq!(tracker.progress(), Progress { steps: 6, total_steps: 240, reward: Some(3.0) });
        assert_eq!(tracker.curve(), [Point { steps: 4, reward: 3.0 }]);
    }
}
