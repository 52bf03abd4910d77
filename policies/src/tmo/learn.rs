//! Learners in burn: A2C, PPO and DQN as stable-baselines3 2.x (SB3) has them, whose defaults the reference uses.
//!
//! [`rollout`], [`advantage`], [`loss`] and [`multipliers`] know no network: they take logits, values and numbers, so
//! that every policy of this crate can be trained with them. [`network`] is the reference's 64-64 perceptron.
//!
//! Sources, as section or equation numbers in the comments: A2C, Mnih et al., "Asynchronous Methods for Deep
//! Reinforcement Learning" (arXiv 1602.01783); GAE, Schulman et al. (arXiv 1506.02438); PPO, Schulman et al. (arXiv
//! 1707.06347); DQN, Mnih et al. (Nature 518, 2015); multipliers, Tessler et al., "Reward Constrained Policy
//! Optimization" (arXiv 1805.11074) and Ray et al., "Benchmarking Safe Exploration" (2019).

pub mod a2c;
pub mod advantage;
pub mod dqn;
pub mod loss;
pub mod multipliers;
pub mod network;
pub mod on_policy;
pub mod paper_world;
pub mod ppo;
pub mod progress;
pub mod replay;
pub mod rollout;
pub mod weights;
pub mod world;

#[cfg(test)]
mod tests;

use burn::tensor::Device;

/// Burn's pure-Rust CPU backend, recording what is needed for gradients.
pub fn training_device() -> Device {
    Device::flex().autodiff()
}
