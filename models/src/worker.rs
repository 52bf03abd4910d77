//! The thread that a model runs on: a bounded queue, fair between clients, never the async runtime.

use crate::engine::Engine;
use crate::error::ModelError;
use crate::generate::{GenerateOptions, Generated};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops a job within one token or one prefill chunk.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a job reports, in this order: `Started`, any number of `Text`, then `Done` or `Failed` once. A cancelled
/// job ends with `Cancelled`.
#[derive(Debug)]
pub enum Event {
    Started,
    /// Whole characters only.
    Text(String),
    Done(Generated),
    Cancelled,
    Failed(ModelError),
}

/// One answer to make.
pub struct Job {
    /// Jobs are served round-robin between clients.
    pub client: u64,
    pub prompt: Vec<u32>,
    pub options: GenerateOptions,
    pub cancel: Cancel,
    /// Called on the model's thread; must not block.
    pub sink: Box<dyn FnMut(Event) + Send>,
}

#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Jobs that may wait.
    pub queue_limit: usize,
}

/// Measured rates and the queue, for predictions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WorkerStats {
    /// Jobs waiting, the one being served included.
    pub queue: usize,
    pub prefill_tokens_per_s: Option<f64>,
    pub decode_tokens_per_s: Option<f64>,
}

/// A running model. Dropping it cancels what runs and joins the thread.
pub struct Worker {
    engine: Arc<Engine>,
}

impl Worker {
    pub fn start(engine: Arc<Engine>, options: WorkerOptions) -> Result<Worker, ModelError> {
        let _ = options;
        Ok(Worker { engine })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn submit(&self, job: Job) -> Result<(), ModelError> {
        let _ = job;
        Err(ModelError::Stopped("not written yet".into()))
    }

    pub fn stats(&self) -> WorkerStats {
        WorkerStats::default()
    }
}
