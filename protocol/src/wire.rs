//! What crosses to the cloud over QUIC. `docs/PROTOCOL.md` writes the bytes down.
//!
//! One bidirectional stream a turn; each image on a unidirectional stream of its own, at a lower priority.

mod codec;
mod control;
mod event;
mod frame;
pub mod fuzzing;
mod request;

use crate::id::{TurnId, ViewName};
use crate::record::{FinishReason, Usage};

pub use codec::{CodecError, MAX_VARINT, get_varint, put_varint};
pub use control::{Hello, Token, Welcome};
pub use event::text_frames;
pub use frame::{Frame, FrameBuffer, StreamKind};

/// The ALPN of this version; a peer that speaks another is refused by the TLS handshake.
pub const ALPN: &[u8] = b"tether/1";

/// Payload of a small frame: names, a token, an error's message.
pub const MAX_CONTROL_BYTES: usize = 4096;
/// Payload of a `TEXT` frame; a longer piece of answer becomes several.
pub const MAX_TEXT_FRAME_BYTES: usize = 64 * 1024;
/// Payload of a `TURN` frame: all the text, and a quarter MiB for what frames it.
pub const MAX_TURN_FRAME_BYTES: usize = crate::limits::MAX_TEXT_BYTES + 256 * 1024;
/// Parts of one message: text and images in turn.
pub const MAX_PARTS: usize = 32;
/// A bearer token; those that `tether-cloud init` makes have 50.
pub const MAX_TOKEN_BYTES: usize = 512;
/// The message of an error; a longer one is cut.
pub const MAX_ERROR_BYTES: usize = 1024;
/// Extensions of one message, and the bytes of each.
pub const MAX_EXTENSIONS: usize = 16;
pub const MAX_EXTENSION_BYTES: usize = 1024;
/// Unknown frames that a stream may carry before it counts as abuse.
pub const MAX_SKIPPED_FRAMES: usize = 64;

/// Codes of QUIC's `RESET_STREAM`, `STOP_SENDING` and `CONNECTION_CLOSE`.
pub mod close {
    /// Nothing went wrong.
    pub const OK: u32 = 0;
    /// The turn is no longer wanted.
    pub const CANCELLED: u32 = 1;
    /// The peer broke the protocol.
    pub const PROTOCOL: u32 = 2;
    /// The peer is not known here.
    pub const UNAUTHORIZED: u32 = 3;
    /// A limit was reached.
    pub const LIMIT: u32 = 4;
    /// The gateway is stopping.
    pub const DRAINING: u32 = 5;
    /// The peer was silent for too long.
    pub const TIMEOUT: u32 = 6;
}

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

impl ImageFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            ImageFormat::Jpeg => "jpeg",
            ImageFormat::Png => "png",
        }
    }
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

/// Opens an image's stream: to which turn, and to which of its images, the bytes after it belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStart {
    pub turn_id: TurnId,
    pub index: u8,
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

impl Vision {
    pub fn as_str(self) -> &'static str {
        match self {
            Vision::None => "none",
            Vision::Measured => "measured",
            Vision::Native => "native",
        }
    }
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
