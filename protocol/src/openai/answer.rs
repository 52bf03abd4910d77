//! The answer, read as its bytes arrive.

use super::error::read_error;
use super::sse::{SseEvent, SseParser};
use crate::limits::MAX_ANSWER_BYTES;
use crate::record::{FinishReason, Usage};
use crate::wire::{ErrorCode, WireError};
use serde::Deserialize;
use serde_json::Value;

/// What the bytes so far have told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerPart {
    /// The name of the model that answers; comes once, before any text.
    Model(String),
    /// Never empty.
    Text(String),
    /// `[DONE]`: nothing that follows is read.
    Done,
    /// The server gave up, or does not keep to the contract. Nothing that follows is read.
    Failed(WireError),
}

/// How a complete answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerEnd {
    pub finish_reason: FinishReason,
    /// As the server reported it; `None` if it did not.
    pub usage: Option<Usage>,
    /// Pieces of text that arrived: most servers send one a token.
    pub pieces: u32,
}

impl AnswerEnd {
    /// The reported usage, or an estimate and `true`: one token a piece, and a token for every four bytes of prompt.
    pub fn usage_or_estimate(&self, prompt_bytes: usize) -> (Usage, bool) {
        let estimate = Usage { prompt_tokens: clamp(prompt_bytes.div_ceil(4) as u64), completion_tokens: self.pieces };
        (self.usage.unwrap_or(estimate), self.usage.is_none())
    }
}

/// A streamed answer under way.
#[derive(Debug, Default)]
pub struct AnswerReader {
    sse: SseParser,
    model_told: bool,
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
    pieces: u32,
    text_bytes: usize,
    over: bool,
}

impl AnswerReader {
    /// Reads the next bytes of the body, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<AnswerPart> {
        if self.over {
            return Vec::new();
        }
        match self.sse.push(bytes) {
            Ok(events) => self.read_events(events),
            Err(error) => vec![self.fail(error.to_string())],
        }
    }

    /// Whether `Done` or `Failed` has been told.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The body has ended (or `Done` was told). A stream that breaks off before the answer is complete is an error;
    /// one that merely lacks `[DONE]` is not. May return text that stood in an unterminated last event.
    pub fn finish(mut self) -> (Vec<AnswerPart>, Result<AnswerEnd, WireError>) {
        let parts = match std::mem::take(&mut self.sse).finish() {
            Ok(Some(last)) if !self.over => self.read_events(vec![last]),
            // Half an event is what a broken connection leaves; the missing end is reported below.
            _ => Vec::new(),
        };
        if let Some(AnswerPart::Failed(error)) = parts.last() {
            let error = error.clone();
            return (parts, Err(error));
        }
        let finish_reason = self.finish_reason.or(self.over.then_some(FinishReason::Stop));
        let end =
            finish_reason.map(|finish_reason| AnswerEnd { finish_reason, usage: self.usage, pieces: self.pieces });
        (parts, end.ok_or_else(|| failed("the stream ended before the answer was complete".into())))
    }

    fn read_events(&mut self, events: Vec<SseEvent>) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        for event in events {
            self.read_event(&event, &mut parts);
            if self.over {
                break;
            }
        }
        parts
    }

    fn read_event(&mut self, event: &SseEvent, parts: &mut Vec<AnswerPart>) {
        if event.data.trim() == "[DONE]" {
            self.over = true;
            parts.push(AnswerPart::Done);
            return;
        }
        let value: Value = match serde_json::from_str(&event.data) {
            Ok(value) => value,
            Err(error) => return parts.push(self.fail(format!("the server sent data that is not JSON: {error}"))),
        };
        if let Some(error) = read_error(&value) {
            self.over = true;
            return parts.push(AnswerPart::Failed(error.into_wire()));
        }
        match serde_json::from_value(value) {
            Ok(chunk) => self.read_chunk(chunk, parts),
            Err(error) => parts.push(self.fail(format!("the server sent data that is not a chat chunk: {error}"))),
        }
    }

    fn read_chunk(&mut self, chunk: Chunk, parts: &mut Vec<AnswerPart>) {
        if let Some(model) = chunk.model.filter(|model| !self.model_told && !model.is_empty()) {
            self.model_told = true;
            parts.push(AnswerPart::Model(model));
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.into());
        }
        // One choice is asked for (`n` is 1); others are not ours.
        let Some(choice) = chunk.choices.unwrap_or_default().into_iter().find(|choice| choice.index == 0) else {
            return;
        };
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.finish_reason = Some(finish_reason(&reason));
        }
        let content = choice.delta.and_then(|delta| delta.content);
        let Some(text) = content.filter(|text| !text.is_empty()) else { return };
        self.pieces = self.pieces.saturating_add(1);
        self.text_bytes += text.len();
        if self.text_bytes > MAX_ANSWER_BYTES {
            return parts.push(self.fail(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")));
        }
        parts.push(AnswerPart::Text(text));
    }

    fn fail(&mut self, message: String) -> AnswerPart {
        self.over = true;
        AnswerPart::Failed(failed(message))
    }
}

/// An answer in one piece, from a server that does not stream (`content-type: application/json`).
pub fn read_completion(body: &[u8]) -> Result<(Vec<AnswerPart>, AnswerEnd), WireError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| failed(format!("the server's answer is not JSON: {error}")))?;
    if let Some(error) = read_error(&value) {
        return Err(error.into_wire());
    }
    let chunk: Chunk = serde_json::from_value(value)
        .map_err(|error| failed(format!("the server's answer is not a chat completion: {error}")))?;
    let choice = chunk.choices.unwrap_or_default().into_iter().next();
    let choice = choice.ok_or_else(|| failed("the server's answer has no choices".into()))?;
    let text = choice.message.and_then(|message| message.content).unwrap_or_default();
    if text.len() > MAX_ANSWER_BYTES {
        return Err(failed(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")));
    }
    // Without usage the tokens of a whole answer are estimated as those of a prompt.
    let pieces = clamp(text.len().div_ceil(4) as u64);
    let finish_reason = choice.finish_reason.as_deref().map_or(FinishReason::Stop, finish_reason);
    let end = AnswerEnd { finish_reason, usage: chunk.usage.map(Usage::from), pieces };
    let model = chunk.model.filter(|model| !model.is_empty()).map(AnswerPart::Model);
    let text = (!text.is_empty()).then_some(AnswerPart::Text(text));
    Ok((model.into_iter().chain(text).collect(), end))
}

/// `content_filter` and `tool_calls` end an answer as `stop` does; only the length limit is told apart.
fn finish_reason(reason: &str) -> FinishReason {
    if reason == "length" { FinishReason::Length } else { FinishReason::Stop }
}

fn failed(message: String) -> WireError {
    WireError { code: ErrorCode::BackendFailed, message, retry_after_ms: None }
}

/// A chunk of a stream, and, with `message` in place of `delta`, a whole completion.
#[derive(Debug, Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<ReportedUsage>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Said>,
    message: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Said {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ReportedUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl From<ReportedUsage> for Usage {
    fn from(usage: ReportedUsage) -> Usage {
        Usage { prompt_tokens: clamp(usage.prompt_tokens), completion_tokens: clamp(usage.completion_tokens) }
    }
}

fn clamp(count: u64) -> u32 {
    count.min(u64::from(u32::MAX)) as u32
}
