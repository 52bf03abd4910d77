//! Answers from the local model.

use super::{Finished, Step};
use crate::config::{ModelSettings, ModelSource};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_models::registry::Registry;
use tether_models::{
    Cancel, ChatMessage, Engine, Event, Finish, GenerateOptions, Job, ModelError, OnContextFull, Prepared,
    SamplingOptions, Worker, WorkerOptions,
};
use tether_protocol::api::ApiError;
use tether_protocol::context::Load;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::Sampling;
use tokio::sync::mpsc;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the local model {name}: {problem}")]
    Registry { name: String, problem: String },
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The loaded model and its thread.
pub struct LocalModel {
    worker: Worker,
    name: String,
    path: PathBuf,
    load_ms: f64,
}

/// A dialogue as the local model will see it.
#[derive(Debug, Clone, Default)]
pub struct LocalPrompt {
    pub messages: Vec<ChatMessage>,
    /// Tokens kept free for the answer.
    pub reserve_tokens: usize,
    pub on_context_full: OnContextFull,
}

impl LocalModel {
    /// Loads the file and starts its thread. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The model is not in the registry or not downloaded, or its file is damaged.
    pub fn load(settings: &ModelSettings) -> Result<Self, LoadError> {
        let started = Instant::now();
        let (path, name) = match &settings.source {
            ModelSource::Path(path) => (path.clone(), None),
            ModelSource::Registry(name) => (resolve(name)?, Some(name.clone())),
        };
        let engine = Arc::new(Engine::load(&path, &settings.load)?);
        let name = name.unwrap_or_else(|| engine.info().name.clone());
        let worker =
            Worker::start(engine, WorkerOptions { queue_limit: settings.queue_limit, ..WorkerOptions::default() })?;
        Ok(Self { worker, name, path, load_ms: started.elapsed().as_secs_f64() * 1e3 })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn load_ms(&self) -> f64 {
        self.load_ms
    }

    pub fn engine(&self) -> &Arc<Engine> {
        self.worker.engine()
    }

    /// How long the model's thread has not moved although there is work; `None` while it idles.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.worker.stalled_for()
    }

    pub fn context_tokens(&self) -> u32 {
        u32::try_from(self.engine().info().context_tokens).unwrap_or(u32::MAX)
    }

    pub fn load_now(&self) -> Load {
        let stats = self.worker.stats();
        Load {
            queue: u32::try_from(stats.queue).unwrap_or(u32::MAX),
            prefill_tokens_per_s: stats.prefill_tokens_per_s,
            decode_tokens_per_s: stats.decode_tokens_per_s,
        }
    }

    /// Renders and tokenizes a dialogue, off the async runtime: a megabyte of text takes a while.
    ///
    /// # Errors
    /// The dialogue does not fit, or the model's template refuses it.
    pub(crate) async fn prepare(&self, prompt: LocalPrompt) -> Result<Prepared, ModelError> {
        let engine = self.engine().clone();
        let prepare = move || engine.prepare(&prompt.messages, prompt.on_context_full, prompt.reserve_tokens);
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.unwrap_or_else(|error| Err(ModelError::Stopped(error.to_string())))
    }

    /// Begins an answer; it is queued fairly among clients.
    ///
    /// # Errors
    /// 429 if the queue is full.
    pub(crate) fn begin(
        &self,
        prepared: Prepared,
        sampling: &Sampling,
        max_tokens: u32,
        client: &str,
    ) -> Result<LocalRun, ApiError> {
        let (tell, events) = mpsc::unbounded_channel();
        let cancel = Cancel::default();
        let run = LocalRun {
            events,
            cancel: CancelOnDrop(cancel.clone()),
            model: self.name.clone(),
            dropped_messages: u32::try_from(prepared.dropped_messages).unwrap_or(u32::MAX),
        };
        let job = Job {
            client: key(client),
            session: None,
            prompt: prepared.tokens,
            options: GenerateOptions {
                sampling: sampling_options(sampling),
                max_tokens: max_tokens as usize,
                stop: sampling.stop.clone(),
            },
            cancel,
            // A receiver that is gone has cancelled the job already.
            sink: Box::new(move |event| drop(tell.send(event))),
        };
        self.worker.submit(job).map_err(|error| api_error(&error))?;
        Ok(run)
    }
}

fn resolve(name: &str) -> Result<PathBuf, LoadError> {
    let file = Registry::from_env().and_then(|registry| registry.resolve(name));
    file.map_err(|error| LoadError::Registry { name: name.to_owned(), problem: error.to_string() })
}

/// An answer that the local model is making.
pub struct LocalRun {
    /// Unbounded, because the model's thread must not wait; `max_tokens` bounds it.
    events: mpsc::UnboundedReceiver<Event>,
    cancel: CancelOnDrop,
    model: String,
    dropped_messages: u32,
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl LocalRun {
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) async fn next(&mut self) -> Step {
        loop {
            match self.events.recv().await {
                Some(Event::Started) => {}
                Some(Event::Text(text)) if text.is_empty() => {}
                Some(Event::Text(text)) => return Step::Text(text),
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
        }
    }
}

/// Without a temperature the local model answers as the makers of small instruct models advise (SmolLM2's card: 0.2
/// and top_p 0.9); a seed that nobody gave is drawn.
fn sampling_options(asked: &Sampling) -> SamplingOptions {
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
            ApiError::bad_request("messages", "context_length_exceeded", error.to_string())
        }
        ModelError::Parameter { parameter, .. } => {
            ApiError::bad_request(*parameter, "invalid_value", error.to_string())
        }
        ModelError::Template(_) => ApiError::bad_request("messages", "template_refused", error.to_string()),
        ModelError::QueueFull(_) => ApiError::busy(429, "queue_full", error.to_string(), 1),
        _ => ApiError::server(500, "local_failed", error.to_string()),
    }
}

fn key(client: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish()
}
