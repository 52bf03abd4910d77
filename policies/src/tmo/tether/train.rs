//! Training of the tether policy in burn; the daemon is built without it.
//!
//! [`stage`] is what a network is trained in, [`recipe`] how, [`net`] the network with gradients. [`plan`] teaches it
//! in paper mode ([`paper_stage`]); [`honest_stage`] is the default.

pub mod honest_stage;
pub mod neighbours;
pub mod net;
pub mod paper_stage;
pub mod plan;
pub mod recipe;
pub mod stage;

#[cfg(test)]
mod tests;
