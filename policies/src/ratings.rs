//! What people said of earlier answers, summed up by task and by how the answer was made. Pure; the ledger keeps the
//! ratings themselves.

use crate::tmo::data::BEST_SCORE;
use crate::tmo::honest::response::{LEVELS, level};

/// Share of their weight that earlier ratings keep with each new one: models and people change, so some five hundred
/// ratings count at a time.
const MEMORY: f64 = 0.998;
/// Names of tasks that are told apart; more of them count as the unknown task.
const MAX_TASKS: usize = 32;

/// The ratings of one kind of answer, older ones with less weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rated {
    pub weight: f64,
    /// Of responses.
    sum: f64,
}

impl Rated {
    /// The mean response; 0 where nothing was rated.
    pub fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

/// By task and level (local, the cloud with 0, 1, 2, 3 and more pictures).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ratings {
    tasks: Vec<(Option<String>, [Rated; LEVELS])>,
    count: u64,
}

impl Ratings {
    /// A rating of 0 to 1 of an answer that was made there, with so many pictures. In their order: the newest comes last.
    pub fn add(&mut self, task: Option<&str>, cloud: bool, pictures: usize, rating: f64) {
        if !rating.is_finite() {
            return;
        }
        for rated in self.tasks.iter_mut().flat_map(|(_, levels)| levels) {
            rated.weight *= MEMORY;
            rated.sum *= MEMORY;
        }
        let at = self.place(task).unwrap_or_else(|| {
            let name = task.filter(|_| self.tasks.len() < MAX_TASKS).map(str::to_owned);
            self.place(name.as_deref()).unwrap_or_else(|| {
                self.tasks.push((name, [Rated::default(); LEVELS]));
                self.tasks.len() - 1
            })
        });
        let rated = &mut self.tasks[at].1[level(cloud, pictures)];
        rated.weight += 1.0;
        rated.sum += rating.clamp(0.0, 1.0) * BEST_SCORE;
        self.count += 1;
    }

    fn place(&self, task: Option<&str>) -> Option<usize> {
        self.tasks.iter().position(|(name, _)| name.as_deref() == task)
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Each task with its levels.
    pub fn tasks(&self) -> impl Iterator<Item = (Option<&str>, &[Rated; LEVELS])> {
        self.tasks.iter().map(|(name, levels)| (name.as_deref(), levels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(ratings: &'a Ratings, task: Option<&str>) -> &'a [Rated; LEVELS] {
        ratings.tasks().find(|(name, _)| *name == task).unwrap().1
    }

    #[test]
    fn ratings_are_summed_up_by_task_and_level_and_older_ones_fade() {
        let mut ratings = Ratings::default();
        assert!(ratings.is_empty());
        ratings.add(Some("Query"), false, 0, 0.25);
        ratings.add(Some("Query"), true, 7, 1.0);
        ratings.add(None, true, 0, 0.5);
        ratings.add(Some("Query"), true, 1, f64::NAN);
        assert_eq!(ratings.count(), 3);
        let levels = of(&ratings, Some("Query"));
        assert!((levels[0].mean() - 0.5).abs() < 1e-12 && (levels[0].weight - MEMORY * MEMORY).abs() < 1e-12);
        assert_eq!((levels[4].mean(), levels[1].weight), (2.0, 0.0), "seven pictures are three and more");
        assert_eq!(of(&ratings, None)[1].mean(), 1.0);
        (0..5_000).for_each(|_| ratings.add(Some("Query"), true, 7, 0.0));
        let levels = of(&ratings, Some("Query"));
        assert!(levels[4].mean() < 1e-3, "what was said long ago is forgotten");
        assert!((levels[4].weight - 1.0 / (1.0 - MEMORY)).abs() < 1.0, "{levels:?}");
    }

    #[test]
    fn names_of_tasks_are_limited() {
        let mut ratings = Ratings::default();
        for n in 0..10 * MAX_TASKS {
            ratings.add(Some(&n.to_string()), false, 0, 1.0);
        }
        assert_eq!(ratings.tasks().count(), MAX_TASKS + 1);
        assert!(of(&ratings, None)[0].weight > 100.0, "the others are the unknown task's");
    }
}
