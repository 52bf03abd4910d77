//! Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017; SB3, ppo.py).

use super::advantage::Advantages;
use super::loss::{self, Parts, standardised};
use super::network::{ActorCritic, PlainActorCritic};
use super::on_policy::{self, Constraint, Numbers, Schedule, Trained, Update, seeded};
use super::progress::Progress;
use super::rollout::{Rollout, batches};
use super::training_device;
use super::weights::clip_norm;
use super::world::World;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PpoSettings {
    pub schedule: Schedule,
    pub learning_rate: f64,
    /// Steps in a gradient step, and passes over a rollout.
    pub batch: usize,
    pub epochs: usize,
    /// Epsilon of the surrogate.
    pub clip: f64,
    pub value: f64,
    pub entropy: f64,
    pub max_norm: f32,
    /// Of Adam.
    pub epsilon: f32,
}

impl PpoSettings {
    /// SB3's defaults, which the reference uses, over its 30,000 steps (15 rollouts: 30,720).
    pub fn reference(seed: u64) -> Self {
        PpoSettings {
            schedule: Schedule { seed, total_steps: 30_000, rollout_steps: 2_048, discount: 0.99, lambda: 0.95 },
            learning_rate: 3e-4,
            batch: 64,
            epochs: 10,
            clip: 0.2,
            value: 0.5,
            entropy: 0.0,
            max_norm: 0.5,
            epsilon: 1e-5,
        }
    }
}

/// Trains from new weights; the same settings and world give the same network.
pub fn train<const R: usize>(
    world: &mut impl World<R>,
    settings: &PpoSettings,
    constraint: &Constraint<R>,
    report: &mut dyn FnMut(&Progress),
) -> Trained<PlainActorCritic, R> {
    let mut random = seeded(settings.schedule.seed);
    let plain = PlainActorCritic::new(world.width(), world.actions(), &mut random);
    let mut learner = Ppo::new(plain, *settings);
    on_policy::train(world, &mut learner, &settings.schedule, constraint, &mut random, report)
}

/// Several passes over each rollout in random batches, through burn.
pub struct Ppo {
    settings: PpoSettings,
    device: Device,
    network: ActorCritic,
    optimizer: ModuleOptimizer,
    plain: PlainActorCritic,
}

impl Ppo {
    pub fn new(plain: PlainActorCritic, settings: PpoSettings) -> Self {
        let device = training_device();
        let network = ActorCritic::new(&plain, &device);
        let optimizer = AdamConfig::new().with_epsilon(settings.epsilon).init();
        Ppo { settings, device, network, optimizer, plain }
    }

    /// One gradient step on the steps `chosen`.
    fn descend<const R: usize>(
        &mut self,
        rollout: &Rollout<Numbers, R>,
        targets: &Advantages,
        chosen: &[usize],
        penalty: f32,
    ) {
        let steps = || chosen.iter().map(|&at| &rollout.steps[at]);
        let width = rollout.steps[0].observation.len();
        let observations = steps().flat_map(|step| step.observation.iter().copied()).collect();
        let actions: Vec<usize> = steps().map(|step| step.action).collect();
        let (logits, values) = self.network.forward(loss::rows(observations, width, &self.device));
        let judged = loss::judge(logits, values, loss::actions(&actions, &self.device));
        let of = |values: &[f32]| chosen.iter().map(|&at| values[at]).collect::<Vec<f32>>();
        let numbers = |values: Vec<f32>| loss::numbers(values, &self.device);
        let loss = loss::ppo(
            judged,
            numbers(steps().map(|step| step.log_prob).collect()),
            numbers(standardised(&of(&targets.advantages))),
            numbers(of(&targets.returns)),
            self.settings.clip,
            Parts { value: self.settings.value, entropy: self.settings.entropy },
        ) + penalty;
        let mut gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        clip_norm(&self.network, &mut gradients, self.settings.max_norm);
        self.network = self.optimizer.step(self.settings.learning_rate, self.network.clone(), gradients);
    }
}

impl<const R: usize> Update<R> for Ppo {
    fn network(&self) -> &PlainActorCritic {
        &self.plain
    }

    fn update(&mut self, rollout: &Rollout<Numbers, R>, targets: &Advantages, penalty: f32, random: &mut ChaCha8Rng) {
        for _ in 0..self.settings.epochs {
            for chosen in batches(rollout.steps.len(), self.settings.batch, random) {
                self.descend(rollout, targets, &chosen, penalty);
            }
        }
        self.network.copy_to(&mut self.plain);
    }
}
