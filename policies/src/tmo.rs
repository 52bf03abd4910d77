//! TMO: local-cloud offloading for multi-modal, multi-task dialogues (arXiv 2502.11007, MobiHoc 2025).
//!
//! [`data`] reads dialogues in the form of the M4A1 data set or makes synthetic ones; [`paper`] is the published
//! environment, its faults included and named, so that published figures can be checked; [`mask`] permits what keeps
//! every budget; [`tether`] is the learned policy.

pub mod checkpoint;
pub mod data;
pub mod honest;
#[cfg(feature = "train")]
pub mod learn;
pub mod mask;
pub mod paper;
pub mod perceptron;
pub mod synthetic;
pub mod tether;
