//! A2C in the honest environment: the published learner with its observation and what remains of each budget, on one
//! profile. A rival of the tether policy.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tether_policies::tmo::data::Dialogue;
use tether_policies::tmo::honest::link::Costs;
use tether_policies::tmo::honest::moment::{Moment, spend};
use tether_policies::tmo::honest::play::{Now, Scoring};
use tether_policies::tmo::honest::scenario::budget;
use tether_policies::tmo::learn::a2c::{self, A2cSettings};
use tether_policies::tmo::learn::network::PlainActorCritic;
use tether_policies::tmo::learn::on_policy::Constraint;
use tether_policies::tmo::learn::world::{Step, World};
use tether_policies::tmo::paper::{ACTIONS, History, OBSERVATION, SENT, VIEWS};
use tether_policies::tmo::tether::scene::{Amounts, Past, RESOURCES};

/// What an unlimited budget looks like: twice five of the dearest action.
const UNLIMITED: f64 = 2.0;
const TURNS: f64 = 5.0;

/// The published observation, then what remains of each budget as a share of five turns at the dearest action.
fn numbers(features: &[f64; OBSERVATION], remaining: &Amounts, costs: &Costs) -> Vec<f32> {
    let share = |r: usize| {
        let dearest = costs.levels(VIEWS).map(|cost| cost[r]).fold(f64::MIN_POSITIVE, f64::max);
        remaining[r].map_or(UNLIMITED, |left| left / (TURNS * dearest))
    };
    features.iter().copied().chain((0..RESOURCES).map(share)).map(|value| value as f32).collect()
}

/// Training dialogues under random budgets that can be served; a step over a budget earns 0, as in the journal's form. The
/// next observation tells of the action taken.
struct HonestWorld<'a> {
    dialogues: &'a [&'a Dialogue],
    scoring: Scoring<'a>,
    at: (usize, usize),
    remaining: Amounts,
    history: History,
}

impl HonestWorld<'_> {
    fn moment(&self) -> Moment {
        let turn = &self.dialogues[self.at.0].turns[self.at.1];
        let Scoring { model, costs, actions, weights } = self.scoring;
        Moment::new(Some(turn.task), &turn.association, actions, costs, model, weights)
    }
}

impl World<0> for HonestWorld<'_> {
    fn width(&self) -> usize {
        OBSERVATION + RESOURCES
    }

    fn actions(&self) -> usize {
        ACTIONS
    }

    fn reset(&mut self, random: &mut ChaCha8Rng) {
        self.at = (random.random_range(0..self.dialogues.len()), 0);
        let turns = &self.dialogues[self.at.0].turns;
        self.remaining = budget(self.scoring.costs, VIEWS, turns.len(), random);
        self.history = History::default();
        self.history.observe(turns[0].task);
    }

    fn observe(&self, into: &mut [f32]) {
        into.copy_from_slice(&numbers(self.history.features(), &self.remaining, self.scoring.costs));
    }

    fn step(&mut self, action: usize, _: &mut ChaCha8Rng) -> Step<0> {
        let moment = self.moment();
        self.remaining = spend(&self.remaining, &moment.facts[action].cost);
        let over = self.remaining.iter().flatten().any(|&left| left < 0.0);
        self.history.acted(action);
        self.at.1 += 1;
        let turns = &self.dialogues[self.at.0].turns;
        let end = self.at.1 == turns.len();
        if end {
            // The observation after an end is not looked at; it must exist.
            self.at.1 = 0;
        }
        self.history.observe(turns[self.at.1].task);
        Step { reward: if over { 0.0 } else { moment.rewards[action] as f32 }, costs: [], end }
    }
}

pub struct A2c(PlainActorCritic);

impl A2c {
    /// 30,000 steps with the reference's hyperparameters.
    pub fn train(dialogues: &[&Dialogue], scoring: Scoring<'_>, seed: u64) -> A2c {
        let mut world =
            HonestWorld { dialogues, scoring, at: (0, 0), remaining: [None; RESOURCES], history: History::default() };
        A2c(a2c::train(&mut world, &A2cSettings::reference(seed), &Constraint::None, &mut |_| {}).network)
    }

    /// The logit of each action.
    pub fn logits(&self, now: &Now<'_>, costs: &Costs) -> Vec<f64> {
        let mut history = History::default();
        for past in now.scene.history {
            history.observe(past.task.unwrap_or(0));
            history.acted(number(past));
        }
        let features = history.observe(now.scene.task.unwrap_or(0));
        let input = numbers(features, &now.scene.remaining, costs);
        let mut logits = vec![0.0; ACTIONS];
        self.0.actor.forward(&input, &mut self.0.actor.scratch(), &mut logits);
        logits.into_iter().map(f64::from).collect()
    }
}

fn number(past: &Past) -> usize {
    let sent = past.cloud.then_some(past.views);
    SENT.iter().position(|&known| known == sent).unwrap_or(0)
}
