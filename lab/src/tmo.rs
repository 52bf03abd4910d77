//! TMO in the laboratory: the published figures checked, policies compared on fixed splits.

pub mod artifact;
pub mod association;
pub mod bench;
pub mod cli;
pub mod contender;
pub mod data;
pub mod golden;
pub mod run;
pub mod table;
pub mod task;
pub mod tether;
