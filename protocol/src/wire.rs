//! What crosses to the cloud over QUIC. `docs/PROTOCOL.md` writes the bytes down.
//!
//! One bidirectional stream a turn; each image on a unidirectional stream of its own, at a lower priority.

use crate::id::{TurnId, ViewName};
use crate::record::{FinishReason, Usage};

/// The ALPN of this version; a peer that speaks another is refused by the TLS handshake.
pub const ALPN: &[u8] = b"tether/1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// The index of an image in [`TurnRequest::images`].
    Image(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

/// `None` everywhere means: the answering model's own default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    Jpeg,
    Png,
}

/// Announces an image; its bytes follow on a stream of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHeader {
    pub view: ViewName,
    pub format: ImageFormat,
    pub width: u32,
    pub height: u32,
    pub byte_count: u32,
}

/// One dialogue turn, complete: the gateway keeps no dialogue.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnRequest {
    pub turn_id: TurnId,
    /// A model of the zoo by name; `None` lets the gateway choose.
    pub model: Option<String>,
    /// What is left of the turn's deadline when it is sent.
    pub deadline_ms: Option<u32>,
    pub sampling: Sampling,
    pub messages: Vec<Message>,
    pub images: Vec<ImageHeader>,
}

/// What the answering model makes of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vision {
    /// Images are refused.
    None,
    /// No vision model: a description computed from the pixels stands in the prompt.
    Measured,
    /// The model sees.
    Native,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub model: String,
    pub vision: Vision,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    pub finish_reason: FinishReason,
    pub usage: Usage,
    /// True where the model's server reported no usage and it was counted from the text.
    pub usage_estimated: bool,
    /// What the gateway charges for this turn.
    pub cost_usd: f64,
    /// Messages that did not fit the model's context and were left out.
    pub dropped_messages: u32,
    /// Waited for the backend.
    pub queue_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request cannot be understood or breaks a limit.
    BadRequest,
    Unauthorized,
    UnknownModel,
    /// The chosen model cannot take images, and nothing else can.
    NoVision,
    ContextFull,
    /// Queue full; see `retry_after_ms`.
    Overloaded,
    DeadlineExceeded,
    /// The gateway is stopping; another copy may answer.
    Draining,
    BackendFailed,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    pub code: ErrorCode,
    pub message: String,
    pub retry_after_ms: Option<u32>,
}

/// What the gateway sends back on a turn's stream: `Accepted`, then any number of `Text`, then `Done`; or `Error` at
/// any place, which ends the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    Accepted(Accepted),
    Text(String),
    Done(Done),
    Error(WireError),
}

/// A person's or a program's rating of an answered turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    pub turn_id: TurnId,
    /// From 0 (useless) to 1 (just right).
    pub rating: f32,
}

/// What the gateway makes of a [`Feedback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackReply {
    Recorded,
    /// This gateway does not learn from ratings.
    Unsupported,
    /// The turn is not, or no longer, known here.
    UnknownTurn,
}
