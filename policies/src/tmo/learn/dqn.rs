//! Deep Q-learning with replay and a target network (Mnih et al. 2015; SB3, dqn.py).

use super::loss;
use super::network::{Mlp, q_network};
use super::on_policy::{Constraint, Trained, seeded};
use super::progress::{Progress, Tracker};
use super::replay::{Replay, Transition};
use super::training_device;
use super::weights::clip_norm;
use super::world::World;
use crate::tmo::perceptron::{Perceptron, Scratch};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use rand::Rng;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DqnSettings {
    pub seed: u64,
    pub total_steps: usize,
    pub discount: f32,
    pub learning_rate: f64,
    /// Transitions kept; the oldest make room.
    pub replay: usize,
    /// Random steps before the first update.
    pub learning_starts: usize,
    pub batch: usize,
    /// Steps between two updates, and between two copies of the network to the target (tau = 1).
    pub update_every: usize,
    pub target_every: usize,
    /// The share of random actions falls from 1 to `exploration_end` over the first `exploration_share` of the steps.
    pub exploration_share: f32,
    pub exploration_end: f32,
    pub max_norm: f32,
}

impl DqnSettings {
    /// SB3's defaults, which the reference uses, over its 30,000 steps.
    pub fn reference(seed: u64) -> Self {
        DqnSettings {
            seed,
            total_steps: 30_000,
            discount: 0.99,
            learning_rate: 1e-4,
            replay: 1_000_000,
            learning_starts: 100,
            batch: 32,
            update_every: 4,
            target_every: 10_000,
            exploration_share: 0.1,
            exploration_end: 0.05,
            max_norm: 10.0,
        }
    }

    /// The share of random actions at a step.
    pub fn exploration(&self, step: usize) -> f32 {
        let gone = step as f32 / (self.exploration_share * self.total_steps as f32).max(1.0);
        1.0 + (self.exploration_end - 1.0) * gone.min(1.0)
    }
}

/// Trains from new weights; the same settings and world give the same network.
pub fn train<const R: usize>(
    world: &mut impl World<R>,
    settings: &DqnSettings,
    constraint: &Constraint<R>,
    report: &mut dyn FnMut(&Progress),
) -> Trained<Perceptron, R> {
    let mut random = seeded(settings.seed);
    let mut multipliers = constraint.multipliers();
    let mut penalties = 0.0;
    let mut learner = Dqn::new(q_network(world.width(), world.actions(), &mut random), *settings);
    let mut replay = Replay::new(settings.replay);
    let mut tracker = Tracker::new(settings.total_steps);
    let mut since_update = Vec::with_capacity(settings.update_every);
    world.reset(&mut random);
    let mut observation = vec![0.0; world.width()].into_boxed_slice();
    world.observe(&mut observation);
    while tracker.steps() < settings.total_steps {
        let step = tracker.steps();
        let explore = step < settings.learning_starts || random.random::<f32>() < settings.exploration(step);
        let action = if explore { random.random_range(0..world.actions()) } else { learner.best(&observation) };
        let result = world.step(action, &mut random);
        tracker.step(result.reward, result.end);
        since_update.push(result.costs);
        let mut next = observation.clone();
        if result.end {
            // What follows an end is never looked at.
            world.reset(&mut random);
        }
        world.observe(&mut next);
        let (reward, costs, end) = (result.reward, result.costs, result.end);
        let before = std::mem::replace(&mut observation, next.clone());
        replay.push(Transition { observation: before, action, reward, costs, next, end });
        if tracker.steps().is_multiple_of(settings.target_every) {
            learner.copy_to_target();
        }
        if tracker.steps().is_multiple_of(settings.update_every) {
            let mean_costs = mean(&since_update);
            if tracker.steps() > settings.learning_starts {
                let penalty = constraint.penalty(&mean_costs);
                penalties += f64::from(penalty);
                let batch = replay.sample(settings.batch, &mut random);
                // The reward is penalised now, by the present multipliers, not when it was stored.
                let reward = |step: &Transition<R>| multipliers.penalised(step.reward, &step.costs);
                learner.update(&batch, reward, penalty);
            }
            multipliers.ascend(&mean_costs, since_update.len());
            since_update.clear();
            report(&tracker.progress());
        }
    }
    Trained { network: learner.plain, curve: tracker.curve(), multipliers: multipliers.values, penalties }
}

fn mean<const R: usize>(costs: &[[f32; R]]) -> [f32; R] {
    std::array::from_fn(|at| costs.iter().map(|costs| costs[at]).sum::<f32>() / costs.len().max(1) as f32)
}

/// The network that acts, the one that judges, and their optimiser.
struct Dqn {
    settings: DqnSettings,
    device: Device,
    network: Mlp,
    optimizer: ModuleOptimizer,
    plain: Perceptron,
    target: Perceptron,
    scratch: Scratch,
    values: Vec<f32>,
}

impl Dqn {
    fn new(plain: Perceptron, settings: DqnSettings) -> Self {
        let device = training_device();
        Dqn {
            network: Mlp::new(&plain, &device),
            optimizer: AdamConfig::new().with_epsilon(1e-8).init(),
            target: plain.clone(),
            scratch: plain.scratch(),
            values: vec![0.0; plain.outputs()],
            plain,
            device,
            settings,
        }
    }

    fn best(&mut self, observation: &[f32]) -> usize {
        self.plain.forward(observation, &mut self.scratch, &mut self.values);
        Perceptron::best(&self.values)
    }

    fn copy_to_target(&mut self) {
        self.target = self.plain.clone();
    }

    /// `Q(s, a)` towards `r + discount * max_a' Q_target(s', a')` (Mnih et al. 2015, algorithm 1).
    fn update<const R: usize>(
        &mut self,
        batch: &[&Transition<R>],
        reward: impl Fn(&Transition<R>) -> f32,
        penalty: f32,
    ) {
        let targets: Vec<f32> = batch
            .iter()
            .map(|step| {
                let later = if step.end { 0.0 } else { self.settings.discount * self.target_value(&step.next) };
                reward(step) + later
            })
            .collect();
        let width = batch[0].observation.len();
        let observations = batch.iter().flat_map(|step| step.observation.iter().copied()).collect();
        let actions: Vec<usize> = batch.iter().map(|step| step.action).collect();
        let values = self.network.forward(loss::rows(observations, width, &self.device));
        let taken = values.gather(1, loss::actions(&actions, &self.device)).squeeze_dim(1);
        let loss = loss::huber(taken, loss::numbers(targets, &self.device)) + penalty;
        let mut gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        clip_norm(&self.network, &mut gradients, self.settings.max_norm);
        self.network = self.optimizer.step(self.settings.learning_rate, self.network.clone(), gradients);
        self.network.copy_to(&mut self.plain);
    }

    fn target_value(&mut self, observation: &[f32]) -> f32 {
        self.target.forward(observation, &mut self.scratch, &mut self.values);
        self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}
