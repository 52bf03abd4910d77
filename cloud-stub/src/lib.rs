//! The far end of QUIC: a gateway before a zoo of models.

pub mod backend;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod http;
pub mod metrics;
pub mod price;
pub mod routing;
pub mod secret;
pub mod serve;
pub mod server;
pub mod status;
pub mod vision;
pub mod zoo;

#[cfg(test)]
mod testing;
