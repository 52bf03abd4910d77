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
    failure: Option<WireError>,
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
    /// one that merely lacks `[DONE]` is not. May return text that stood in an unterminated last event. A failure that
    /// was told as a part is returned again.
    pub fn finish(mut self) -> (Vec<AnswerPart>, Result<AnswerEnd, WireError>) {
        let last = std::mem::take(&mut self.sse).finish().ok().flatten().filter(|_| !self.over);
        let parts = match last {
            Some(last) if is_whole(&last.data) => self.read_events(vec![last]),
            // Half an event is what a broken connection leaves; a missing end is reported below.
            _ => Vec::new(),
        };
        if let Some(failure) = self.failure {
            return (parts, Err(failure));
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
        if event.data.trim() == DONE {
            self.over = true;
            parts.push(AnswerPart::Done);
            return;
        }
        let value: Value = match serde_json::from_str(&event.data) {
            Ok(value) => value,
            Err(error) => return parts.push(self.fail(format!("the server sent data that is not JSON: {error}"))),
        };
        if let Some(error) = read_error(&value) {
            return parts.push(self.fail_with(error.into_wire()));
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
        self.fail_with(failed(message))
    }

    fn fail_with(&mut self, error: WireError) -> AnswerPart {
        self.over = true;
        self.failure = Some(error.clone());
        AnswerPart::Failed(error)
    }
}

const DONE: &str = "[DONE]";

fn is_whole(data: &str) -> bool {
    data.trim() == DONE || serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n\
        data: {\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Gr\u{fc}n\"},\"finish_reason\":null}]}\r\n\r\n\
        : ping\n\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"not asked for\"}}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"e\"},\"finish_reason\":\"length\"}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":5000000000}}\n\ndata: [DONE]\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"late\"}}]}\n\n";

    fn read(pieces: &[&[u8]]) -> (Vec<AnswerPart>, Result<AnswerEnd, WireError>) {
        let mut reader = AnswerReader::default();
        let mut parts: Vec<AnswerPart> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
        let (last, end) = reader.finish();
        parts.extend(last);
        (parts, end)
    }

    fn text(text: &str) -> AnswerPart {
        AnswerPart::Text(text.into())
    }

    #[test]
    fn a_stream_split_at_any_byte_reads_the_same() {
        let expected = vec![AnswerPart::Model("m-1".into()), text("Gr\u{fc}n"), text("e"), AnswerPart::Done];
        for at in 0..=STREAM.len() {
            let (parts, end) = read(&[&STREAM.as_bytes()[..at], &STREAM.as_bytes()[at..]]);
            assert_eq!(parts, expected, "split at {at}");
            let usage = Usage { prompt_tokens: 12, completion_tokens: u32::MAX };
            assert_eq!(end.unwrap(), AnswerEnd { finish_reason: FinishReason::Length, usage: Some(usage), pieces: 2 });
        }
    }

    #[test]
    fn a_stream_cut_at_any_byte_is_an_error_until_its_end_is_known() {
        let last = "\"usage\":null}";
        let known = STREAM.find(last).unwrap() + last.len();
        for at in 0..STREAM.len() {
            assert_eq!(read(&[&STREAM.as_bytes()[..at]]).1.is_ok(), at >= known, "cut at {at}");
        }
    }

    #[test]
    fn errors_end_the_stream_behind_the_text() {
        let failing = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"message\":\"full\",\"code\":\"rate_limit_exceeded\"}}\n\ndata: {}\n\n";
        let (parts, end) = read(&[failing.as_bytes()]);
        assert_eq!(parts[0], text("a"));
        assert!(matches!(&parts[1..], [AnswerPart::Failed(error)] if error.code == ErrorCode::Overloaded));
        assert!(end.is_err());
        for bad in ["data: {\n\n", "data: [1]\n\n", "data: {\"choices\":3}\n\n", "data: \u{0}\n\n"] {
            let (parts, end) = read(&[bad.as_bytes()]);
            assert!(matches!(&parts[..], [AnswerPart::Failed(_)]) && end.is_err(), "{bad:?}: {parts:?}");
        }
    }

    #[test]
    fn the_answers_limit_holds_exactly() {
        let chunk = |bytes: usize| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(bytes))
        };
        let (parts, _) = read(&[chunk(MAX_ANSWER_BYTES).as_bytes(), b"data: [DONE]\n\n"]);
        assert_eq!(parts.last(), Some(&AnswerPart::Done));
        let (parts, _) = read(&[chunk(MAX_ANSWER_BYTES).as_bytes(), chunk(1).as_bytes()]);
        assert!(matches!(parts.last(), Some(AnswerPart::Failed(_))), "one byte more is too much");
    }

    #[test]
    fn a_whole_completion_is_read_like_a_stream() {
        let body = r#"{"model":"m","choices":[{"message":{"content":"Yes."},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        let (parts, end) = read_completion(body.as_bytes()).unwrap();
        assert_eq!(parts, [AnswerPart::Model("m".into()), text("Yes.")]);
        assert_eq!(end.usage_or_estimate(99), (Usage { prompt_tokens: 3, completion_tokens: 2 }, false));
        for bad in ["", "{}", "[]", r#"{"choices":[]}"#, r#"{"error":"no"}"#] {
            assert!(read_completion(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
