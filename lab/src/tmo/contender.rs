//! The baselines: what any learned policy has to beat, and the bounds that none can pass.

use super::run::{Budget, Contender, Now};
use tether_policies::tmo::data::{Dialogue, Turn};
use tether_policies::tmo::mask::permitted;
use tether_policies::tmo::paper::{ACTIONS, Environment, History, level};

/// The actions after which the turns left can still be paid.
pub fn mask(environment: &Environment, left: Budget, turns_after: usize) -> [bool; ACTIONS] {
    let profile = &environment.profile;
    let levels: Vec<Budget> = profile.latency_s.into_iter().zip(profile.usage_usd).map(|(s, usd)| [s, usd]).collect();
    let open = permitted(&levels, &levels, left, turns_after);
    std::array::from_fn(|action| open[level(action)])
}

/// The open action of the largest value.
pub fn best(values: &[f64; ACTIONS], open: &[bool; ACTIONS]) -> Option<usize> {
    (0..ACTIONS).filter(|&action| open[action]).max_by(|&a, &b| values[a].total_cmp(&values[b]))
}

pub struct Constant(pub usize);

impl Contender for Constant {
    fn name(&self) -> String {
        match self.0 {
            0 => "local".to_owned(),
            action => format!("always action {action}"),
        }
    }

    fn choose(&self, _: &Now<'_>) -> Option<usize> {
        Some(self.0)
    }
}

/// By chance, decided by what the turn is, so that a run can be repeated.
pub enum Chance {
    /// Local half of the time, else as [`Chance::Cloud`] (reference: Random).
    Any { seed: u64 },
    /// Uniform over the eight ways to use the cloud.
    Cloud { seed: u64 },
}

impl Contender for Chance {
    fn name(&self) -> String {
        match self {
            Chance::Any { .. } => "random",
            Chance::Cloud { .. } => "cloud",
        }
        .to_owned()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        let (Chance::Any { seed } | Chance::Cloud { seed }) = *self;
        let drawn = drawn(seed, now);
        let cloud = 1 + (drawn >> 1) % (ACTIONS - 1);
        let local = matches!(self, Chance::Any { .. }) && drawn.is_multiple_of(2);
        Some(if local { 0 } else { cloud })
    }
}

/// SplitMix64 over the bits of what the decision sees.
fn drawn(seed: u64, now: &Now<'_>) -> usize {
    let bits = now.observation.iter().chain(&now.turn.association).map(|value| value.to_bits());
    let state = bits.fold(seed, |state, bits| {
        let mut z = (state ^ bits).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    (state >> 33) as usize
}

/// The best action of each task, learned from the training dialogues: each task's best mean reward over their turns,
/// first turns and later ones alike, with the logged history.
pub struct TaskTable {
    actions: Vec<usize>,
}

impl TaskTable {
    pub fn learn(environment: &Environment, training: &[&Dialogue]) -> TaskTable {
        TaskTable { actions: sums(environment, training).into_iter().map(|sums| top(&sums)).collect() }
    }
}

/// The constant of the best mean reward on the training dialogues.
pub fn best_constant(environment: &Environment, training: &[&Dialogue]) -> usize {
    let mut all = [0.0; ACTIONS];
    sums(environment, training).iter().for_each(|sums| (0..ACTIONS).for_each(|action| all[action] += sums[action]));
    top(&all)
}

fn top(values: &[f64; ACTIONS]) -> usize {
    best(values, &[true; ACTIONS]).unwrap_or(0)
}

/// Sum of rewards by task and action, each action played throughout.
fn sums(environment: &Environment, training: &[&Dialogue]) -> Vec<[f64; ACTIONS]> {
    let tasks = training.iter().flat_map(|dialogue| &dialogue.turns).map(|turn| turn.task + 1).max().unwrap_or(0);
    let mut sums = vec![[0.0; ACTIONS]; tasks];
    for dialogue in training {
        (0..ACTIONS).for_each(|action| {
            let mut history = History::default();
            for turn in &dialogue.turns {
                let observation = *history.observe(turn.task);
                let reward = environment.outcome(&observation, turn, action).reward;
                sums[turn.task][action] += reward;
                history.acted(action);
            }
        });
    }
    sums
}

impl Contender for TaskTable {
    fn name(&self) -> String {
        "task table".to_owned()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        Some(self.actions.get(now.turn.task).copied().unwrap_or(0))
    }
}

/// Asks the evaluating estimator about every action and takes the best now.
pub struct Greedy {
    pub masked: bool,
}

impl Contender for Greedy {
    fn name(&self) -> String {
        if self.masked { "greedy on the estimator, masked" } else { "greedy on the estimator" }.to_owned()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        let open = if self.masked { mask(now.environment, now.left, now.rest.len()) } else { [true; ACTIONS] };
        let rewards = now.environment.outcomes(now.observation, now.turn).map(|outcome| outcome.reward);
        best(&rewards, &open)
    }
}

/// Knows the whole dialogue and the evaluating estimator: the bound.
pub struct Optimum {
    pub budgets: bool,
}

impl Contender for Optimum {
    fn name(&self) -> String {
        if self.budgets { "exhaustive optimum within budget" } else { "exhaustive optimum, no budget" }.to_owned()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        let left = if self.budgets { now.left } else { [f64::INFINITY; 2] };
        // The history in `now` has already observed this turn.
        search(now.environment, now.history, now.turn, now.rest, left).map(|(_, action)| action)
    }
}

/// The best sum of rewards from this turn on, and its first action.
fn search(
    environment: &Environment,
    history: &History,
    turn: &Turn,
    rest: &[Turn],
    left: Budget,
) -> Option<(f64, usize)> {
    let outcomes = environment.outcomes(history.features(), turn);
    let mut best: Option<(f64, usize)> = None;
    for (action, outcome) in outcomes.iter().enumerate() {
        let left = [left[0] - outcome.latency_s, left[1] - outcome.usage_usd];
        if left.iter().any(|&resource| resource < 0.0) {
            continue;
        }
        let mut sum = outcome.reward;
        if let [next, rest @ ..] = rest {
            let mut history = history.clone();
            history.acted(action);
            history.observe(next.task);
            let Some((later, _)) = search(environment, &history, next, rest, left) else { continue };
            sum += later;
        }
        if best.is_none_or(|(known, _)| sum > known) {
            best = Some((sum, action));
        }
    }
    best
}
