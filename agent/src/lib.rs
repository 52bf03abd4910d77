//! The on-device daemon: a dialogue turn comes in over a Unix socket, is decided, executed, recorded.
//!
//! One direction of data flow (ARCHITECTURE.md): request -> dialogue -> context -> features -> decide -> execute ->
//! ledger. Stages never call one another; `turn` calls them in this order.

pub mod cli;
pub mod client;
pub mod cloud;
pub mod config;
pub mod dialogue;
pub mod image_codec;
pub mod notify;
pub mod prompt;
pub mod views;
