//! The QUIC side of the gateway: listens, authenticates clients, turns streams into [`IncomingTurn`]s and the events
//! of a [`TurnHandler`] into frames. It knows nothing of models; `docs/PROTOCOL.md` tells the bytes.

mod auth;
mod config;
mod connection;
mod frames;
mod handler;
mod images;
pub mod init;
mod tls;
mod turn;

pub use config::{ServerConfig, ServerError, ServerLimits, TokenClient};
pub use handler::{Cancelled, EventSender, Images, IncomingTurn, Peer, TurnHandler};

use auth::Credentials;
use quinn::{Endpoint, Incoming, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tether_protocol::wire::close;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    limits: ServerLimits,
    credentials: Arc<Credentials>,
}

/// What all connections of one `run` share.
struct Shared<H> {
    handler: Arc<H>,
    limits: ServerLimits,
    credentials: Arc<Credentials>,
    /// Clients that have not said an accepted `Hello` yet may only take a part of all connections.
    strangers: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// One permit for each KiB of images.
    held_kib: Arc<Semaphore>,
    /// The turns under way, for draining.
    turns: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    /// Reads the certificates and binds the UDP socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`] names the file or address and what is wrong with it.
    pub fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        if config.tokens.is_empty() && config.client_ca.is_none() {
            return Err(ServerError::NoClients);
        }
        let refused =
            |problem: std::io::Error| ServerError::Listen { address: config.listen, problem: problem.to_string() };
        let endpoint = Endpoint::server(tls::quinn_config(&config)?, config.listen).map_err(refused)?;
        let address = endpoint.local_addr().map_err(refused)?;
        let credentials = Arc::new(Credentials::new(config.tokens));
        Ok(Self { endpoint, address, limits: config.limits, credentials })
    }

    /// The bound address; tells the port after listening on port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the accepted tokens (SIGHUP); connections that are open stay.
    pub fn set_tokens(&self, tokens: Vec<TokenClient>) {
        self.credentials.replace(tokens);
    }

    /// Serves until `shutdown`; then refuses new turns with `Draining`, lets those under way end within
    /// `drain_timeout`, closes, and returns.
    pub async fn run<H: TurnHandler>(&self, handler: Arc<H>, shutdown: CancellationToken) {
        let shared = Arc::new(Shared {
            handler,
            limits: self.limits.clone(),
            credentials: self.credentials.clone(),
            strangers: Arc::new(Semaphore::new((self.limits.max_connections / 4).max(1))),
            connections: Arc::new(Semaphore::new(self.limits.max_connections)),
            held_kib: Arc::new(Semaphore::new(self.limits.max_held_bytes.div_ceil(1024))),
            turns: TaskTracker::new(),
            shutdown: shutdown.clone(),
        });
        while let Some(Some(incoming)) = shutdown.run_until_cancelled(self.endpoint.accept()).await {
            admit(&shared, incoming);
        }
        self.drain(&shared).await;
    }

    async fn drain<H>(&self, shared: &Shared<H>) {
        shared.turns.close();
        let drained = async {
            tokio::select! {
                () = shared.turns.wait() => true,
                () = tokio::time::sleep(self.limits.drain_timeout) => false,
            }
        };
        tokio::pin!(drained);
        // Late connections are told to go elsewhere at once rather than left to time out.
        let in_time = loop {
            tokio::select! {
                in_time = &mut drained => break in_time,
                Some(incoming) = self.endpoint.accept() => incoming.refuse(),
            }
        };
        if !in_time {
            tracing::warn!(turns = shared.turns.len(), "turns cut off: the drain time is over");
        }
        self.endpoint.close(VarInt::from_u32(close::DRAINING), b"the gateway is stopping");
        // Lets the close frames leave; a peer that is gone must not hold the process up.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// Starts a connection's task if there is room. Under pressure a client first proves that its address is its own.
fn admit<H: TurnHandler>(shared: &Arc<Shared<H>>, incoming: Incoming) {
    let crowded = shared.strangers.available_permits() <= shared.limits.max_connections / 8;
    if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
        // Only fails for an incoming that may not be retried.
        let _ = incoming.retry();
        return;
    }
    let Ok(stranger) = shared.strangers.clone().try_acquire_owned() else {
        tracing::warn!(address = %incoming.remote_address(), "connection refused: too many unfinished handshakes");
        incoming.refuse();
        return;
    };
    tokio::spawn(connection::serve(shared.clone(), incoming, stranger));
}
