//! Answers from the local model.

mod host;
mod run;

pub(super) use run::LocalRun;
pub(crate) use run::api_error;

use crate::config::{ModelSettings, ModelSource};
use host::Host;
use run::{CancelOnDrop, key, sampling_options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tether_models::registry::Registry;
use tether_models::{
    Cancel, ChatMessage, GenerateOptions, Job, ModelError, ModelInfo, OnContextFull, Prepared, WorkerStats,
};
use tether_protocol::SessionId;
use tether_protocol::api::{ApiError, ModelState};
use tether_protocol::context::Load;
use tether_protocol::record::Usage;
use tether_protocol::wire::Sampling;
use tokio::sync::mpsc;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the local model {name}: {problem}")]
    Registry { name: String, problem: String },
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The local model and its thread. It may be out of memory while nobody needs it; its next turn loads it again.
pub struct LocalModel {
    host: Arc<Host>,
    info: ModelInfo,
    name: String,
    path: PathBuf,
    keep_alive: Option<Duration>,
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
        let (path, name) = match &settings.source {
            ModelSource::Path(path) => (path.clone(), None),
            ModelSource::Registry(name) => (resolve(name)?, Some(name.clone())),
        };
        let host = Host::new(settings.clone(), path.clone());
        let info = host.load()?.engine().info().clone();
        let name = name.unwrap_or_else(|| info.name.clone());
        Ok(Self { host, info, name, path, keep_alive: settings.keep_alive })
    }

    /// Whether the files of all models are there, whole and of a kind that is known; nothing is loaded.
    ///
    /// # Errors
    /// As [`LocalModel::load`], as far as the files' headers tell.
    pub fn check(settings: &ModelSettings) -> Result<(), LoadError> {
        for source in std::iter::once(&settings.source).chain(&settings.zoo) {
            let path = match source {
                ModelSource::Path(path) => path.clone(),
                ModelSource::Registry(name) => resolve(name)?,
            };
            tether_models::check_file(&path)?;
        }
        Ok(())
    }

    /// The default model, and the whole zoo where the settings name more than one. Files that hold the same name (two
    /// quantizations of one model) are told apart by their own.
    ///
    /// # Errors
    /// As [`LocalModel::load`], for any of them.
    pub fn load_all(settings: &ModelSettings) -> Result<Vec<Arc<Self>>, LoadError> {
        let sources = std::iter::once(&settings.source).chain(&settings.zoo);
        let with = |source: &ModelSource| ModelSettings { source: source.clone(), ..settings.clone() };
        let mut models: Vec<Arc<Self>> = Vec::new();
        for source in sources {
            let mut model = Self::load(&with(source))?;
            if models.iter().any(|other| other.name == model.name) {
                model.name =
                    model.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            }
            models.push(Arc::new(model));
        }
        Ok(models)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Whether it is in memory, and how long it took to load the last time, in ms.
    pub fn state(&self) -> (ModelState, f64) {
        self.host.state_now()
    }

    pub fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive
    }

    pub fn stats(&self) -> WorkerStats {
        self.host.stats()
    }

    /// How long the model's thread has not moved although there is work; `None` while it idles.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.host.stalled_for()
    }

    pub fn context_tokens(&self) -> u32 {
        u32::try_from(self.info.context_tokens).unwrap_or(u32::MAX)
    }

    pub fn load_now(&self) -> Load {
        let stats = self.host.stats();
        Load {
            queue: u32::try_from(stats.queue).unwrap_or(u32::MAX),
            prefill_tokens_per_s: stats.prefill_tokens_per_s,
            decode_tokens_per_s: stats.decode_tokens_per_s,
        }
    }

    /// Begins to load in the background if the model is not in memory: a turn has come that may need it.
    pub(crate) fn warm_up(&self) {
        self.host.warm_up();
    }

    /// Unloads whenever nobody has used the model for [`keep_alive`](Self::keep_alive). Wakes up when that may be, and
    /// not at all while the model is not in memory.
    pub(crate) async fn unload_when_idle(host: IdleModel) {
        let IdleModel { host, keep_alive } = host;
        loop {
            let looking = host.clone();
            match tokio::task::spawn_blocking(move || looking.unload_if_idle(keep_alive)).await {
                Ok(Some(wait)) => tokio::time::sleep(wait).await,
                Ok(None) => host.until_loaded().await,
                Err(_) => return,
            }
        }
    }

    /// What [`unload_when_idle`](Self::unload_when_idle) works on; `None`: the model stays in memory.
    pub(crate) fn idle(&self) -> Option<IdleModel> {
        self.keep_alive.map(|keep_alive| IdleModel { host: self.host.clone(), keep_alive })
    }

    /// Ends the model's thread, and writes what it keeps to disk if that is wanted. Blocks.
    pub(crate) fn close(&self) {
        self.host.close();
    }

    /// Drops what was computed of a session. Blocks while the disk is written to.
    pub(crate) fn forget(&self, session: &SessionId) {
        self.host.forget(session.as_str());
    }

    /// How long what nobody uses is kept.
    pub(crate) fn set_max_age(&self, max_age: Duration) {
        self.host.set_max_age(max_age);
    }

    /// Renders and tokenizes a dialogue, off the async runtime: a megabyte of text takes a while.
    ///
    /// # Errors
    /// The dialogue does not fit, the model's template refuses it, or the model cannot be loaded again.
    pub(crate) async fn prepare(&self, prompt: LocalPrompt) -> Result<Prepared, ModelError> {
        let model = self.host.get().await?;
        let prepare = move || model.engine().prepare(&prompt.messages, prompt.on_context_full, prompt.reserve_tokens);
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.unwrap_or_else(|error| Err(ModelError::Stopped(error.to_string())))
    }

    /// Begins an answer; it is queued fairly among clients. What was computed of `session` before is used again. From
    /// now on the model computes with at most `most_threads`.
    ///
    /// # Errors
    /// 429 if the queue is full.
    pub(crate) async fn begin(
        &self,
        prepared: Prepared,
        sampling: &Sampling,
        max_tokens: u32,
        client: &str,
        session: Option<&SessionId>,
        most_threads: usize,
    ) -> Result<LocalRun, ApiError> {
        let model = self.host.get().await.map_err(|error| api_error(&error))?;
        model.engine().limit_threads(most_threads);
        let (tell, events) = mpsc::unbounded_channel();
        let cancel = Cancel::default();
        let prompt_tokens = u32::try_from(prepared.tokens.len()).unwrap_or(u32::MAX);
        let job = Job {
            client: key(client),
            session: session.map(|session| session.as_str().to_owned()),
            prompt: prepared.tokens,
            options: GenerateOptions {
                sampling: sampling_options(sampling),
                max_tokens: max_tokens as usize,
                stop: sampling.stop.clone(),
            },
            cancel: cancel.clone(),
            // A receiver that is gone has cancelled the job already.
            sink: Box::new(move |event| drop(tell.send(event))),
        };
        model.submit(job).map_err(|error| api_error(&error))?;
        Ok(LocalRun {
            events,
            cancel: CancelOnDrop(cancel),
            model: self.name.clone(),
            usage: Usage { prompt_tokens, completion_tokens: 0 },
            dropped_messages: u32::try_from(prepared.dropped_messages).unwrap_or(u32::MAX),
            _model_in_use: model,
        })
    }
}

/// A model that goes out of memory when it idles.
pub(crate) struct IdleModel {
    host: Arc<Host>,
    keep_alive: Duration,
}

fn resolve(name: &str) -> Result<PathBuf, LoadError> {
    let file = Registry::from_env().and_then(|registry| registry.resolve(name));
    file.map_err(|error| LoadError::Registry { name: name.to_owned(), problem: error.to_string() })
}
