//! What the listener needs, and its limits.

use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A client that may connect with a bearer token; only the token's hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClient {
    pub name: String,
    /// SHA-256 of the token's characters.
    pub token_sha256: [u8; 32],
}

impl TokenClient {
    pub fn new(name: impl Into<String>, token: &str) -> Self {
        Self { name: name.into(), token_sha256: Sha256::digest(token.as_bytes()).into() }
    }
}

/// What the listener needs, checked. At least one of `tokens` and `client_ca` must be set.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Certificate chain and private key, PEM.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// CA of the clients' certificates, PEM: turns mutual TLS on.
    pub client_ca: Option<PathBuf>,
    pub tokens: Vec<TokenClient>,
    pub limits: ServerLimits,
}

/// Limits of the listener; [`ServerLimits::default`] gives the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    pub max_connections: usize,
    /// Concurrent turns of one connection.
    pub max_turns: u32,
    /// Bytes of one turn: its request and its images together.
    pub max_turn_bytes: u64,
    /// Bytes of images held at once, all connections together.
    pub max_held_bytes: usize,
    /// From a turn's request to the last byte of its images.
    pub image_timeout: Duration,
    /// From a connection's first packet to an accepted `Hello`.
    pub hello_timeout: Duration,
    /// Silence after which a connection is dropped.
    pub idle_timeout: Duration,
    /// How long turns under way may still take after the shutdown signal.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            // About 100 kB each when idle: 100 MB.
            max_connections: 1024,
            // The 200 concurrent streams of the load test, and some room.
            max_turns: 256,
            // Eight camera images of 1 MiB, and a long dialogue.
            max_turn_bytes: 16 * 1024 * 1024,
            max_held_bytes: 512 * 1024 * 1024,
            // 16 MiB at 5 Mbit/s take 27 s.
            image_timeout: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(5),
            // Twice the agent's keep-alive interval of 15 s.
            idle_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{what} {path}: {problem}")]
    File { what: &'static str, path: PathBuf, problem: String },
    #[error("no client could ever connect: set tokens or client_ca (`tether-cloud init` makes a token)")]
    NoClients,
    #[error("tls: {0}")]
    Tls(String),
    #[error("cannot listen on {address}: {problem}")]
    Listen { address: SocketAddr, problem: String },
}
