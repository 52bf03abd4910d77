//! A GGUF model in this process, on a thread of its own.

use super::{Answer, Ask, BackendError, Piece, Pieces, flat_text};
use crate::config::{BackendSettings, CandleSettings};
use anyhow::Context as _;
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tether_models::{
    Cancel, ChatMessage, Engine, Event, Finish, GenerateOptions, Generated, Job, LoadOptions, ModelError,
    SamplingOptions, SlotOptions, Worker, WorkerOptions,
};
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::{ErrorCode, Role, Sampling};
use tokio::sync::mpsc;

/// A dialogue's next turn comes within minutes, or somewhere else.
const KEPT: Duration = Duration::from_secs(600);

pub struct CandleBackend {
    worker: Worker,
    on_context_full: tether_models::OnContextFull,
}

impl std::fmt::Debug for CandleBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CandleBackend").field("model", &self.worker.engine().info().name).finish_non_exhaustive()
    }
}

impl CandleBackend {
    /// Loads the model; blocks for about a second.
    pub fn load(settings: &CandleSettings, common: &BackendSettings) -> anyhow::Result<Self> {
        let path = settings.resolve_model()?;
        let options = LoadOptions {
            context_tokens: common.context_tokens.map(|tokens| tokens as usize),
            threads: settings.threads,
            ..LoadOptions::default()
        };
        let engine = Engine::load(&path, &options).with_context(|| format!("zoo model {}", common.name))?;
        // The gate before this worker is the queue that people configure; here every turn that it lets in has room.
        let queue_limit = common.concurrency + common.queue;
        // Devices of several tenants ask here: none may learn from an answer's speed what another one sent.
        let slots = SlotOptions { share_between_clients: false, max_age: Some(KEPT), ..SlotOptions::default() };
        let options = WorkerOptions { queue_limit, slots, ..WorkerOptions::default() };
        let worker = Worker::start(Arc::new(engine), options)?;
        Ok(Self { worker, on_context_full: settings.on_context_full })
    }

    pub fn context_tokens(&self) -> usize {
        self.worker.engine().info().context_tokens
    }

    pub async fn answer(&self, ask: &Ask) -> Result<Pieces, BackendError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let cancel = Cancel::default();
        let guard = CancelOnDrop(cancel.clone());
        let prepared = self.prepare(ask).await?;
        let dropped_messages = prepared.dropped_messages.try_into().unwrap_or(u32::MAX);
        let job = Job {
            client: ask.client,
            // A dialogue comes whole with each turn; what was computed of it is found by its tokens.
            session: None,
            prompt: prepared.tokens,
            options: options(ask),
            cancel,
            // A closed channel means that the stream was dropped, and then the guard has cancelled the job already.
            sink: Box::new(move |event| drop(sender.send(event))),
        };
        self.worker.submit(job).map_err(refusal)?;
        let pieces = stream::unfold((receiver, guard), |(mut receiver, guard)| async {
            let event = receiver.recv().await?;
            Some((event, (receiver, guard)))
        });
        Ok(pieces.filter_map(move |event| std::future::ready(piece(event, dropped_messages))).boxed())
    }

    pub fn probe(&self) -> Result<(), BackendError> {
        // The thread survives a failed job; that it can still tokenize is what can be told without disturbing turns.
        let hello = [ChatMessage { role: "user".into(), content: "hello".into() }];
        self.worker.engine().prepare(&hello, self.on_context_full, 1).map(drop).map_err(refusal)
    }

    /// Renders and tokenizes on a thread for blocking work: a megabyte of text takes a while.
    async fn prepare(&self, ask: &Ask) -> Result<tether_models::Prepared, BackendError> {
        let messages: Vec<ChatMessage> = ask
            .request
            .messages
            .iter()
            .map(|message| ChatMessage { role: role_name(message.role).to_owned(), content: flat_text(message) })
            .collect();
        let (engine, on_context_full) = (Arc::clone(self.worker.engine()), self.on_context_full);
        // An answer longer than half the context leaves no room for a question.
        let reserve = (ask.max_tokens() as usize).min(engine.info().context_tokens / 2);
        let prepared = tokio::task::spawn_blocking(move || engine.prepare(&messages, on_context_full, reserve)).await;
        prepared.map_err(|_| BackendError::Failed("preparing the prompt failed".into()))?.map_err(refusal)
    }
}

/// Frees the model when the stream is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// Without a temperature the model answers as the makers of small instruct models advise (0.2, top_p 0.9), like the
/// same model on a device; a seed that nobody gave is drawn.
fn options(ask: &Ask) -> GenerateOptions {
    let Sampling { temperature, top_p, top_k, min_p, repetition_penalty, seed, ref stop, .. } = ask.request.sampling;
    let usual = temperature.is_none();
    GenerateOptions {
        sampling: SamplingOptions {
            temperature: temperature.unwrap_or(0.2),
            top_k: top_k.map(|k| k as usize),
            top_p: top_p.or(usual.then_some(0.9)),
            min_p,
            repetition_penalty: repetition_penalty.unwrap_or(1.0),
            seed: seed.unwrap_or_else(rand::random),
        },
        max_tokens: ask.max_tokens() as usize,
        stop: stop.clone(),
    }
}

fn piece(event: Event, dropped_messages: u32) -> Option<Result<Piece, BackendError>> {
    match event {
        Event::Started => None,
        Event::Text(text) if text.is_empty() => None,
        Event::Text(text) => Some(Ok(Piece::Text(text))),
        Event::Done(generated) => Some(Ok(Piece::End(end(&generated, dropped_messages)))),
        Event::Cancelled => Some(Err(BackendError::Failed("the turn was cancelled by the model's thread".into()))),
        Event::Failed(error) => Some(Err(refusal(error))),
    }
}

fn end(generated: &Generated, dropped_messages: u32) -> Answer {
    let count = |tokens: usize| tokens.try_into().unwrap_or(u32::MAX);
    Answer {
        finish_reason: match generated.finish {
            Finish::Stop => FinishReason::Stop,
            Finish::Length => FinishReason::Length,
        },
        usage: Usage {
            prompt_tokens: count(generated.prompt_tokens),
            completion_tokens: count(generated.completion_tokens),
        },
        usage_estimated: false,
        dropped_messages,
    }
}

fn refusal(error: ModelError) -> BackendError {
    let message = error.to_string();
    match error {
        ModelError::ContextFull { .. } => BackendError::refused(ErrorCode::ContextFull, message),
        ModelError::Parameter { .. } | ModelError::Template(_) => BackendError::refused(ErrorCode::BadRequest, message),
        ModelError::QueueFull(_) => BackendError::Busy { message, retry_after_ms: None },
        _ => BackendError::Failed(message),
    }
}
