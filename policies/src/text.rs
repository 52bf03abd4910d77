//! What a question is about, from its text alone: word pieces hashed into buckets ([`features`]) and one linear layer
//! ([`linear`]). [`task`] names TMO's task category; [`association`] estimates how much each view matters. Both are
//! learned by `tether-lab tmo` ([`fit`]) and shipped in the program; `docs/POLICY.md` says how good they are.
//!
//! Inference allocates nothing and looks at the first [`features::MAX_BYTES`] of a text.

pub mod association;
pub mod features;
pub mod fit;
pub mod linear;
pub mod task;

pub use association::TextAssociation;
pub use linear::{LoadError, WriteError};
pub use task::{TaskClassifier, TaskGuess};
