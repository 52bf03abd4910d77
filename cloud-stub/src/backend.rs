//! What makes an answer: an embedded model, another server, or a script. A stream of pieces comes back; dropping it
//! frees the backend at once.

pub mod candle;
pub mod openai;
pub mod scripted;

use crate::config::{BackendSettings, Kind};
use bytes::Bytes;
use futures::stream::BoxStream;
use std::time::Duration;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::{ErrorCode, Message, Part, TurnRequest, WireError};

/// One turn as a backend gets it: `max_tokens` is always set, and images are there only for native vision.
#[derive(Debug, Clone)]
pub struct Ask {
    pub request: TurnRequest,
    pub images: Vec<Bytes>,
    /// Tells clients apart, for fairness inside a backend.
    pub client: u64,
}

impl Ask {
    /// The limit of the answer; the gateway sets it before it asks.
    pub fn max_tokens(&self) -> u32 {
        self.request.sampling.max_tokens.unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Never empty.
    Text(String),
    /// The last piece.
    End(Answer),
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    pub finish_reason: FinishReason,
    pub usage: Usage,
    /// The server did not report its usage.
    pub usage_estimated: bool,
    pub dropped_messages: u32,
}

pub type Pieces = BoxStream<'static, Result<Piece, BackendError>>;

/// Why a backend did not answer, sorted by whose turn it is to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The backend is at fault: it is out until a probe succeeds, and another may answer.
    #[error("{0}")]
    Failed(String),
    /// The backend is busy: another may answer, and nobody is out.
    #[error("{message}")]
    Busy { message: String, retry_after_ms: Option<u32> },
    /// The turn itself is at fault: no other backend is tried.
    #[error("{}", .0.message)]
    Refused(WireError),
}

impl BackendError {
    pub fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(WireError { code, message: message.into(), retry_after_ms: None })
    }

    /// What the client is told about backend `name`.
    pub fn into_wire(self, name: &str) -> WireError {
        let message = format!("model {name}: {self}");
        match self {
            Self::Failed(_) => WireError { code: ErrorCode::BackendFailed, message, retry_after_ms: None },
            Self::Busy { retry_after_ms, .. } => {
                WireError { code: ErrorCode::Overloaded, message, retry_after_ms: retry_after_ms.or(Some(1_000)) }
            }
            Self::Refused(error) => WireError { message, ..error },
        }
    }
}

/// The three kinds.
#[derive(Debug)]
pub enum Backend {
    Candle(candle::CandleBackend),
    OpenAi(openai::OpenAiBackend),
    Scripted(scripted::ScriptedBackend),
}

impl Backend {
    /// Builds a backend; a candle model is loaded here, which takes a while: call it off the async threads.
    pub fn build(settings: &BackendSettings) -> anyhow::Result<Self> {
        Ok(match &settings.kind {
            Kind::Candle(candle) => Self::Candle(candle::CandleBackend::load(candle, settings)?),
            Kind::OpenAi(openai) => Self::OpenAi(openai::OpenAiBackend::new(openai)?),
            Kind::Scripted(script) => Self::Scripted(scripted::ScriptedBackend::new(script.clone())),
        })
    }

    /// Begins an answer. Waiting for the first piece happens in the stream.
    pub async fn answer(&self, ask: Ask) -> Result<Pieces, BackendError> {
        match self {
            Self::Candle(backend) => backend.answer(&ask).await,
            Self::OpenAi(backend) => backend.answer(ask).await,
            Self::Scripted(backend) => backend.answer(&ask),
        }
    }

    /// Whether it would answer again; asked after a failure.
    pub async fn probe(&self) -> Result<(), BackendError> {
        match self {
            Self::Candle(backend) => backend.probe(),
            Self::OpenAi(backend) => tokio::time::timeout(PROBE_TIMEOUT, backend.probe())
                .await
                .unwrap_or_else(|_| Err(BackendError::Failed(format!("no answer within {PROBE_TIMEOUT:?}")))),
            Self::Scripted(backend) => backend.probe(),
        }
    }
}

/// The text of a message, its parts on lines of their own; image parts have no text.
pub(crate) fn flat_text(message: &Message) -> String {
    let text = |part: &Part| if let Part::Text(text) = part { Some(text.clone()) } else { None };
    message.parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// A server that needs longer to list its models is not well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
