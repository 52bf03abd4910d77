//! The QUIC side of the gateway: listens, authenticates clients, turns streams into [`IncomingTurn`]s and the events
//! of a [`TurnHandler`] into frames. It knows nothing of models; `docs/PROTOCOL.md` tells the bytes.

use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tether_protocol::wire::{Feedback, FeedbackReply, TurnEvent, TurnRequest, WireError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Who sent a turn: an authenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's name: of its token, or of its certificate.
    pub name: String,
    pub address: SocketAddr,
}

/// One turn as it comes off the wire. The request is checked; its images may still be under way.
#[derive(Debug)]
pub struct IncomingTurn {
    pub request: TurnRequest,
    pub images: Images,
    pub events: EventSender,
}

/// The images of a turn while they arrive.
#[derive(Debug)]
pub struct Images(oneshot::Receiver<Result<Vec<Bytes>, WireError>>);

impl Images {
    /// All images, in the order of `request.images`, each of exactly the announced size.
    ///
    /// # Errors
    /// What to answer the client: images late, short or too long, or the turn is over.
    pub async fn collect(self) -> Result<Vec<Bytes>, WireError> {
        self.0.await.unwrap_or_else(|_| Err(turn_is_over()))
    }

    /// Images that are already here; for tests of handlers.
    pub fn ready(images: Vec<Bytes>) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is alive right here, so this cannot fail.
        let _ = sender.send(Ok(images));
        Self(receiver)
    }
}

fn turn_is_over() -> WireError {
    let message = "the turn ended before its images arrived".to_owned();
    WireError { code: tether_protocol::wire::ErrorCode::BadRequest, message, retry_after_ms: None }
}

/// The client cancelled the turn, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client cancelled the turn")]
pub struct Cancelled;

/// Where a handler puts the events of its answer: `Accepted`, any number of `Text`, then `Done`; or `Error`. Bounded,
/// so a slow client slows its handler down. Dropping it before `Done` or `Error` tells the client `Internal`.
#[derive(Debug, Clone)]
pub struct EventSender(mpsc::Sender<TurnEvent>);

impl EventSender {
    /// A sender and its receiving end; for tests of handlers.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<TurnEvent>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Waits for room.
    ///
    /// # Errors
    /// [`Cancelled`]: stop working on this turn.
    pub async fn send(&self, event: TurnEvent) -> Result<(), Cancelled> {
        self.0.send(event).await.map_err(|_| Cancelled)
    }

    /// For a model's own thread.
    ///
    /// # Errors
    /// [`Cancelled`]: stop working on this turn.
    ///
    /// # Panics
    /// On an async thread.
    pub fn blocking_send(&self, event: TurnEvent) -> Result<(), Cancelled> {
        self.0.blocking_send(event).map_err(|_| Cancelled)
    }

    /// Returns once the client has cancelled, is gone, or its deadline has passed.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// What stands behind the listener. Each call runs on a task of its own; a panic there fails only its turn.
pub trait TurnHandler: Send + Sync + 'static {
    /// Answers one turn through `turn.events`; returns early when they are closed.
    fn handle(&self, peer: Peer, turn: IncomingTurn) -> impl Future<Output = ()> + Send;

    /// Takes a rating of an earlier turn.
    fn feedback(&self, peer: Peer, feedback: Feedback) -> impl Future<Output = FeedbackReply> + Send {
        let _ = (peer, feedback);
        std::future::ready(FeedbackReply::Unsupported)
    }
}

/// A client that may connect with a bearer token; only the token's hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClient {
    pub name: String,
    /// SHA-256 of the token's characters.
    pub token_sha256: [u8; 32],
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

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
}

impl Server {
    /// Reads the certificates and binds the UDP socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`] names the file or address and what is wrong with it.
    pub fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        Ok(Self { config })
    }

    /// The bound address; tells the port after listening on port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.config.listen
    }

    /// Replaces the accepted tokens (SIGHUP); connections that are open stay.
    pub fn set_tokens(&self, tokens: Vec<TokenClient>) {
        let _ = tokens;
    }

    /// Serves until `shutdown`; then refuses new turns with `Draining`, lets those under way end within
    /// `drain_timeout`, closes, and returns.
    pub async fn run<H: TurnHandler>(&self, handler: Arc<H>, shutdown: CancellationToken) {
        let _ = handler;
        shutdown.cancelled().await;
    }
}
