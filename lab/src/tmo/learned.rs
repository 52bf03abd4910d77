//! The reference's learners as contenders: what to train, and what came of it.

mod file;

pub use file::{KIND, Saved, load, save};

use super::run::{Budget, Contender, Now};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tether_policies::tmo::checkpoint::Arrays;
use tether_policies::tmo::data::Dialogue;
use tether_policies::tmo::learn::a2c::{self, A2cSettings};
use tether_policies::tmo::learn::dqn::{self, DqnSettings};
use tether_policies::tmo::learn::multipliers::MultiplierSettings;
use tether_policies::tmo::learn::on_policy::Constraint;
use tether_policies::tmo::learn::paper_world::{Draw, Form, PaperWorld, RESOURCES, observation};
use tether_policies::tmo::learn::ppo::{self, PpoSettings};
use tether_policies::tmo::learn::progress::{Point, Progress};
use tether_policies::tmo::paper::{ACTIONS, Environment};
use tether_policies::tmo::perceptron::Perceptron;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    A2c,
    Ppo,
    Dqn,
}

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Algorithm::A2c, Algorithm::Ppo, Algorithm::Dqn];

    fn name(self) -> &'static str {
        match self {
            Algorithm::A2c => "A2C",
            Algorithm::Ppo => "PPO",
            Algorithm::Dqn => "DQN",
        }
    }
}

/// What is done about budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Handling {
    /// Nothing.
    None,
    /// The journal paper's: what remains is observed, a step over a budget earns nothing.
    Journal,
    /// The conference paper's penalty, which has no gradient (fault 1): the same policy as without it.
    Conference,
    /// A multiplier for each budget, raised while training overspends it.
    PrimalDual,
}

/// One training run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub algorithm: Algorithm,
    pub handling: Handling,
    pub seed: u64,
    pub steps: usize,
    /// Of the journal's initial budgets.
    pub draw: Draw,
    /// Seconds and USD that the conference's penalty and the multipliers are about.
    pub budget: Budget,
}

/// The reference's number of steps, and the paper's budgets.
pub const STEPS: usize = 30_000;
pub const BUDGET: Budget = [30.0, 0.05];
/// The conference's weight on overspent seconds; 1,000 times that on USD.
const PENALTY: f32 = 10.0;
/// Mean overspending of a step that multipliers permit, as a share of the budget: a limit of 0 could only raise them.
const SLACK: f32 = 0.002;

impl Plan {
    pub fn new(algorithm: Algorithm, handling: Handling, seed: u64) -> Plan {
        Plan { algorithm, handling, seed, steps: STEPS, draw: Draw::Normal, budget: BUDGET }
    }

    /// Plain and journal forms of all three: what the reference's figures are of.
    pub fn reference(seed: u64) -> Vec<Plan> {
        let of = |handling| Algorithm::ALL.map(|algorithm| Plan::new(algorithm, handling, seed));
        [of(Handling::None), of(Handling::Journal)].concat()
    }

    pub fn name(&self) -> String {
        let name = self.algorithm.name();
        match self.handling {
            Handling::None => name.to_owned(),
            Handling::Journal => format!("RC-{name} (journal)"),
            Handling::Conference => format!("RC-{name} (conference)"),
            Handling::PrimalDual => format!("{name} (primal-dual, {} s / {})", self.budget[0], self.budget[1]),
        }
    }

    /// How this plan's policy sees the world.
    pub fn form(&self) -> Form {
        match self.handling {
            Handling::Journal => Form::Journal { draw: self.draw },
            _ => Form::Plain { budget: self.budget },
        }
    }

    fn constraint(&self) -> Constraint<RESOURCES> {
        let [latency_s, usage_usd] = self.budget.map(|budget| budget as f32);
        match self.handling {
            Handling::None | Handling::Journal => Constraint::None,
            // Costs are shares of the budgets; the conference counts seconds and thousandths of a USD.
            Handling::Conference => {
                Constraint::Conference { weights: [PENALTY * latency_s, PENALTY * 1_000.0 * usage_usd] }
            }
            Handling::PrimalDual => {
                Constraint::PrimalDual { limits: [SLACK; RESOURCES], settings: MultiplierSettings::default() }
            }
        }
    }

    /// Trains on the dialogues that the environment's estimator was fitted to.
    pub fn train(
        &self,
        environment: &Environment,
        training: &[&Dialogue],
        report: &mut dyn FnMut(&Progress),
    ) -> Learned {
        let mut world = PaperWorld::new(environment, training, self.form());
        let constraint = self.constraint();
        match self.algorithm {
            Algorithm::A2c => {
                let mut settings = A2cSettings::reference(self.seed);
                settings.schedule.total_steps = self.steps;
                let trained = a2c::train(&mut world, &settings, &constraint, report);
                let arrays = trained.network.to_arrays();
                Learned::new(self, trained.network.actor, arrays, trained.curve, trained.multipliers)
            }
            Algorithm::Ppo => {
                let mut settings = PpoSettings::reference(self.seed);
                settings.schedule.total_steps = self.steps;
                let trained = ppo::train(&mut world, &settings, &constraint, report);
                let arrays = trained.network.to_arrays();
                Learned::new(self, trained.network.actor, arrays, trained.curve, trained.multipliers)
            }
            Algorithm::Dqn => {
                let settings = DqnSettings { total_steps: self.steps, ..DqnSettings::reference(self.seed) };
                let trained = dqn::train(&mut world, &settings, &constraint, report);
                let arrays = trained.network.to_arrays("q");
                Learned::new(self, trained.network, arrays, trained.curve, trained.multipliers)
            }
        }
    }
}

/// A trained policy, its weights as they are saved, and how training went.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    pub plan: Plan,
    /// Logits, or Q-values: the largest is taken.
    actor: Perceptron,
    arrays: Arrays,
    pub curve: Vec<Point>,
    pub multipliers: [f32; RESOURCES],
}

impl Learned {
    fn new(
        plan: &Plan,
        actor: Perceptron,
        arrays: Arrays,
        curve: Vec<Point>,
        multipliers: [f32; RESOURCES],
    ) -> Learned {
        Learned { plan: *plan, actor, arrays, curve, multipliers }
    }
}

impl Contender for Learned {
    fn name(&self) -> String {
        self.plan.name()
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        let input = observation(&self.plan.form(), now.observation, now.left);
        let mut values = [0.0; ACTIONS];
        self.actor.forward(&input, &mut self.actor.scratch(), &mut values);
        Some(Perceptron::best(&values))
    }
}
