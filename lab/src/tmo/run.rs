//! One policy through dialogues of the published environment, under budgets.

use tether_policies::tmo::data::{Dialogue, Turn};
use tether_policies::tmo::paper::{Environment, Features, History};

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

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    pub turns: usize,
    pub dialogues: usize,
    /// Sum over dialogues of each one's mean reward per turn.
    pub reward: f64,
    pub latency_s: f64,
    pub usage_usd: f64,
    pub over: usize,
    pub refused: usize,
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
            reward += outcome.reward;
            score.latency_s += outcome.latency_s;
            score.usage_usd += outcome.usage_usd;
            left = [left[0] - outcome.latency_s, left[1] - outcome.usage_usd];
            history.acted(action);
        }
        score.dialogues += 1;
        score.reward += reward / dialogue.turns.len() as f64;
        score.over += usize::from(left.iter().any(|&resource| resource < -ROUNDING));
    }
    score
}
