//! Whether the model is in memory: loaded when a turn needs it, unloaded when none has for a while.

use super::LoadError;
use crate::config::ModelSettings;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tether_models::{DiskOptions, Engine, ModelError, SlotOptions, Worker, WorkerOptions, WorkerStats, fingerprint};
use tether_protocol::api::ModelState;
use tokio::sync::Notify;

/// The model's place in memory.
pub(super) struct Host {
    settings: ModelSettings,
    path: PathBuf,
    state: Mutex<State>,
    /// Held while the model is loaded or unloaded.
    loading: Mutex<()>,
    /// A model came into memory.
    loaded: Notify,
}

struct State {
    worker: Option<Arc<Worker>>,
    is_loading: bool,
    used: Instant,
    max_age: Option<Duration>,
    /// What the last worker had measured when it went.
    stats: WorkerStats,
    load_ms: f64,
}

/// The model while somebody uses it: it stays in memory, and counts as used until the last of these is dropped.
pub(super) struct InUse {
    host: Arc<Host>,
    worker: Arc<Worker>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.host.state().used = Instant::now();
    }
}

impl std::ops::Deref for InUse {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Host {
    /// Nothing is loaded yet.
    pub(super) fn new(settings: ModelSettings, path: PathBuf) -> Arc<Host> {
        let state = State {
            worker: None,
            is_loading: false,
            used: Instant::now(),
            max_age: None,
            stats: WorkerStats::default(),
            load_ms: 0.0,
        };
        let state = Mutex::new(state);
        Arc::new(Host { settings, path, state, loading: Mutex::default(), loaded: Notify::new() })
    }

    /// The model, loaded first if it is not in memory. Blocks for as long as that takes.
    pub(super) fn load(self: &Arc<Self>) -> Result<InUse, LoadError> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = self.resident() {
            return Ok(model);
        }
        self.state().is_loading = true;
        let started = Instant::now();
        let opened = self.open();
        let mut state = self.state();
        state.is_loading = false;
        let worker = Arc::new(opened?);
        worker.set_max_age(state.max_age);
        state.load_ms = started.elapsed().as_secs_f64() * 1e3;
        state.used = Instant::now();
        state.worker = Some(worker.clone());
        drop(state);
        self.loaded.notify_one();
        Ok(InUse { host: self.clone(), worker })
    }

    fn open(&self) -> Result<Worker, LoadError> {
        let ModelSettings { load, queue_limit, cache, speculation, .. } = &self.settings;
        let engine = Arc::new(Engine::load(&self.path, load)?);
        let options = WorkerOptions {
            queue_limit: *queue_limit,
            slots: SlotOptions { max_bytes: cache.max_bytes, ..SlotOptions::default() },
            disk: self.disk()?,
            speculation: *speculation,
        };
        Ok(Worker::start(engine, options)?)
    }

    fn disk(&self) -> Result<Option<DiskOptions>, LoadError> {
        let cache = &self.settings.cache;
        if cache.max_disk_bytes == 0 {
            return Ok(None);
        }
        let unreadable =
            |error: std::io::Error| ModelError::File { path: self.path.clone(), problem: error.to_string() };
        let fingerprint = fingerprint(&self.path).map_err(unreadable)?;
        Ok(Some(DiskOptions { folder: cache.folder.clone(), max_bytes: cache.max_disk_bytes, fingerprint }))
    }

    /// The model if it is in memory.
    pub(super) fn resident(self: &Arc<Self>) -> Option<InUse> {
        let mut state = self.state();
        let worker = state.worker.clone()?;
        state.used = Instant::now();
        drop(state);
        Some(InUse { host: self.clone(), worker })
    }

    /// The model, loaded on a thread for blocking work if it is not in memory.
    pub(super) async fn get(self: &Arc<Self>) -> Result<InUse, ModelError> {
        if let Some(model) = self.resident() {
            return Ok(model);
        }
        let host = self.clone();
        // Not undone if the turn is cancelled meanwhile: the next one finds the model loaded.
        match tokio::task::spawn_blocking(move || host.load()).await {
            Ok(Ok(model)) => Ok(model),
            Ok(Err(LoadError::Model(error))) => Err(error),
            Ok(Err(error)) => Err(ModelError::Stopped(error.to_string())),
            Err(error) => Err(ModelError::Stopped(error.to_string())),
        }
    }

    /// Begins to load in the background, unless the model is in memory.
    pub(super) fn warm_up(self: &Arc<Self>) {
        let mut state = self.state();
        if state.worker.is_some() || state.is_loading {
            return;
        }
        state.is_loading = true;
        drop(state);
        let host = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = host.load() {
                tracing::error!(%error, "the local model could not be loaded again");
            }
        });
    }

    /// Unloads if nobody has used the model for `keep_alive`. Returns when to ask again; `None`: once it is
    /// [loaded](Self::until_loaded). Blocks while the model's thread ends, and writes its caches to disk if it does so.
    pub(super) fn unload_if_idle(&self, keep_alive: Duration) -> Option<Duration> {
        // So that nobody loads while caches are being written to disk.
        let Ok(_unloading) = self.loading.try_lock() else { return Some(keep_alive) };
        let mut state = self.state();
        let worker = state.worker.as_ref()?;
        let idle = state.used.elapsed();
        let busy = Arc::strong_count(worker) > 1;
        if busy || idle < keep_alive {
            return Some(if busy { keep_alive } else { keep_alive - idle });
        }
        let worker = self.take(&mut state);
        drop(state);
        drop(worker);
        tracing::info!(idle_s = idle.as_secs(), "the local model was unloaded (model.keep_alive_s)");
        None
    }

    /// Unloads, whoever uses it.
    pub(super) fn close(&self) {
        let _closing = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = self.take(&mut self.state());
        drop(worker);
    }

    fn take(&self, state: &mut State) -> Option<Arc<Worker>> {
        let worker = state.worker.take()?;
        state.stats = worker.stats();
        Some(worker)
    }

    pub(super) async fn until_loaded(&self) {
        self.loaded.notified().await;
    }

    pub(super) fn state_now(&self) -> (ModelState, f64) {
        let state = self.state();
        let now = match (&state.worker, state.is_loading) {
            (Some(_), _) => ModelState::Loaded,
            (None, true) => ModelState::Loading,
            (None, false) => ModelState::Unloaded,
        };
        (now, state.load_ms)
    }

    /// Looking does not count as use.
    pub(super) fn stats(&self) -> WorkerStats {
        let state = self.state();
        match &state.worker {
            Some(worker) => worker.stats(),
            None => WorkerStats { queue: 0, slots: Default::default(), ..state.stats },
        }
    }

    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.state().worker.as_ref()?.stalled_for()
    }

    pub(super) fn set_max_age(&self, max_age: Duration) {
        let mut state = self.state();
        state.max_age = Some(max_age);
        state.worker.iter().for_each(|worker| worker.set_max_age(Some(max_age)));
    }

    /// Blocks while the disk is written to, and while the model is loaded or unloaded.
    pub(super) fn forget(&self, session: &str) {
        // A worker that is ending writes its caches; only after that is it known what to remove.
        let _nobody_comes_or_goes = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = self.state().worker.clone();
        match worker {
            Some(worker) => worker.forget(session),
            None => tether_models::forget_on_disk(&self.settings.cache.folder, session),
        }
    }

    /// The state is whole between statements, so a panic elsewhere while it was locked does not matter.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
