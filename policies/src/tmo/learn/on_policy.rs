//! What A2C and PPO share: act for some steps, estimate advantages, update, again (SB3: on_policy_algorithm.py).

use super::advantage::Advantages;
use super::multipliers::{MultiplierSettings, Multipliers};
use super::network::PlainActorCritic;
use super::progress::{Point, Progress, Tracker};
use super::rollout::{Experience, Rollout};
use super::world::World;
use crate::tmo::perceptron::Scratch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How overspending is held against a learner. The journal's form needs nothing here: its budgets are in the world's
/// observations and rewards.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Constraint<const R: usize> {
    #[default]
    None,
    /// FAULT 1, kept to show it: the conference's penalty, weights times mean costs, is added to the loss as a number
    /// that depends on no parameter, so its gradient is 0 and the parameters come out as without it.
    Conference { weights: [f32; R] },
    /// Multipliers on the mean costs of a step, see [`super::multipliers`].
    PrimalDual { limits: [f32; R], settings: MultiplierSettings },
}

impl<const R: usize> Constraint<R> {
    /// With all at 0, and never moved where there is no primal-dual constraint: the reward is left as it is.
    pub(crate) fn multipliers(&self) -> Multipliers<R> {
        match *self {
            Constraint::PrimalDual { limits, settings } => Multipliers::new(limits, settings),
            _ => Multipliers::new([0.0; R], MultiplierSettings { rate: 0.0, max: 0.0 }),
        }
    }

    pub(crate) fn penalty(&self, mean_costs: &[f32; R]) -> f32 {
        match self {
            Constraint::Conference { weights } => weights.iter().zip(mean_costs).map(|(w, cost)| w * cost).sum(),
            _ => 0.0,
        }
    }
}

/// The schedule of an on-policy learner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub seed: u64,
    /// Steps in all; the last rollout is finished beyond it.
    pub total_steps: usize,
    /// Steps between two updates.
    pub rollout_steps: usize,
    /// Gamma.
    pub discount: f32,
    /// Of GAE.
    pub lambda: f32,
}

/// An observation as numbers.
pub type Numbers = Box<[f32]>;

/// Takes a rollout, changes the network.
pub trait Update<const R: usize> {
    /// The network that acts.
    fn network(&self) -> &PlainActorCritic;
    /// `penalty` is to be added to the loss as it is.
    fn update(&mut self, rollout: &Rollout<Numbers, R>, advantages: &Advantages, penalty: f32, random: &mut ChaCha8Rng);
}

/// What training leaves beside the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained<N, const R: usize> {
    pub network: N,
    pub curve: Vec<Point>,
    pub multipliers: [f32; R],
    /// Loss penalties of the conference's form, summed: they were there, and did nothing.
    pub penalties: f64,
}

/// Runs the schedule.
pub(crate) fn train<const R: usize>(
    world: &mut impl World<R>,
    learner: &mut impl Update<R>,
    schedule: &Schedule,
    constraint: &Constraint<R>,
    random: &mut ChaCha8Rng,
    report: &mut dyn FnMut(&Progress),
) -> Trained<PlainActorCritic, R> {
    let mut multipliers = constraint.multipliers();
    let mut penalties = 0.0;
    let mut tracker = Tracker::new(schedule.total_steps);
    let mut actor = Acting::new(world, learner.network(), random);
    while tracker.steps() < schedule.total_steps {
        let (rollout, next_value) =
            actor.collect(world, learner.network(), schedule.rollout_steps, random, &mut tracker);
        let reward = |step: &Experience<Numbers, R>| multipliers.penalised(step.reward, &step.costs);
        let advantages = rollout.advantages(reward, next_value, schedule.discount, schedule.lambda);
        let mean_costs = rollout.mean_costs();
        let penalty = constraint.penalty(&mean_costs);
        penalties += f64::from(penalty);
        learner.update(&rollout, &advantages, penalty, random);
        multipliers.ascend(&mean_costs, rollout.steps.len());
        report(&tracker.progress());
    }
    let network = learner.network().clone();
    Trained { network, curve: tracker.curve(), multipliers: multipliers.values, penalties }
}

/// The random numbers of a run.
pub(crate) fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Plays on where the last rollout ended.
struct Acting {
    observation: Numbers,
    actor: Scratch,
    critic: Scratch,
    logits: Vec<f32>,
}

impl Acting {
    fn new<const R: usize>(world: &mut impl World<R>, network: &PlainActorCritic, random: &mut ChaCha8Rng) -> Self {
        world.reset(random);
        let mut observation = vec![0.0; world.width()].into_boxed_slice();
        world.observe(&mut observation);
        let logits = vec![0.0; world.actions()];
        Acting { observation, actor: network.actor.scratch(), critic: network.critic.scratch(), logits }
    }

    /// Some steps, and the critic's value of what follows them.
    fn collect<const R: usize>(
        &mut self,
        world: &mut impl World<R>,
        network: &PlainActorCritic,
        steps: usize,
        random: &mut ChaCha8Rng,
        tracker: &mut Tracker,
    ) -> (Rollout<Numbers, R>, f32) {
        let mut rollout = Rollout::with_capacity(steps);
        for _ in 0..steps {
            network.actor.forward(&self.observation, &mut self.actor, &mut self.logits);
            let value = self.value(network);
            let (action, log_prob) = sample(&mut self.logits, random);
            let step = world.step(action, random);
            tracker.step(step.reward, step.end);
            let observation = self.observation.clone();
            if step.end {
                world.reset(random);
            }
            world.observe(&mut self.observation);
            let (reward, costs, end) = (step.reward, step.costs, step.end);
            rollout.steps.push(Experience { observation, action, log_prob, value, reward, costs, end });
        }
        (rollout, self.value(network))
    }

    fn value(&mut self, network: &PlainActorCritic) -> f32 {
        let mut value = [0.0];
        network.critic.forward(&self.observation, &mut self.critic, &mut value);
        value[0]
    }
}

/// An action by the softmax of the logits, and its log-probability; the logits become log-probabilities.
pub fn sample(logits: &mut [f32], random: &mut ChaCha8Rng) -> (usize, f32) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln();
    logits.iter_mut().for_each(|logit| *logit -= log_sum);
    let mut left: f32 = random.random();
    for (action, log_prob) in logits.iter().enumerate() {
        left -= log_prob.exp();
        if left < 0.0 {
            return (action, *log_prob);
        }
    }
    // Rounding left a little: the last action that is possible at all.
    let action = logits.iter().rposition(|log_prob| log_prob.is_finite()).unwrap_or(0);
    (action, logits[action])
}
