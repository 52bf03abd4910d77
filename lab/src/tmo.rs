//! TMO in the laboratory: the published figures checked, policies compared on fixed splits.

pub mod artifact;
pub mod asked;
pub mod association;
pub mod bench;
pub mod bootstrap;
pub mod cli;
pub mod contender;
pub mod data;
pub mod golden;
pub mod learned;
pub mod page;
pub mod progress;
pub mod run;
pub mod sweep;
pub mod table;
pub mod task;
pub mod tether;
