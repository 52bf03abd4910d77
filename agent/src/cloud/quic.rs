//! The gateway over QUIC: one connection, made in the background, kept, and shared by all turns.
//!
//! `keeper` dials and redials; `control` holds the control stream and notices a dead path; `exchange` is one turn;
//! `meter` turns QUIC's path statistics and the turns' uploads into the link's reading, `probe` says when to send
//! something only to know the rate; `shares` divides the datagrams among the turns; `window` says how many may be on their way.
//! `docs/PROTOCOL.md` tells the bytes.

mod control;
mod dial;
mod exchange;
mod failure;
mod frames;
mod keeper;
mod meter;
mod probe;
mod shares;
mod tls;
mod window;

use super::{ByteCount, CloudError, CloudStream, CloudTurn};
use failure::Failure;
use keeper::{Channel, Keeper};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_policies::wire::Wire;
use tether_protocol::Reading;
use tether_protocol::context::Link;
use tether_protocol::wire::{ErrorCode, Feedback, FeedbackReply, WireError};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tracing::Instrument;

/// Events that wait for the client of the daemon: more than a screenful, little memory.
const EVENT_QUEUE: usize = 64;
/// A rating is no hurry, but must not hang.
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// `[cloud]` with `kind = "quic"`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuicConfig {
    /// `host:port`.
    pub address: String,
    /// The name in the server's certificate; the address's host if absent.
    #[serde(default)]
    pub server_name: Option<String>,
    /// PEM file: a CA, or the server's own certificate to pin. Neither this nor `server_sha256`: the system's roots.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Pins the server's certificate by the SHA-256 of its DER form, hexadecimal; colons are allowed.
    #[serde(default)]
    pub server_sha256: Option<String>,
    /// File that holds the bearer token (never in the config itself).
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Mutual TLS: the client's certificate and key, PEM.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// How long connecting may take before the gateway counts as unreachable, ms. Several times the round trip of a
    /// bad mobile link (300 ms), and little enough that the local model can still answer.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

fn default_connect_timeout_ms() -> u64 {
    1_500
}

/// A connection that is made when needed and kept alive.
pub struct QuicCloud {
    /// Shared with the turns under way: they end in peace when the settings are reloaded.
    keeper: Arc<Keeper>,
    address: String,
    connect_timeout: Duration,
}

impl QuicCloud {
    /// Reads and checks the files that the settings name. Within a tokio runtime it also starts to connect; elsewhere
    /// the first turn does.
    ///
    /// # Errors
    /// [`CloudError::Config`] names the setting or the file.
    pub fn new(config: QuicConfig) -> Result<Self, CloudError> {
        let dialer = dial::Dialer::new(&config)?;
        let keeper = Arc::new(Keeper::new(dialer));
        keeper.start();
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        Ok(Self { keeper, address: config.address, connect_timeout })
    }

    /// Sends a turn. Returns as soon as its stream is open.
    ///
    /// # Errors
    /// If there is no connection within the connect timeout or the deadline, at once if the last attempt failed
    /// moments ago; if the gateway would refuse the turn for its size.
    pub async fn turn(&self, turn: CloudTurn) -> Result<CloudStream, CloudError> {
        let (channel, streams) = self.open(turn.deadline).await?;
        let bytes = Arc::new(ByteCount::within(turn.most_up_bytes));
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let exchange = exchange::Exchange::new(&channel, turn, streams, bytes.clone())?;
        let keeper = self.keeper.clone();
        let run = async move {
            exchange.run(sender).await;
            drop(keeper);
        };
        tokio::spawn(run.in_current_span());
        Ok(CloudStream { events, bytes })
    }

    /// See [`Cloud::uplink_bytes`](super::Cloud::uplink_bytes).
    pub fn uplink_bytes(&self, turn: &CloudTurn) -> u64 {
        let pictures = turn.images.iter().map(|image| image.len() as u64).sum();
        self.wire().uplink_bytes(exchange::text_bytes(turn), pictures)
    }

    /// A connection with a fresh stream on it. One that turns out to be dead is replaced once.
    async fn open(&self, deadline: Instant) -> Result<(Arc<Channel>, exchange::Streams), CloudError> {
        let mut again = true;
        loop {
            let channel = self.channel(deadline).await?;
            match timeout_at(deadline.into(), channel.connection.open_bi()).await {
                Ok(Ok(streams)) => return Ok((channel, streams)),
                Ok(Err(_)) if again => again = false,
                Ok(Err(problem)) => return Err(Failure::from(problem).at(&self.address)),
                Err(_) => return Err(CloudError::Deadline),
            }
        }
    }

    async fn channel(&self, deadline: Instant) -> Result<Arc<Channel>, CloudError> {
        let patience = Instant::now() + self.connect_timeout;
        match timeout_at(patience.min(deadline).into(), self.keeper.channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(failure)) => Err(failure.at(&self.address)),
            Err(_) if deadline <= patience => Err(CloudError::Deadline),
            Err(_) => {
                Err(Failure::Unreachable(format!("no answer within {:?}", self.connect_timeout)).at(&self.address))
            }
        }
    }

    /// Rates a turn that this gateway answered.
    ///
    /// # Errors
    /// If the gateway cannot be reached or does not reply.
    pub async fn feedback(&self, feedback: Feedback) -> Result<FeedbackReply, CloudError> {
        let deadline = Instant::now() + FEEDBACK_TIMEOUT;
        let channel = self.channel(deadline).await?;
        // Probes run meanwhile, so that a dead path is noticed in about 2 s and the next rating finds a new one.
        let _watched = channel.control.watch();
        match timeout_at(deadline.into(), channel.control.feedback(feedback)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(control::Gone)) => Err(Failure::Unreachable("the connection broke".into()).at(&self.address)),
            Err(_) => Err(CloudError::Deadline),
        }
    }

    /// Connects if there is no connection yet: the handshake, both certificates and the token are tried.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub async fn reach(&self) -> Result<(), CloudError> {
        self.channel(Instant::now() + self.connect_timeout).await.map(drop)
    }

    /// Connects if there is no connection yet, and sends a few kilobytes to know the link's rate.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub async fn measure(&self) -> Result<(), CloudError> {
        let deadline = Instant::now() + self.connect_timeout.max(FEEDBACK_TIMEOUT);
        let channel = self.channel(deadline).await?;
        match timeout_at(deadline.into(), self.keeper.measure(&channel)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(control::Gone)) => Err(Failure::Unreachable("the connection broke".into()).at(&self.address)),
            Err(_) => Err(CloudError::Deadline),
        }
    }

    /// What is known of the link, from the connection's own traffic.
    pub fn link(&self) -> Reading<Link> {
        self.keeper.link()
    }

    /// How many bytes a turn will be on the network, as far as earlier ones tell.
    pub fn wire(&self) -> Wire {
        self.keeper.wire()
    }

    /// Whether a few kilobytes may be sent after a silence, only to know the link's rate. Not before this allows it.
    pub fn allow_probes(&self, allowed: bool) {
        self.keeper.allow_probes(allowed);
    }

    /// Bytes that such probes have sent so far.
    pub fn probe_bytes(&self) -> u64 {
        self.keeper.probe_bytes()
    }

    /// Why there is no connection, if the last attempt failed.
    pub fn problem(&self) -> Option<CloudError> {
        self.keeper.failure().map(|failure| failure.at(&self.address))
    }

    pub fn address(&self) -> String {
        format!("quic://{}", self.address)
    }
}

/// A turn that the gateway would not take.
fn refused(message: String) -> CloudError {
    CloudError::Refused(WireError::new(ErrorCode::BadRequest, message))
}
