//! Training: imitate a teacher, then proximal policy optimisation with multipliers.

use crate::tmo::learn::loss::{self, Parts, standardised};
use crate::tmo::learn::multipliers::{MultiplierSettings, Multipliers};
use crate::tmo::learn::rollout::{Experience, Rollout, batches};
use crate::tmo::learn::training_device;
use crate::tmo::learn::weights::{arrays, clip_norm, with_arrays};
use crate::tmo::tether::config::Config;
use crate::tmo::tether::network::Network;
use crate::tmo::tether::policy::MAX_ACTIONS;
use crate::tmo::tether::train::net::TetherNet;
use crate::tmo::tether::train::stage::{Look, Stage};
use crate::tmo::tether::weights::LoadError;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, activation::log_softmax};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A score is in units of reward; a logit is this many times a score, in training: differences of .05, about a tenth
/// of a turn's range of rewards, are worth a factor e.
const LOGITS_PER_SCORE: f64 = 20.0;
/// What a closed action's logit becomes.
const CLOSED: f32 = -1e9;
/// Weight of the loss that also asks the network itself to stay within budgets: the mask holds them, this makes the
/// scores of what does not fit low, and gives PPO, which acts without the mask, a start.
const UNMASKED: f64 = 0.1;
/// Weight of the squared error of the scores' differences within a turn: cross-entropy alone puts the best action first and
/// leaves the distances between the others to chance, but shadow prices and ratings are added to them.
const DISTANCE: f64 = 10.0;
/// Weight of the value head's squared error.
const VALUE: f64 = 0.25;
/// Gradients' joint norm is cut to this (SB3's 0.5 is for smaller losses).
const MAX_NORM: f32 = 1.0;

/// What is done, with the seed that decides all of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub seed: u64,
    /// Decisions in a gradient step.
    pub batch: usize,
    /// Gradient steps of imitation; the rate falls from `learning_rate` to a twentieth along half a cosine.
    pub imitation: usize,
    pub learning_rate: f64,
    /// Share of decisions of imitation that are taken at random, so that the network sees what follows mistakes.
    pub stray: f64,
    /// Rollouts of PPO, and decisions in each; 0 rollouts leave PPO out.
    pub rollouts: usize,
    pub rollout: usize,
    pub ppo_rate: f64,
    pub epochs: usize,
    pub clip: f64,
    pub entropy: f64,
}

impl Recipe {
    pub fn new(seed: u64) -> Recipe {
        Recipe {
            seed,
            batch: 256,
            imitation: 1_500,
            learning_rate: 3e-3,
            stray: 0.1,
            rollouts: 10,
            rollout: 2_048,
            ppo_rate: 1e-4,
            epochs: 4,
            clip: 0.1,
            entropy: 0.0,
        }
    }

    /// Gradient steps of both parts, for a progress bar.
    pub fn steps(&self) -> usize {
        self.imitation + self.rollouts * self.epochs * self.rollout.div_ceil(self.batch)
    }
}

/// How far training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub step: usize,
    pub steps: usize,
    /// Of the newest batch.
    pub loss: f32,
}

pub struct Trainer {
    config: Config,
    recipe: Recipe,
    device: Device,
    net: TetherNet,
    optimizer: ModuleOptimizer,
    random: ChaCha8Rng,
    step: usize,
}

impl Trainer {
    pub fn new(config: Config, recipe: Recipe) -> Trainer {
        let device = training_device();
        let random = ChaCha8Rng::seed_from_u64(recipe.seed);
        let net = TetherNet::new(&config, &device);
        let mut trainer = Trainer { config, recipe, device, net, optimizer: AdamConfig::new().init(), random, step: 0 };
        trainer.initialise();
        trainer
    }

    /// Weights from our own seed, uniform in `+-1/sqrt(inputs)`: burn's generator is one for the whole process.
    fn initialise(&mut self) {
        let mut found = arrays(&self.net);
        for array in found.values_mut() {
            let inputs = if array.shape.len() > 1 { array.shape[0] } else { self.config.hidden };
            let reach = 1.0 / (inputs as f32).sqrt();
            array.values.iter_mut().for_each(|value| *value = self.random.random_range(-reach..reach));
        }
        self.net = with_arrays(self.net.clone(), &found);
    }

    /// Both parts; the weights' bytes. The same recipe, config and stage give the same bytes on the same machine.
    pub fn run<const R: usize>(
        mut self,
        stage: &mut impl Stage<R>,
        report: &mut dyn FnMut(&Progress),
    ) -> Result<Vec<u8>, LoadError> {
        self.imitate(stage, report);
        self.improve(stage, report);
        self.net.to_bytes(&self.config)
    }

    fn imitate<const R: usize>(&mut self, stage: &mut impl Stage<R>, report: &mut dyn FnMut(&Progress)) {
        for step in 0..self.recipe.imitation {
            let (looks, expected) = self.lessons(stage);
            let done = step as f64 / self.recipe.imitation as f64;
            let rate = self.recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()));
            let loss = self.imitation_loss(&looks, &expected);
            let value = self.descend(loss, rate, step % 20 == 0);
            self.tell(value, report);
        }
    }

    /// A batch of decisions along the teacher's way, with what it expects of each action.
    fn lessons<const R: usize>(&mut self, stage: &mut impl Stage<R>) -> (Vec<Look>, Vec<Vec<f32>>) {
        let random = &mut self.random;
        stage.deal(random);
        stage.begin(random);
        let (mut looks, mut all) = (Vec::new(), Vec::new());
        while looks.len() < self.recipe.batch {
            let look = stage.look();
            if !look.open.contains(&true) {
                stage.begin(random);
                continue;
            }
            let expected = stage.expected(random);
            let stray = random.random_bool(self.recipe.stray);
            let liked = |n: usize| if stray { 0.0 } else { expected[n] * LOGITS_PER_SCORE as f32 };
            let logits: Vec<f32> = (0..expected.len()).map(|n| if look.open[n] { liked(n) } else { CLOSED }).collect();
            let action = draw(&logits, random);
            looks.push(look);
            all.push(expected);
            if stage.act(action, random).end {
                stage.begin(random);
            }
        }
        (looks, all)
    }

    fn forward(&self, looks: &[&Look]) -> (Tensor<2>, Tensor<1>) {
        let (turn, action) = self.config.inputs();
        let all = |part: fn(&Look) -> &[f32]| looks.iter().flat_map(|look| part(look).iter().copied()).collect();
        let turns = loss::rows(all(|look| &look.turn), turn, &self.device);
        let actions = loss::rows(all(|look| &look.actions), action, &self.device);
        let (scores, values) = self.net.forward(turns, actions);
        let base = loss::rows(all(|look| &look.base), looks[0].open.len(), &self.device);
        ((scores + base) * LOGITS_PER_SCORE, values)
    }

    /// Cross-entropy against the teacher's `softmax(expected * LOGITS_PER_SCORE)` among the open actions, and the value
    /// head against the teacher's best.
    fn imitation_loss(&self, looks: &[Look], expected: &[Vec<f32>]) -> Tensor<1> {
        let count = looks[0].open.len();
        let (logits, values) = self.forward(&looks.iter().collect::<Vec<_>>());
        let (mut targets, mut masks, mut bests) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wanted, mut shares) = (Vec::new(), Vec::new());
        for (look, expected) in looks.iter().zip(expected) {
            let open = || (0..count).filter(|&n| look.open[n]);
            let best = open().map(|n| expected[n]).fold(f32::MIN, f32::max);
            let weight = |n: usize| ((expected[n] - best) * LOGITS_PER_SCORE as f32).exp();
            let sum: f32 = open().map(weight).sum();
            targets.extend((0..count).map(|n| if look.open[n] { weight(n) / sum } else { 0.0 }));
            masks.extend(look.open.iter().map(|&open| if open { 0.0 } else { CLOSED }));
            bests.push(best);
            let share = 1.0 / open().count().max(1) as f32;
            wanted.extend((0..count).map(|n| if look.open[n] { expected[n] - best } else { 0.0 }));
            shares.extend(look.open.iter().map(|&open| if open { share } else { 0.0 }));
        }
        let targets = loss::rows(targets, count, &self.device);
        let masked = log_softmax(logits.clone() + loss::rows(masks, count, &self.device), 1);
        let entropy = |log_probs: Tensor<2>| -(targets.clone() * log_probs).sum_dim(1).mean();
        let value = (values - loss::numbers(bests, &self.device)).square().mean();
        // Against each other, not against zero: a turn's scores have no origin.
        let shares = loss::rows(shares, count, &self.device);
        let off = logits.clone() / LOGITS_PER_SCORE - loss::rows(wanted, count, &self.device);
        let mean = (off.clone() * shares.clone()).sum_dim(1);
        let distance = ((off - mean).square() * shares).sum_dim(1).mean();
        entropy(masked) + entropy(log_softmax(logits, 1)) * UNMASKED + value * VALUE + distance * DISTANCE
    }

    /// PPO over all actions, those that do not fit included: overspending costs what the multipliers say.
    fn improve<const R: usize>(&mut self, stage: &mut impl Stage<R>, report: &mut dyn FnMut(&Progress)) {
        // Permitted overspending: none but for noise.
        let mut multipliers = Multipliers::new([0.001; R], MultiplierSettings::default());
        multipliers.values = [1.0; R];
        for _ in 0..self.recipe.rollouts {
            let rollout = self.collect(stage);
            let reward = |step: &Experience<Look, R>| multipliers.penalised(step.reward, &step.costs);
            let targets = rollout.advantages(reward, 0.0, 1.0, 0.95);
            multipliers.ascend(&rollout.mean_costs(), rollout.steps.len());
            for _ in 0..self.recipe.epochs {
                for chosen in batches(rollout.steps.len(), self.recipe.batch, &mut self.random) {
                    let of = |values: &[f32]| chosen.iter().map(|&at| values[at]).collect::<Vec<f32>>();
                    let steps: Vec<_> = chosen.iter().map(|&at| &rollout.steps[at]).collect();
                    let looks: Vec<&Look> = steps.iter().map(|step| &step.observation).collect();
                    let (logits, values) = self.forward(&looks);
                    let actions: Vec<usize> = steps.iter().map(|step| step.action).collect();
                    let judged = loss::judge(logits, values, loss::actions(&actions, &self.device));
                    let numbers = |values: Vec<f32>| loss::numbers(values, &self.device);
                    let loss = loss::ppo(
                        judged,
                        numbers(steps.iter().map(|step| step.log_prob).collect()),
                        numbers(standardised(&of(&targets.advantages))),
                        numbers(of(&targets.returns)),
                        self.recipe.clip,
                        Parts { value: VALUE, entropy: self.recipe.entropy },
                    );
                    let value = self.descend(loss, self.recipe.ppo_rate, false);
                    self.tell(value, report);
                }
            }
        }
    }

    /// Whole dialogues, until there are enough decisions.
    fn collect<const R: usize>(&mut self, stage: &mut impl Stage<R>) -> Rollout<Look, R> {
        let plain = self.net.to_bytes(&self.config).and_then(|bytes| Network::read(&self.config, &bytes));
        let Ok(plain) = plain else { return Rollout::with_capacity(0) };
        let (_, width) = self.config.inputs();
        let mut rollout = Rollout::with_capacity(self.recipe.rollout);
        stage.deal(&mut self.random);
        stage.begin(&mut self.random);
        let mut ended = false;
        while rollout.steps.len() < self.recipe.rollout || !ended {
            let observation = stage.look();
            let (mut inputs, mut scores) = (vec![0.0; width], vec![0.0; observation.open.len()]);
            let write = |n: usize, out: &mut [f32]| out.copy_from_slice(&observation.actions[n * width..][..width]);
            plain.score::<MAX_ACTIONS>(&observation.turn, &mut inputs, write, &mut scores);
            let logit = |(score, base): (&mut f32, &f32)| *score = (*score + base) * LOGITS_PER_SCORE as f32;
            scores.iter_mut().zip(&observation.base).for_each(logit);
            let action = draw(&scores, &mut self.random);
            let step = stage.act(action, &mut self.random);
            ended = step.end;
            rollout.steps.push(Experience {
                observation,
                action,
                log_prob: 0.0,
                value: 0.0,
                reward: step.reward,
                costs: step.costs,
                end: step.end,
            });
            if ended {
                stage.begin(&mut self.random);
            }
        }
        self.judge(&mut rollout);
        rollout
    }

    /// Log-probabilities and values of what was collected, in one pass.
    fn judge<const R: usize>(&self, rollout: &mut Rollout<Look, R>) {
        let looks: Vec<&Look> = rollout.steps.iter().map(|step| &step.observation).collect();
        let actions: Vec<usize> = rollout.steps.iter().map(|step| step.action).collect();
        let (logits, values) = self.forward(&looks);
        let judged = loss::judge(logits, values, loss::actions(&actions, &self.device));
        let numbers = |tensor: Tensor<1>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        let (log_probs, values) = (numbers(judged.log_probs), numbers(judged.values));
        for ((step, log_prob), value) in rollout.steps.iter_mut().zip(log_probs).zip(values) {
            step.log_prob = log_prob;
            step.value = value;
        }
    }

    /// One gradient step; the loss, where it is asked for (reading it costs a copy).
    fn descend(&mut self, loss: Tensor<1>, rate: f64, read: bool) -> Option<f32> {
        let value = read.then(|| loss.clone().into_scalar::<f32>());
        let mut gradients = GradientsParams::from_grads(loss.backward(), &self.net);
        clip_norm(&self.net, &mut gradients, MAX_NORM);
        self.net = self.optimizer.step(rate, self.net.clone(), gradients);
        value
    }

    fn tell(&mut self, loss: Option<f32>, report: &mut dyn FnMut(&Progress)) {
        self.step += 1;
        if let Some(loss) = loss {
            report(&Progress { step: self.step, steps: self.recipe.steps(), loss });
        }
    }
}

/// A draw from `softmax(logits)`.
fn draw(logits: &[f32], random: &mut ChaCha8Rng) -> usize {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let weight = |logit: &f32| f64::from(logit - most).exp();
    let mut rest = random.random::<f64>() * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|logit| {
        rest -= weight(logit);
        rest < 0.0
    });
    drawn.unwrap_or(0)
}
