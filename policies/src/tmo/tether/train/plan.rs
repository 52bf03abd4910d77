//! The best that can be done in the published environment by someone who knows how many turns follow, but not which:
//! dynamic programming over every history of tasks and actions, in expectation over the next task and association.
//!
//! It is the teacher of the tether policy in paper mode. It knows the training dialogues only: their estimator, how
//! often a task follows another, and their associations.

use crate::tmo::data::Dialogue;
use crate::tmo::mask::{Reserve, minus};
use crate::tmo::paper::{ACTIONS, Environment, OBSERVATION, SENT, VIEWS, level};
use crate::tmo::tether::train::neighbours::{Neighbours, SLOTS, code};

/// Turns of the longest dialogue that is planned for: what the observation holds, and M4A1's longest.
pub const TURNS: usize = SLOTS;
/// Tasks of M4A1.
pub const TASKS: usize = 4;
/// A refused turn earns the least reward: no response, full latency and usage.
pub const REFUSED: f32 = -2.0 / 3.0;
/// Associations that stand for all of a task's at the last two turns, where there are millions of histories.
const FEW_DRAWS: usize = 6;
/// Pseudo-counts of a task following another.
const PRIOR: f64 = 1.0;

/// Seconds and USD of a dialogue.
pub type Budget = [f64; 2];

/// What of a reward no history decides: association, latency and usage of each action at one turn.
pub type Sides = [f32; ACTIONS];

/// The turns that a dialogue may have, as the training dialogues have them.
#[derive(Debug, Clone)]
pub struct Chances {
    /// [task][next task], and of the first turn.
    pub next: [[f64; TASKS]; TASKS],
    pub first: [f64; TASKS],
    /// Of 1 to [`TURNS`] turns.
    pub turns: [f64; TURNS],
    /// By task, one entry for each logged turn.
    pub sides: [Vec<Sides>; TASKS],
}

impl Chances {
    pub fn of(environment: &Environment, training: &[&Dialogue]) -> Chances {
        let mut next = [[PRIOR; TASKS]; TASKS];
        let (mut first, mut turns) = ([PRIOR; TASKS], [0.0; TURNS]);
        let mut sides: [Vec<Sides>; TASKS] = Default::default();
        for dialogue in training {
            turns[dialogue.turns.len().clamp(1, TURNS) - 1] += 1.0;
            first[dialogue.turns[0].task.min(TASKS - 1)] += 1.0;
            for turn in &dialogue.turns {
                let side = |action| environment.priced(turn, action, 0.0).reward as f32;
                sides[turn.task.min(TASKS - 1)].push(std::array::from_fn(side));
            }
            for pair in dialogue.turns.windows(2) {
                next[pair[0].task.min(TASKS - 1)][pair[1].task.min(TASKS - 1)] += 1.0;
            }
        }
        // A task that never occurs in training: what the others look like.
        let any: Vec<Sides> = sides.iter().flatten().copied().collect();
        sides.iter_mut().filter(|known| known.is_empty()).for_each(|unknown| unknown.clone_from(&any));
        next.iter_mut().for_each(to_one);
        to_one(&mut first);
        to_one(&mut turns);
        Chances { next, first, turns, sides }
    }
}

fn to_one<const N: usize>(weights: &mut [f64; N]) {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum.max(f64::MIN_POSITIVE));
}

/// One history: its turns' tasks and the actions of all but the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Track {
    codes: [u8; TURNS],
    len: usize,
    /// A number of its own among the histories of its length.
    place: usize,
}

impl Track {
    pub fn first(task: usize) -> Track {
        let mut track = Track { codes: [0; TURNS], len: 1, place: task };
        track.codes[0] = code(None, task);
        track
    }

    /// # Panics
    /// Beyond [`TURNS`] turns.
    #[must_use]
    pub fn then(mut self, action: usize, task: usize) -> Track {
        self.codes[self.len] = code(Some(action), task);
        self.len += 1;
        self.place = (self.place * ACTIONS + action) * TASKS + task;
        self
    }

    pub fn codes(&self) -> &[u8] {
        &self.codes[..self.len]
    }
}

/// What is spent, and which levels of offloading may still be taken.
#[derive(Debug, Clone)]
pub struct Purse {
    levels: [[f64; 2]; VIEWS + 2],
    reserve: Reserve<2>,
}

impl Purse {
    pub fn new(environment: &Environment) -> Purse {
        let profile = &environment.profile;
        let levels = std::array::from_fn(|level| [profile.latency_s[level], profile.usage_usd[level]]);
        Purse { levels, reserve: Reserve::new(levels) }
    }

    /// The open actions with `following` turns after this one.
    pub fn open(&self, left: Budget, following: usize) -> [bool; ACTIONS] {
        let by_level: [bool; VIEWS + 2] =
            self.levels.map(|cost| self.reserve.can_finish(minus(left, cost), following as u32));
        std::array::from_fn(|action| by_level[level(action)])
    }

    pub fn after(&self, left: Budget, action: usize) -> Budget {
        minus(left, self.levels[level(action)])
    }
}

/// Expected rewards from the next turn on, for every history short of the longest, every length and budget.
#[derive(Debug, Clone)]
pub struct Plan {
    pub chances: Chances,
    pub neighbours: Neighbours,
    pub purse: Purse,
    pub budgets: Vec<Budget>,
    /// Turns of the longest training dialogue.
    longest: usize,
    /// Those of a history's length: [place][turns in all - length - 1][budget][action].
    later: [Vec<f32>; TURNS - 1],
}

/// One value for each (turns in all, budget).
type Values = Vec<f32>;

impl Plan {
    pub fn new(environment: &Environment, training: &[&Dialogue], budgets: &[Budget]) -> Plan {
        let neighbours = Neighbours::new(&environment.estimator);
        let longest = training.iter().map(|dialogue| dialogue.turns.len()).max().unwrap_or(1).min(TURNS);
        let mut count = TASKS;
        let later = std::array::from_fn(|at| {
            let values = vec![0.0; count * (longest - 1).saturating_sub(at) * budgets.len() * ACTIONS];
            count *= ACTIONS * TASKS;
            values
        });
        let chances = Chances::of(environment, training);
        let (purse, budgets) = (Purse::new(environment), budgets.to_vec());
        let mut plan = Plan { chances, neighbours, purse, budgets, longest, later };
        for task in 0..TASKS {
            let mut base = Vec::new();
            plan.neighbours.sums(Track::first(task).codes(), &mut base);
            let left = plan.budgets.clone();
            plan.visit(Track::first(task), &base, &left);
        }
        plan
    }

    /// Expected rewards after each action at this history, of a dialogue of `turns` turns under a budget.
    pub fn later(&self, track: &Track, turns: usize, budget: usize) -> [f32; ACTIONS] {
        if turns.min(self.longest) <= track.len {
            return [0.0; ACTIONS];
        }
        // A dialogue longer than any in training is planned for as the longest one.
        let at = self.later_at(track, turns.min(self.longest), budget);
        std::array::from_fn(|action| self.later[track.len - 1][at + action])
    }

    fn later_at(&self, track: &Track, turns: usize, budget: usize) -> usize {
        ((track.place * (self.longest - track.len) + turns - track.len - 1) * self.budgets.len() + budget) * ACTIONS
    }

    /// The value of being at this history before its association is known: for each of the lengths from this one on
    /// and each budget. `left`: what remains of each budget.
    fn visit(&mut self, track: Track, base: &[u8], left: &[Budget]) -> Values {
        let responses = self.neighbours.responses(base);
        let lengths = self.longest - track.len + 1;
        let mut later = vec![[0.0f32; ACTIONS]; lengths * left.len()];
        if track.len < self.longest {
            self.look_ahead(&track, left, &mut later);
        }
        let draws = &self.chances.sides[task_of(&track)];
        let every = if track.len + 1 < TURNS { 1 } else { draws.len().div_ceil(FEW_DRAWS) };
        let draws = draws.iter().skip(track.place % every).step_by(every);
        let mut values = vec![0.0; later.len()];
        for (at, value) in values.iter_mut().enumerate() {
            let (following, left) = (at / left.len(), left[at % left.len()]);
            let open = self.purse.open(left, following);
            if !open.contains(&true) {
                *value = REFUSED * (following + 1) as f32;
                continue;
            }
            let known: [f32; ACTIONS] = std::array::from_fn(|action| {
                if open[action] { responses[action] + later[at][action] } else { f32::NEG_INFINITY }
            });
            let best =
                |sides: &Sides| (0..ACTIONS).map(|action| known[action] + sides[action]).fold(f32::MIN, f32::max);
            let (sum, count) = draws.clone().fold((0.0, 0.0), |(sum, count), sides| (sum + best(sides), count + 1.0));
            *value = sum / count;
        }
        values
    }

    /// Fills in what follows each action, here and in the plan's memory.
    fn look_ahead(&mut self, track: &Track, left: &[Budget], later: &mut [[f32; ACTIONS]]) {
        let mut before = Vec::new();
        // The newest turn will stand one slot further left.
        self.neighbours.shifted(track.codes(), &mut before);
        let mut base = Vec::new();
        for action in 0..ACTIONS {
            let after: Vec<Budget> = left.iter().map(|&left| self.purse.after(left, action)).collect();
            if after.iter().all(|left| left.iter().any(|&resource| resource < -crate::tmo::mask::ROUNDING)) {
                continue;
            }
            for task in 0..TASKS {
                let chance = self.chances.next[task_of(track)][task] as f32;
                let next = track.then(action, task);
                self.neighbours.append(&before, code(Some(action), task), &mut base);
                let values = self.visit(next, &base, &after);
                // `values` begins at the length that ends with the next turn.
                let rows = later[left.len()..].iter_mut();
                rows.zip(&values).for_each(|(row, value)| row[action] += chance * value);
            }
        }
        for following in 1..=self.longest - track.len {
            for budget in 0..left.len() {
                let at = self.later_at(track, track.len + following, budget);
                let values = later[following * left.len() + budget];
                self.later[track.len - 1][at..at + ACTIONS].copy_from_slice(&values);
            }
        }
    }
}

fn task_of(track: &Track) -> usize {
    track.place % TASKS
}

/// The bits of an action as the estimator has them: [cloud, view 0, view 1, view 2].
pub fn bits(action: usize) -> u8 {
    SENT[action].map_or(0, |views| 1 | views.0 << 1)
}

const _: () = assert!(OBSERVATION == SLOTS * (2 + VIEWS));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::Dataset;
    use crate::tmo::paper::{Estimator, Profile, Weights};
    use crate::tmo::synthetic;

    /// Dialogues of two turns: planned for in no time.
    pub(super) fn short() -> (Dataset, Environment) {
        let mut data = synthetic::dataset(40, VIEWS, 4);
        data.dialogues.iter_mut().for_each(|dialogue| dialogue.turns.truncate(2));
        let estimator = Estimator::fit(&data, &data.dialogues).unwrap();
        (data, Environment { estimator, profile: Profile::default(), weights: Weights::default() })
    }

    #[test]
    fn what_comes_later_is_the_mean_of_the_best_of_each_task_and_association() {
        let (data, environment) = short();
        let training: Vec<&Dialogue> = data.dialogues.iter().collect();
        let budget = [13.0, 0.02];
        let plan = Plan::new(&environment, &training, &[budget]);
        let later = plan.later(&Track::first(1), 2, 0);
        for action in [0, 1, 5] {
            let left = plan.purse.after(budget, action);
            let open = plan.purse.open(left, 0);
            let mut expected = 0.0;
            for task in 0..TASKS {
                let mut sums = Vec::new();
                plan.neighbours.sums(Track::first(1).then(action, task).codes(), &mut sums);
                let responses = plan.neighbours.responses(&sums);
                // The plan takes every n-th association of the last planned turns; here that is all of them.
                let sides = &plan.chances.sides[task];
                let best = |sides: &Sides| {
                    let open = (0..ACTIONS).filter(|&action| open[action]);
                    open.map(|action| responses[action] + sides[action]).fold(f32::MIN, f32::max)
                };
                let mean = sides.iter().map(best).sum::<f32>() / sides.len() as f32;
                expected += plan.chances.next[1][task] as f32 * mean;
            }
            assert!((later[action] - expected).abs() < 1e-4, "action {action}: {} {expected}", later[action]);
        }
        // Nothing follows the last turn.
        assert_eq!(plan.later(&Track::first(1), 1, 0), [0.0; ACTIONS]);
    }
}
