//! The far side as the agent sees it: give it a turn, read events, drop the stream to cancel.

pub mod openai;
pub mod quic;

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tether_policies::wire::Wire;
use tether_protocol::Reading;
use tether_protocol::context::Link;
use tether_protocol::wire::{Feedback, FeedbackReply, TurnEvent, TurnRequest, WireError};
use tokio::sync::mpsc;

/// One turn to send: the request and the bytes of the images that it announces, in the same order.
#[derive(Debug, Clone)]
pub struct CloudTurn {
    pub request: TurnRequest,
    pub images: Vec<Bytes>,
    pub deadline: Instant,
    /// Where to stop sending, whatever is missing then; `None`: nothing limits it.
    pub most_up_bytes: Option<u64>,
}

/// Bytes of one turn's streams, counted as they move, and the turn's share of what the connection carried meanwhile.
#[derive(Debug, Default)]
pub struct ByteCount {
    uplink: AtomicU64,
    downlink: AtomicU64,
    share_up: AtomicU64,
    share_down: AtomicU64,
    /// From the first byte of the upload until all of it was acknowledged, microseconds; 0: not yet.
    upload_us: AtomicU64,
    /// The turn's share when that was.
    uploaded: AtomicU64,
    /// What may go up; `None`: no limit.
    most_up: Option<u64>,
    cut: AtomicBool,
}

impl ByteCount {
    /// For a turn that is cut off before more than this goes up.
    pub fn within(most_up: Option<u64>) -> Self {
        Self { most_up, ..Self::default() }
    }

    /// Counts bytes that are about to be sent; false if they must not be, and then nothing of the turn may any more.
    #[must_use]
    pub fn take_uplink(&self, bytes: u64) -> bool {
        if self.most_up.is_some_and(|most| self.travelled().0.saturating_add(bytes) > most) {
            self.cut.store(true, Ordering::Relaxed);
        }
        let taken = !self.is_cut();
        if taken {
            self.uplink.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    pub fn is_limited(&self) -> bool {
        self.most_up.is_some()
    }

    /// Whether the turn has sent more than it may, be it once more, or wanted to.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed) || self.most_up.is_some_and(|most| self.travelled().0 > most)
    }

    pub fn add_downlink(&self, bytes: u64) {
        self.downlink.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn uplink_bytes(&self) -> u64 {
        self.uplink.load(Ordering::Relaxed)
    }

    pub fn downlink_bytes(&self) -> u64 {
        self.downlink.load(Ordering::Relaxed)
    }

    /// All of the upload was acknowledged, so long after its begin.
    pub fn set_upload(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.uploaded.store(self.travelled().0, Ordering::Relaxed);
        self.upload_us.store(micros, Ordering::Relaxed);
    }

    /// What the turn had put on the network when all of its upload was acknowledged.
    pub fn uploaded_bytes(&self) -> Option<u64> {
        self.upload_ms().map(|_| self.uploaded.load(Ordering::Relaxed))
    }

    /// How long the upload took until all of it was acknowledged, where that is over and was seen.
    pub fn upload_ms(&self) -> Option<f64> {
        match self.upload_us.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(micros as f64 / 1e3),
        }
    }

    /// Adds to the turn's share of the connection's datagrams, up and down.
    pub fn add_share(&self, (up, down): (u64, u64)) {
        self.share_up.fetch_add(up, Ordering::Relaxed);
        self.share_down.fetch_add(down, Ordering::Relaxed);
    }

    /// What the turn put on the network, up and down: its share of the datagrams, and never less than its streams
    /// carried. Where the transport does not count datagrams these are the streams' bytes.
    pub fn travelled(&self) -> (u64, u64) {
        let up = self.share_up.load(Ordering::Relaxed).max(self.uplink_bytes());
        (up, self.share_down.load(Ordering::Relaxed).max(self.downlink_bytes()))
    }
}

/// An answer under way. Dropping it cancels the turn on the far side (stream reset, or the HTTP body dropped).
#[derive(Debug)]
pub struct CloudStream {
    /// Ends after `Done` or `Error`. A closed channel without either is a broken connection.
    pub events: mpsc::Receiver<TurnEvent>,
    pub bytes: Arc<ByteCount>,
}

/// Why a turn could not be sent at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloudError {
    #[error("the gateway at {address} cannot be reached: {problem}")]
    Unreachable { address: String, problem: String },
    #[error("the gateway at {address} is not trusted: {problem}")]
    Untrusted { address: String, problem: String },
    #[error("the gateway refused: {0}")]
    Refused(#[from] WireError),
    #[error("the deadline passed before the gateway could be reached")]
    Deadline,
    #[error("cloud settings: {0}")]
    Config(String),
}

impl CloudError {
    /// What a person can do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            CloudError::Unreachable { .. } | CloudError::Deadline => {
                "see that the gateway runs, that its UDP (QUIC) or TCP (HTTPS) port is open, and the address"
            }
            CloudError::Untrusted { .. } => {
                "cloud.ca or cloud.server_sha256 must be of this gateway: copy them again from `tether-cloud init`"
            }
            CloudError::Refused(_) => {
                "the token or certificate of this device must be known there: `tether-cloud init`"
            }
            CloudError::Config(_) => "correct [cloud] in the settings",
        }
    }
}

/// The two kinds of far side.
pub enum Cloud {
    /// A tether gateway over QUIC.
    Quic(quic::QuicCloud),
    /// An OpenAI-compatible server over HTTPS, for people without a gateway.
    OpenAi(openai::OpenAiCloud),
}

impl Cloud {
    /// Sends a turn. Returns as soon as the request is under way; connecting happens inside, within the deadline.
    pub async fn turn(&self, turn: CloudTurn) -> Result<CloudStream, CloudError> {
        match self {
            Cloud::Quic(cloud) => cloud.turn(turn).await,
            Cloud::OpenAi(cloud) => cloud.turn(turn).await,
        }
    }

    /// Tries whether the far side answers and lets this device in; sends no turn.
    ///
    /// # Errors
    /// What a turn would fail with.
    pub async fn reach(&self) -> Result<(), CloudError> {
        match self {
            Cloud::Quic(cloud) => cloud.reach().await,
            Cloud::OpenAi(cloud) => cloud.reach().await,
        }
    }

    /// Sends a few kilobytes to know the link's rate, where the transport can tell it.
    ///
    /// # Errors
    /// What a turn would fail with.
    pub async fn measure(&self) -> Result<(), CloudError> {
        match self {
            Cloud::Quic(cloud) => cloud.measure().await,
            Cloud::OpenAi(_) => Ok(()),
        }
    }

    /// Takes a rating of a turn that was answered there. An OpenAI-compatible server has no place for ratings.
    ///
    /// # Errors
    /// If the gateway cannot be reached or does not reply.
    pub async fn feedback(&self, feedback: Feedback) -> Result<FeedbackReply, CloudError> {
        match self {
            Cloud::Quic(cloud) => cloud.feedback(feedback).await,
            Cloud::OpenAi(_) => Ok(FeedbackReply::Unsupported),
        }
    }

    /// What is known of the link.
    pub fn link(&self) -> Reading<Link> {
        match self {
            Cloud::Quic(cloud) => cloud.link(),
            Cloud::OpenAi(cloud) => cloud.link(),
        }
    }

    /// Whether a few kilobytes may be sent after a silence, only to know the link's rate.
    pub fn allow_probes(&self, allowed: bool) {
        if let Cloud::Quic(cloud) = self {
            cloud.allow_probes(allowed);
        }
    }

    /// Bytes that such probes have sent so far.
    pub fn probe_bytes(&self) -> u64 {
        match self {
            Cloud::Quic(cloud) => cloud.probe_bytes(),
            Cloud::OpenAi(_) => 0,
        }
    }

    /// Why it could not be reached the last time that it was tried; `None` if it could, or was not tried yet.
    pub fn problem(&self) -> Option<CloudError> {
        match self {
            Cloud::Quic(cloud) => cloud.problem(),
            Cloud::OpenAi(cloud) => cloud.problem(),
        }
    }

    /// How many bytes a turn will be there, as far as earlier ones tell.
    pub fn wire(&self) -> Wire {
        match self {
            Cloud::Quic(cloud) => cloud.wire(),
            Cloud::OpenAi(_) => Wire::Http,
        }
    }

    /// What this turn is predicted to put on the network, now that its request and its pictures are there.
    pub fn uplink_bytes(&self, turn: &CloudTurn) -> u64 {
        match self {
            Cloud::Quic(cloud) => cloud.uplink_bytes(turn),
            Cloud::OpenAi(cloud) => cloud.uplink_bytes(turn),
        }
    }

    /// Where it goes, for messages: `quic://host:port` or the base URL.
    pub fn address(&self) -> String {
        match self {
            Cloud::Quic(cloud) => cloud.address(),
            Cloud::OpenAi(cloud) => cloud.address(),
        }
    }
}
