//! Advantage actor-critic (Mnih et al. 2016, synchronous; SB3, a2c.py).

use super::advantage::Advantages;
use super::loss::{self, Parts};
use super::network::{ActorCritic, PlainActorCritic};
use super::on_policy::{self, Constraint, Numbers, Schedule, Trained, Update, seeded};
use super::progress::Progress;
use super::rollout::Rollout;
use super::training_device;
use super::weights::clip_norm;
use super::world::World;
use burn::optim::{GradientsParams, ModuleOptimizer, RmsPropConfig};
use burn::tensor::Device;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct A2cSettings {
    pub schedule: Schedule,
    pub learning_rate: f64,
    /// Weight of the critic's loss, and of the entropy.
    pub value: f64,
    pub entropy: f64,
    /// The gradients' joint norm is cut to this.
    pub max_norm: f32,
    /// Of RMSProp: memory of the squares, and what keeps the quotient finite.
    pub smoothing: f32,
    pub epsilon: f32,
}

impl A2cSettings {
    /// SB3's defaults, which the reference uses, over its 30,000 steps.
    pub fn reference(seed: u64) -> Self {
        A2cSettings {
            schedule: Schedule { seed, total_steps: 30_000, rollout_steps: 5, discount: 0.99, lambda: 1.0 },
            learning_rate: 7e-4,
            value: 0.5,
            entropy: 0.0,
            max_norm: 0.5,
            smoothing: 0.99,
            epsilon: 1e-5,
        }
    }
}

/// Trains from new weights; the same settings and world give the same network.
pub fn train<const R: usize>(
    world: &mut impl World<R>,
    settings: &A2cSettings,
    constraint: &Constraint<R>,
    report: &mut dyn FnMut(&Progress),
) -> Trained<PlainActorCritic, R> {
    let mut random = seeded(settings.schedule.seed);
    let plain = PlainActorCritic::new(world.width(), world.actions(), &mut random);
    let mut learner = A2c::new(plain, *settings);
    on_policy::train(world, &mut learner, &settings.schedule, constraint, &mut random, report)
}

/// One gradient step per rollout, through burn.
pub struct A2c {
    settings: A2cSettings,
    device: Device,
    network: ActorCritic,
    optimizer: ModuleOptimizer,
    plain: PlainActorCritic,
}

impl A2c {
    pub fn new(plain: PlainActorCritic, settings: A2cSettings) -> Self {
        let device = training_device();
        let network = ActorCritic::new(&plain, &device);
        let rms_prop =
            RmsPropConfig::new().with_alpha(settings.smoothing).with_epsilon(settings.epsilon).with_momentum(0.0);
        A2c { settings, device, network, optimizer: rms_prop.init(), plain }
    }
}

impl<const R: usize> Update<R> for A2c {
    fn network(&self) -> &PlainActorCritic {
        &self.plain
    }

    fn update(&mut self, rollout: &Rollout<Numbers, R>, targets: &Advantages, penalty: f32, _: &mut ChaCha8Rng) {
        let width = rollout.steps[0].observation.len();
        let observations = rollout.steps.iter().flat_map(|step| step.observation.iter().copied()).collect();
        let actions: Vec<usize> = rollout.steps.iter().map(|step| step.action).collect();
        let (logits, values) = self.network.forward(loss::rows(observations, width, &self.device));
        let judged = loss::judge(logits, values, loss::actions(&actions, &self.device));
        let numbers = |values: &[f32]| loss::numbers(values, &self.device);
        let parts = Parts { value: self.settings.value, entropy: self.settings.entropy };
        let loss = loss::a2c(judged, numbers(&targets.advantages), numbers(&targets.returns), parts) + penalty;
        let mut gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        clip_norm(&self.network, &mut gradients, self.settings.max_norm);
        self.network = self.optimizer.step(self.settings.learning_rate, self.network.clone(), gradients);
        self.network.copy_to(&mut self.plain);
    }
}
