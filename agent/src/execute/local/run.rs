//! One answer of the local model under way.

use super::host::InUse;
use crate::execute::{Finished, Step};
use std::hash::{DefaultHasher, Hash, Hasher};
use tether_models::{Cancel, Event, Finish, ModelError, SamplingOptions};
use tether_protocol::api::ApiError;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::Sampling;
use tokio::sync::mpsc;

/// An answer that the local model is making.
pub struct LocalRun {
    /// Unbounded, because the model's thread must not wait; `max_tokens` bounds it.
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) cancel: CancelOnDrop,
    pub(super) model: String,
    /// The prompt, and the tokens that came so far.
    pub(super) usage: Usage,
    pub(super) dropped_messages: u32,
    /// Keeps the model loaded.
    pub(super) _model_in_use: InUse,
}

pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl LocalRun {
    pub(in crate::execute) fn model(&self) -> &str {
        &self.model
    }

    pub(in crate::execute) fn usage(&self) -> Usage {
        self.usage
    }

    pub(in crate::execute) async fn next(&mut self) -> Step {
        loop {
            match self.events.recv().await {
                Some(Event::Started) => {}
                Some(Event::Text(text)) => {
                    self.usage.completion_tokens += 1;
                    if !text.is_empty() {
                        return Step::Text(text);
                    }
                }
                Some(Event::Done(done)) => return Step::Done(self.finished(&done)),
                Some(Event::Failed(error)) => return Step::Failed(api_error(&error)),
                Some(Event::Cancelled) | None => {
                    debug_assert!(!self.cancel.0.is_cancelled(), "only dropping this run cancels it");
                    return Step::Failed(ApiError::server(503, "local_failed", "the local model's thread stopped"));
                }
            }
        }
    }

    fn finished(&self, done: &tether_models::Generated) -> Finished {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        Finished {
            finish_reason: match done.finish {
                Finish::Stop => FinishReason::Stop,
                Finish::Length => FinishReason::Length,
            },
            usage: Usage { prompt_tokens: count(done.prompt_tokens), completion_tokens: count(done.completion_tokens) },
            usage_estimated: false,
            cost_usd: Some(0.0),
            dropped_messages: self.dropped_messages,
            queue_ms: Some(done.queue_ms),
            cached_tokens: Some(count(done.cached_tokens)),
        }
    }
}

/// Without a temperature the local model answers as the makers of small instruct models advise (SmolLM2's card: 0.2
/// and top_p 0.9); a seed that nobody gave is drawn.
pub(super) fn sampling_options(asked: &Sampling) -> SamplingOptions {
    let usual = asked.temperature.is_none();
    SamplingOptions {
        temperature: asked.temperature.unwrap_or(0.2),
        top_k: asked.top_k.map(|k| k as usize),
        top_p: asked.top_p.or(usual.then_some(0.9)),
        min_p: asked.min_p,
        repetition_penalty: asked.repetition_penalty.unwrap_or(1.0),
        seed: asked.seed.unwrap_or_else(rand::random),
    }
}

/// What is wrong with the local model or with the prompt, as the client sees it.
pub(crate) fn api_error(error: &ModelError) -> ApiError {
    match error {
        ModelError::ContextFull { .. } => {
            let fix = "send less, raise model.context_tokens as far as the model goes, or ask the cloud";
            ApiError::bad_request("messages", "context_length_exceeded", format!("{error}; {fix}"))
        }
        ModelError::Parameter { parameter, .. } => {
            ApiError::bad_request(*parameter, "invalid_value", error.to_string())
        }
        ModelError::Template(_) => ApiError::bad_request("messages", "template_refused", error.to_string()),
        ModelError::QueueFull(_) => ApiError::busy(429, "queue_full", error.to_string(), 1),
        _ => ApiError::server(500, "local_failed", error.to_string()),
    }
}

pub(super) fn key(client: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish()
}
