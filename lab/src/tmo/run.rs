//! One policy through dialogues of the published environment, under budgets.

use tether_policies::tmo::data::{Dialogue, Turn};
use tether_policies::tmo::paper::{ACTIONS, Environment, Features, History};

/// Budgets of a dialogue: seconds and USD.
pub type Budget = [f64; 2];

/// What a decision sees.
pub struct Now<'a> {
    pub environment: &'a Environment,
    pub observation: &'a Features,
    pub history: &'a History,
    pub turn: &'a Turn,
    /// The turns after this one. Only an oracle may look at what is in them; others count them.
    pub rest: &'a [Turn],
    pub left: Budget,
}

pub trait Contender: Sync {
    fn name(&self) -> String;
    /// The action, or `None` to refuse the turn.
    fn choose(&self, now: &Now<'_>) -> Option<usize>;
}

impl<C: Contender> Contender for &C {
    fn name(&self) -> String {
        (**self).name()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        (**self).choose(now)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    pub turns: usize,
    pub dialogues: usize,
    /// Sum over dialogues of each one's mean reward per turn.
    pub reward: f64,
    pub latency_s: f64,
    pub usage_usd: f64,
    pub over: usize,
    pub refused: usize,
    /// Each dialogue's id and its mean reward per turn.
    pub rewards: Vec<(u64, f64)>,
    /// How often each action was taken.
    pub actions: [usize; ACTIONS],
    /// How far each dialogue was over a budget, as a share of it, the larger of the two; summed over all dialogues.
    pub overshoot: f64,
}

/// A refused turn scores the least reward: no response, full latency and usage.
const REFUSED_REWARD: f64 = -2.0 / 3.0;
/// Sums of floats that reach a budget exactly are not over it.
const ROUNDING: f64 = 1e-9;

/// Plays all dialogues and sums up.
pub fn play(contender: &dyn Contender, environment: &Environment, dialogues: &[&Dialogue], budget: Budget) -> Score {
    let mut score = Score::default();
    for dialogue in dialogues {
        let (mut history, mut left, mut reward) = (History::default(), budget, 0.0);
        for (at, turn) in dialogue.turns.iter().enumerate() {
            let observation = *history.observe(turn.task);
            let rest = &dialogue.turns[at + 1..];
            let now = Now { environment, observation: &observation, history: &history, turn, rest, left };
            score.turns += 1;
            let Some(action) = contender.choose(&now) else {
                score.refused += 1;
                reward += REFUSED_REWARD;
                history.acted(0);
                continue;
            };
            let outcome = environment.outcome(&observation, turn, action);
            score.actions[action] += 1;
            reward += outcome.reward;
            score.latency_s += outcome.latency_s;
            score.usage_usd += outcome.usage_usd;
            left = [left[0] - outcome.latency_s, left[1] - outcome.usage_usd];
            history.acted(action);
        }
        score.dialogues += 1;
        let reward = reward / dialogue.turns.len() as f64;
        score.reward += reward;
        score.rewards.push((dialogue.id, reward));
        score.overshoot += (0..2).map(|at| -left[at] / budget[at]).fold(0.0, f64::max);
        score.over += usize::from(left.iter().any(|&resource| resource < -ROUNDING));
    }
    score
}
