//! What the network sees, as plain values, and how it becomes numbers. Training and the daemon both go through here.
//!
//! Costs enter only as ratios (over the range of this turn's actions, and over what is left per turn), so devices,
//! links, budgets and their units may change with no retraining.

use tether_protocol::limits::MAX_VIEWS;
use tether_protocol::{Cost, ViewSet};

/// Earlier turns that are looked at (TMO, section 3.1).
pub const HISTORY: usize = 5;
/// Tasks with an input of their own; one more input stands for every other name.
pub const KNOWN_TASKS: usize = 4;
pub const TASKS: usize = KNOWN_TASKS + 1;
/// Latency, USD, joules, uplink bytes: the budgets of a dialogue, in any unit as long as cost and remainder share it.
pub const RESOURCES: usize = 4;
/// Numbers of views with an input of their own: 0, 1, 2, 3, and more.
const COUNTS: usize = 5;
/// Numbers of turns that may follow with an input of their own: 0 to 3, and more.
const FOLLOWING: usize = 5;

/// An amount of each resource; `None` is unknown for a cost and unlimited for a remainder.
pub type Amounts = [Option<f64>; RESOURCES];

/// One earlier turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    pub cloud: bool,
    pub views: ViewSet,
    /// In `0..TASKS`, if known.
    pub task: Option<usize>,
}

/// One action of this turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    pub cloud: bool,
    /// The views that it sends.
    pub views: ViewSet,
    /// Sum of the similarities of prompt and sent views; `None` where one of them is unknown. 0 without views.
    pub association: Option<f64>,
    pub cost: Amounts,
}

/// One turn before its decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scene<'a> {
    /// At most the last [`HISTORY`] turns are looked at, oldest first.
    pub history: &'a [Past],
    /// How many turns went before, those beyond the history included.
    pub before: usize,
    pub task: Option<usize>,
    /// How many views there are.
    pub view_count: usize,
    /// What is left of each budget.
    pub remaining: Amounts,
    /// How many turns may follow: what the mask reserves for.
    pub following: u32,
    /// Whether `following` is known rather than assumed.
    pub following_known: bool,
}

const PAST: usize = 3 + TASKS;

/// Length of [`Scene::write`].
pub const fn turn_inputs(view_slots: usize) -> usize {
    HISTORY * (PAST + view_slots) + TASKS + 1 + FOLLOWING + 1 + RESOURCES + 1
}

/// Length of [`Facts::write`].
pub const fn action_inputs(view_slots: usize) -> usize {
    1 + COUNTS + 1 + 3 + 3 * RESOURCES + view_slots
}

pub const MAX_TURN_INPUTS: usize = turn_inputs(MAX_VIEWS);
pub const MAX_ACTION_INPUTS: usize = action_inputs(MAX_VIEWS);

/// The four budgeted resources of a [`Cost`].
pub fn amounts(cost: &Cost) -> Amounts {
    [cost.latency_ms, cost.cost_usd, cost.energy_j, cost.uplink_bytes.map(|bytes| bytes as f64)]
}

impl Scene<'_> {
    /// Writes the turn's inputs: for each of five earlier turns (newest first) [was, cloud, views, task.., slots..];
    /// then [task.., before, following.., following known, limited.., views].
    ///
    /// # Panics
    /// If `out` is not [`turn_inputs`] long.
    pub fn write(&self, view_slots: usize, out: &mut [f32]) {
        assert_eq!(out.len(), turn_inputs(view_slots), "inputs of a turn");
        out.fill(0.0);
        let width = PAST + view_slots;
        let (history, rest) = out.split_at_mut(HISTORY * width);
        for (past, out) in self.history.iter().rev().zip(history.chunks_exact_mut(width)) {
            out[0] = 1.0;
            out[1] = flag(past.cloud);
            out[2] = past.views.len() as f32 / 4.0;
            if let Some(task) = past.task {
                out[3 + task.min(KNOWN_TASKS)] = 1.0;
            }
            slots(past.views, &mut out[PAST..]);
        }
        if let Some(task) = self.task {
            rest[task.min(KNOWN_TASKS)] = 1.0;
        }
        rest[TASKS] = self.before.min(HISTORY) as f32 / HISTORY as f32;
        let rest = &mut rest[TASKS + 1..];
        rest[(self.following as usize).min(FOLLOWING - 1)] = 1.0;
        rest[FOLLOWING] = flag(self.following_known);
        for (out, left) in rest[FOLLOWING + 1..].iter_mut().zip(self.remaining) {
            *out = flag(left.is_some());
        }
        rest[FOLLOWING + 1 + RESOURCES] = self.view_count as f32 / 4.0;
    }
}

/// The ranges over one turn's actions that [`Facts::write`] relates each action to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranges {
    association: [f64; 2],
    cost: [[f64; 2]; RESOURCES],
}

impl Ranges {
    pub fn over<'f>(actions: impl IntoIterator<Item = &'f Facts>) -> Ranges {
        let nothing = [f64::INFINITY, f64::NEG_INFINITY];
        let mut ranges = Ranges { association: nothing, cost: [nothing; RESOURCES] };
        for facts in actions {
            widen(&mut ranges.association, facts.association);
            facts.cost.iter().zip(&mut ranges.cost).for_each(|(&cost, range)| widen(range, cost));
        }
        ranges
    }

    /// Where an action's association, latency and USD lie in their ranges, 0 to 1; 0 where that is not known.
    pub fn places(&self, facts: &Facts) -> [f64; 3] {
        let at = |value: Option<f64>, range| value.map_or(0.0, |value| f64::from(place(value, range)));
        [at(facts.association, self.association), at(facts.cost[0], self.cost[0]), at(facts.cost[1], self.cost[1])]
    }
}

impl Facts {
    /// Writes one action's inputs: [cloud, number of views.., views, association known, its place in the range, the
    /// sum itself], for each resource [known, place in the range, share of what is left per turn], then the slots.
    ///
    /// # Panics
    /// If `out` is not [`action_inputs`] long.
    pub fn write(&self, scene: &Scene<'_>, ranges: &Ranges, view_slots: usize, out: &mut [f32]) {
        assert_eq!(out.len(), action_inputs(view_slots), "inputs of one action");
        out.fill(0.0);
        out[0] = flag(self.cloud);
        if self.cloud {
            out[1 + self.views.len().min(COUNTS - 1)] = 1.0;
        }
        let rest = &mut out[1 + COUNTS..];
        rest[0] = self.views.len() as f32 / 4.0;
        if let Some(association) = self.association {
            rest[1] = 1.0;
            rest[2] = place(association, ranges.association);
            // Similarities of CLIP's kind are around .2 a view: a handful of views comes to about 1.
            rest[3] = association as f32;
        }
        let turns = f64::from(scene.following) + 1.0;
        let (costs, rest) = rest[4..].split_at_mut(3 * RESOURCES);
        for (resource, out) in costs.chunks_exact_mut(3).enumerate() {
            let Some(cost) = self.cost[resource] else { continue };
            out[0] = 1.0;
            out[1] = place(cost, ranges.cost[resource]);
            out[2] = scene.remaining[resource].map_or(0.0, |left| share(cost, left / turns));
        }
        slots(self.views, rest);
    }
}

fn flag(value: bool) -> f32 {
    f32::from(u8::from(value))
}

fn slots(views: ViewSet, out: &mut [f32]) {
    out.iter_mut().enumerate().for_each(|(view, out)| *out = flag(views.contains(view)));
}

fn widen(range: &mut [f64; 2], value: Option<f64>) {
    if let Some(value) = value {
        *range = [range[0].min(value), range[1].max(value)];
    }
}

/// Min-max, as in TMO's reward; 0 where the range is a point.
fn place(value: f64, [low, high]: [f64; 2]) -> f32 {
    if high > low { ((value - low) / (high - low)) as f32 } else { 0.0 }
}

/// `cost / (cost + left)`: 0 where it costs nothing, one half where it takes exactly its turn's share, towards 1 above.
fn share(cost: f64, left_per_turn: f64) -> f32 {
    if cost <= 0.0 {
        return 0.0;
    }
    if left_per_turn <= 0.0 { 1.0 } else { (cost / (cost + left_per_turn)) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(history: &[Past]) -> Scene<'_> {
        let remaining = [Some(10.0), None, None, None];
        let (following, following_known) = (1, true);
        Scene { history, before: history.len(), task: Some(2), view_count: 3, remaining, following, following_known }
    }

    #[test]
    fn every_input_is_finite_and_small_even_at_the_edges() {
        let past = Past { cloud: true, views: ViewSet(0b101), task: None };
        let history = [past; 7];
        let mut turn = [f32::NAN; turn_inputs(3)];
        scene(&history).write(3, &mut turn);
        assert!(turn.iter().all(|x| (0.0..=1.0).contains(x)), "{turn:?}");
        let broke = Scene { remaining: [Some(0.0), Some(-1.0), None, Some(0.0)], ..scene(&[]) };
        let facts = Facts {
            cloud: true,
            views: past.views,
            association: None,
            cost: [Some(1e300), None, Some(0.0), Some(0.0)],
        };
        let mut out = [f32::NAN; action_inputs(3)];
        facts.write(&broke, &Ranges::over([&facts]), 3, &mut out);
        assert!(out.iter().all(|x| (0.0..=1.0).contains(x)), "{out:?}");
    }

    #[test]
    fn unknown_is_flagged_and_never_a_cheap_zero() {
        let known = Facts { cloud: false, views: ViewSet::EMPTY, association: Some(0.0), cost: [Some(0.0); RESOURCES] };
        let unknown = Facts { association: None, cost: [None; RESOURCES], ..known };
        let write = |facts: &Facts| {
            let mut out = [0.0; action_inputs(0)];
            facts.write(&scene(&[]), &Ranges::over([&known, &unknown]), 0, &mut out);
            out
        };
        assert_ne!(write(&known), write(&unknown));
    }

    #[test]
    fn only_ratios_of_costs_matter() {
        let facts = |scale: f64| Facts {
            cloud: true,
            views: ViewSet(1),
            association: Some(0.2),
            cost: [Some(2.0 * scale); RESOURCES],
        };
        let write = |scale: f64| {
            let scene = Scene { remaining: [Some(10.0 * scale); RESOURCES], ..scene(&[]) };
            let cheap = Facts { cost: [Some(scale); RESOURCES], ..facts(scale) };
            let dear = Facts { cost: [Some(3.0 * scale); RESOURCES], ..facts(scale) };
            let mut out = [0.0; action_inputs(1)];
            facts(scale).write(&scene, &Ranges::over([&facts(scale), &cheap, &dear]), 1, &mut out);
            out
        };
        assert_eq!(write(1.0), write(1024.0));
    }
}
