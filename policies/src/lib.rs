//! Observation in, action out. Every policy is a pure function of values: no clock, no I/O, randomness passed in.

pub mod budget;
pub mod decision;
pub mod encoding;
pub mod fixed;
mod hashing;
pub mod link;
pub mod mess;
pub mod observation;
pub mod ratings;
pub mod rule;
pub mod text;
pub mod tmo;
pub mod trace;
pub mod upload;
pub mod wire;

pub use decision::{Candidate, Decision, NoAction, Permitted, Policy, Refusal};
pub use observation::{Observation, PastTurn};
