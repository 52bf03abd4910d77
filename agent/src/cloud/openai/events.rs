//! From what the server says to the events of a turn. Pure.

use super::OpenAiConfig;
use tether_protocol::openai::{AnswerEnd, AnswerPart, AnswerReader, read_completion};
use tether_protocol::record::Usage;
use tether_protocol::wire::{Accepted, Done, ErrorCode, TurnEvent, Vision, WireError};

#[derive(Debug)]
pub(super) struct EventReader {
    /// `None` once the answer has ended.
    answer: Option<AnswerReader>,
    model: String,
    vision: Vision,
    prices: Prices,
    prompt_bytes: usize,
    accepted: bool,
    failed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Prices {
    usd_per_prompt_token: f64,
    usd_per_completion_token: f64,
}

impl EventReader {
    /// `prompt_bytes` stands in for a prompt's tokens where the server reports no usage.
    pub(super) fn new(config: &OpenAiConfig, prompt_bytes: usize) -> Self {
        Self {
            answer: Some(AnswerReader::default()),
            model: config.model.clone(),
            vision: if config.vision { Vision::Native } else { Vision::None },
            prices: Prices {
                usd_per_prompt_token: config.usd_per_million_prompt_tokens / 1e6,
                usd_per_completion_token: config.usd_per_million_completion_tokens / 1e6,
            },
            prompt_bytes,
            accepted: false,
            failed: false,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<TurnEvent> {
        let parts = self.answer.as_mut().map_or_else(Vec::new, |answer| answer.push(bytes));
        self.read_parts(parts)
    }

    /// Whether nothing that the server may still send would be read.
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.answer.as_ref().is_none_or(AnswerReader::is_over)
    }

    /// The body has ended. Gives the last event, once.
    pub(super) fn finish(&mut self) -> Vec<TurnEvent> {
        let Some(answer) = self.answer.take().filter(|_| !self.failed) else { return Vec::new() };
        let (parts, end) = answer.finish();
        let mut events = self.read_parts(parts);
        if !self.failed {
            events.extend(self.end(end));
        }
        events
    }

    /// An answer in one piece.
    pub(super) fn read_whole(&mut self, body: &[u8]) -> Vec<TurnEvent> {
        self.answer = None;
        match read_completion(body) {
            Ok((parts, end)) => {
                let mut events = self.read_parts(parts);
                events.extend(self.end(Ok(end)));
                events
            }
            Err(error) => self.end(Err(error)),
        }
    }

    /// The connection broke. An answer that was complete by then still counts.
    pub(super) fn broken(&mut self, problem: String) -> Vec<TurnEvent> {
        let mut events = self.finish();
        if let Some(TurnEvent::Error(error)) = events.last_mut() {
            error.message = format!("the connection broke: {problem}");
        }
        events
    }

    fn read_parts(&mut self, parts: Vec<AnswerPart>) -> Vec<TurnEvent> {
        let mut events = Vec::new();
        for part in parts {
            match part {
                AnswerPart::Model(model) => self.model = model,
                AnswerPart::Text(text) => {
                    self.accept(&mut events);
                    events.push(TurnEvent::Text(text));
                }
                AnswerPart::Done => {}
                AnswerPart::Failed(error) => {
                    self.failed = true;
                    events.push(TurnEvent::Error(error));
                }
            }
        }
        events
    }

    /// Told with the first text, because the model's full name comes with it.
    fn accept(&mut self, events: &mut Vec<TurnEvent>) {
        if !std::mem::replace(&mut self.accepted, true) {
            events.push(TurnEvent::Accepted(Accepted { model: self.model.clone(), vision: self.vision }));
        }
    }

    fn end(&mut self, end: Result<AnswerEnd, WireError>) -> Vec<TurnEvent> {
        let mut events = Vec::new();
        match end {
            Ok(end) => {
                self.accept(&mut events);
                let (usage, usage_estimated) = end.usage_or_estimate(self.prompt_bytes);
                events.push(TurnEvent::Done(Done {
                    finish_reason: end.finish_reason,
                    usage,
                    usage_estimated,
                    cost_usd: self.prices.cost_usd(usage),
                    dropped_messages: 0,
                    queue_ms: 0,
                }));
            }
            Err(error) => {
                self.failed = true;
                events.push(TurnEvent::Error(error));
            }
        }
        events
    }
}

impl Prices {
    fn cost_usd(self, usage: Usage) -> f64 {
        f64::from(usage.prompt_tokens) * self.usd_per_prompt_token
            + f64::from(usage.completion_tokens) * self.usd_per_completion_token
    }
}

/// For errors that no server said.
pub(super) fn failed(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::BackendFailed, message)
}
