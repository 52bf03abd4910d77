//! The gateway over QUIC.

use super::{CloudError, CloudStream, CloudTurn};
use serde::Deserialize;
use std::path::PathBuf;
use tether_protocol::Reading;
use tether_protocol::context::Link;

/// `[cloud]` with `kind = "quic"`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuicConfig {
    /// `host:port`.
    pub address: String,
    /// The name in the server's certificate; the address's host if absent.
    pub server_name: Option<String>,
    /// PEM file: a CA, or the server's own certificate to pin.
    pub ca: Option<PathBuf>,
    /// File that holds the bearer token (never in the config itself).
    pub token_file: Option<PathBuf>,
    /// Mutual TLS: the client's certificate and key, PEM.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

/// A connection that is made when needed and kept alive.
pub struct QuicCloud {
    config: QuicConfig,
}

impl QuicCloud {
    pub fn new(config: QuicConfig) -> Result<Self, CloudError> {
        Ok(Self { config })
    }

    pub async fn turn(&self, turn: CloudTurn) -> Result<CloudStream, CloudError> {
        let _ = turn;
        Err(CloudError::Config("not written yet".into()))
    }

    pub fn link(&self) -> Reading<Link> {
        Reading::unknown("nothing sent yet")
    }

    pub fn address(&self) -> String {
        format!("quic://{}", self.config.address)
    }
}
