//! The on-device daemon: a dialogue turn comes in over a Unix socket, is decided, executed, recorded.
//!
//! One direction of data flow (ARCHITECTURE.md): request -> dialogue -> context -> features -> decide -> execute ->
//! ledger. Stages never call one another; `turn` calls them in this order.

pub mod budget;
pub mod cli;
pub mod client;
pub mod cloud;
pub mod config;
pub mod context;
pub mod daemon;
pub mod dialogue;
pub mod execute;
pub mod export;
pub mod features;
mod http;
pub mod image_codec;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod pace;
pub mod permit;
pub mod policy;
pub mod prompt;
pub mod question;
pub mod record;
pub mod replay;
pub mod sessions;
pub mod sight;
pub mod socket;
pub mod store;
pub mod testing;
pub mod turn;
pub mod views;
