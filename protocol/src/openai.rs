//! The client's side of the OpenAI chat-completions contract, without any I/O: what is sent, and how the answer's
//! bytes are read. The agent (`cloud.kind = "openai"`) and the gateway's `openai` backend both use it.
//!
//! A caller makes a [`ChatRequest`] from a turn, posts it, and feeds the body to an [`AnswerReader`] as it arrives; a
//! status that is not 2xx goes through [`status_error`].

pub mod answer;
pub mod error;
pub mod request;
pub mod sse;

pub use answer::{AnswerEnd, AnswerPart, AnswerReader, read_completion};
pub use error::status_error;
pub use request::{ChatRequest, MaxTokensName};
pub use sse::{SseError, SseEvent, SseParser};
