//! Paper mode as a stage: dialogues recombined from the training dialogues, the plan as teacher, and the scene that the
//! network sees of them.

use crate::tmo::data::{Dialogue, Turn};
use crate::tmo::learn::world::Step;
use crate::tmo::paper::{ACTIONS, Environment, SENT, VIEWS, level};
use crate::tmo::tether::config::Config;
use crate::tmo::tether::scene::{Facts, Past, Scene};
use crate::tmo::tether::train::plan::{Budget, Plan, TASKS, TURNS, Track};
use crate::tmo::tether::train::stage::{Look, Stage};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tether_protocol::ViewSet;

/// The config of a network of paper mode: its three views differ by their place, as the estimator's do.
pub fn config(tasks: &[String], hidden: usize) -> Config {
    let mut tasks = tasks.to_vec();
    tasks.truncate(TASKS);
    Config::new("tether-paper", tasks, VIEWS, hidden)
}

/// The nine actions of a turn, as the network sees them.
pub fn facts(environment: &Environment, turn: &Turn) -> [Facts; ACTIONS] {
    std::array::from_fn(|action| {
        let outcome = environment.priced(turn, action, 0.0);
        Facts {
            cloud: SENT[action].is_some(),
            views: SENT[action].unwrap_or(ViewSet::EMPTY),
            association: Some(outcome.association),
            cost: [Some(outcome.latency_s), Some(outcome.usage_usd), None, None],
        }
    })
}

pub fn scene<'a>(history: &'a [Past], task: usize, left: Budget, following: usize) -> Scene<'a> {
    Scene {
        history,
        before: history.len(),
        task: Some(task),
        view_count: VIEWS,
        remaining: [Some(left[0]), Some(left[1]), None, None],
        following: following as u32,
        following_known: true,
    }
}

pub fn past(action: usize, task: usize) -> Past {
    Past { cloud: SENT[action].is_some(), views: SENT[action].unwrap_or(ViewSet::EMPTY), task: Some(task) }
}

/// Dialogues whose tasks follow one another as in training and whose turns are the training turns, under one of the
/// plan's budgets.
pub struct PaperStage<'a> {
    environment: &'a Environment,
    plan: &'a Plan,
    /// The training turns of each task.
    turns: [Vec<&'a Turn>; TASKS],
    length: usize,
    budget: usize,
    left: Budget,
    track: Track,
    history: Vec<Past>,
    turn: &'a Turn,
}

impl<'a> PaperStage<'a> {
    /// Of at least one training dialogue.
    pub fn new(environment: &'a Environment, plan: &'a Plan, training: &[&'a Dialogue]) -> Self {
        let mut turns: [Vec<&Turn>; TASKS] = Default::default();
        training
            .iter()
            .flat_map(|dialogue| &dialogue.turns)
            .for_each(|turn| turns[turn.task.min(TASKS - 1)].push(turn));
        let turn = &training[0].turns[0];
        let (length, budget, left, track, history) = (1, 0, plan.budgets[0], Track::first(0), Vec::new());
        PaperStage { environment, plan, turns, length, budget, left, track, history, turn }
    }

    fn see(&mut self, task: usize, random: &mut ChaCha8Rng) {
        let known = &self.turns[task];
        if !known.is_empty() {
            self.turn = known[random.random_range(0..known.len())];
        }
    }

    fn open(&self) -> [bool; ACTIONS] {
        self.plan.purse.open(self.left, self.length - self.history.len() - 1)
    }
}

impl Stage<2> for PaperStage<'_> {
    fn begin(&mut self, random: &mut ChaCha8Rng) {
        self.length = 1 + drawn(&self.plan.chances.turns, random);
        self.budget = random.random_range(0..self.plan.budgets.len());
        self.left = self.plan.budgets[self.budget];
        let task = drawn(&self.plan.chances.first, random);
        self.track = Track::first(task);
        self.history.clear();
        self.see(task, random);
    }

    fn look(&self) -> Look {
        let scene = scene(&self.history, self.turn.task, self.left, self.length - self.history.len() - 1);
        Look::of(&scene, &facts(self.environment, self.turn), self.open().to_vec(), VIEWS, None)
    }

    fn expected(&mut self, _: &mut ChaCha8Rng) -> Vec<f32> {
        let mut sums = Vec::new();
        self.plan.neighbours.sums(self.track.codes(), &mut sums);
        let responses = self.plan.neighbours.responses(&sums);
        let later = self.plan.later(&self.track, self.length, self.budget);
        let value = |action: usize| {
            self.environment.priced(self.turn, action, f64::from(responses[action])).reward as f32 + later[action]
        };
        (0..ACTIONS).map(value).collect()
    }

    fn act(&mut self, action: usize, random: &mut ChaCha8Rng) -> Step<2> {
        let mut sums = Vec::new();
        self.plan.neighbours.sums(self.track.codes(), &mut sums);
        let response = f64::from(self.plan.neighbours.responses(&sums)[action]);
        let reward = self.environment.priced(self.turn, action, response).reward as f32;
        let (before, whole) = (self.left, self.plan.budgets[self.budget]);
        self.left = self.plan.purse.after(self.left, action);
        let over = |left: Budget, resource: usize| (-left[resource] / whole[resource]).max(0.0);
        let costs = std::array::from_fn(|r| (over(self.left, r) - over(before, r)) as f32);
        self.history.push(past(action, self.turn.task));
        let end = self.history.len() == self.length;
        if !end {
            let task = drawn(&self.plan.chances.next[self.turn.task.min(TASKS - 1)], random);
            self.track = self.track.then(action, task);
            self.see(task, random);
        }
        debug_assert!(self.history.len() <= TURNS && level(action) < VIEWS + 2);
        Step { reward, costs, end }
    }
}

/// A place, with its weight as chance; weights sum to 1.
fn drawn(weights: &[f64], random: &mut ChaCha8Rng) -> usize {
    let mut rest: f64 = random.random();
    let place = weights.iter().position(|weight| {
        rest -= weight;
        rest < 0.0
    });
    place.unwrap_or(weights.len() - 1)
}
