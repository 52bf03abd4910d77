//! The thread that a model runs on: a bounded queue, fair between clients, never the async runtime.

mod pulse;
mod queue;
mod stats;

pub use stats::WorkerStats;

use crate::engine::Engine;
use crate::error::ModelError;
use crate::generate::{Advance, GenerateOptions, Generated, Generation, Sequence};
use pulse::Pulse;
use queue::{Queue, Waiting};
use stats::Rates;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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
/// job ends with `Cancelled`. A job that never started reports only its end.
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
    /// Called on the model's thread (for jobs that are dropped with the worker: on the dropping one); must not block.
    pub sink: Box<dyn FnMut(Event) + Send>,
}

#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Jobs that may wait.
    pub queue_limit: usize,
}

/// A running model. Dropping it cancels what runs and joins the thread.
pub struct Worker {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Queue,
    rates: Rates,
    pulse: Pulse,
}

impl Worker {
    pub fn start(engine: Arc<Engine>, options: WorkerOptions) -> Result<Worker, ModelError> {
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_limit),
            rates: Rates::default(),
            pulse: Pulse::default(),
        });
        let mut sequence = Sequence::new(&engine)?;
        let (thread_engine, thread_shared) = (engine.clone(), shared.clone());
        let run = move || {
            while let Some(waiting) = thread_shared.queue.next() {
                serve(&thread_engine, &thread_shared, &mut sequence, waiting);
            }
        };
        let thread = std::thread::Builder::new().name("model".into()).spawn(run);
        let thread = thread.map_err(|error| ModelError::Stopped(format!("it could not be started: {error}")))?;
        Ok(Worker { engine, shared, thread: Some(thread) })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Queues a job. Its events come from the model's thread.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`] if as many jobs wait as may; the sink is then never called.
    pub fn submit(&self, job: Job) -> Result<(), ModelError> {
        if self.shared.queue.len() == 0 {
            // An idle thread's last move was long ago; from here on it has something to do.
            self.shared.pulse.beat();
        }
        self.shared.queue.push(job)
    }

    /// How long the thread has not moved although there is work: between two tokens, or two chunks of a prompt.
    /// `None` while it idles.
    pub fn stalled_for(&self) -> Option<Duration> {
        let dead = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        let busy = self.shared.queue.len() > 0;
        if dead { Some(Duration::MAX) } else { busy.then(|| self.shared.pulse.age()) }
    }

    pub fn stats(&self) -> WorkerStats {
        self.shared.rates.stats(self.shared.queue.len())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.queue.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Runs one job to its end. A panic, of the model or of the sink, ends this job only.
fn serve(engine: &Engine, shared: &Shared, sequence: &mut Sequence, waiting: Waiting) {
    let Waiting { job, since } = waiting;
    let Job { prompt, options, cancel, mut sink, .. } = job;
    shared.pulse.beat();
    let queue_ms = since.elapsed().as_secs_f64() * 1e3;
    let answer = AssertUnwindSafe(|| answer(engine, shared, sequence, prompt, &options, &cancel, &mut sink));
    let end = match catch_unwind(answer) {
        Ok(Ok(Some(generated))) => {
            let generated = Generated { queue_ms, ..generated };
            shared.rates.record(&generated);
            Event::Done(generated)
        }
        Ok(Ok(None)) => Event::Cancelled,
        Ok(Err(ModelError::Cancelled)) => Event::Cancelled,
        Ok(Err(error)) => Event::Failed(error),
        Err(panic) => {
            let problem = panic_message(panic.as_ref());
            tracing::error!(problem, "a job panicked; the model goes on");
            // What a pass was doing to the cache is unknown, so its content is not trusted again.
            if let Ok(fresh) = Sequence::new(engine) {
                *sequence = fresh;
            }
            Event::Failed(ModelError::Stopped(format!("this answer panicked: {problem}")))
        }
    };
    // Before the last event, so that who waits for it finds the queue without this job.
    shared.queue.finished();
    if catch_unwind(AssertUnwindSafe(|| sink(end))).is_err() {
        tracing::error!("a job's sink panicked at its last event");
    }
}

/// `None` if the job was cancelled.
fn answer(
    engine: &Engine,
    shared: &Shared,
    sequence: &mut Sequence,
    prompt: Vec<u32>,
    options: &GenerateOptions,
    cancel: &Cancel,
    sink: &mut dyn FnMut(Event),
) -> Result<Option<Generated>, ModelError> {
    let cancelled = || cancel.is_cancelled() || shared.queue.is_stopped();
    if cancelled() {
        return Ok(None);
    }
    sequence.until(cancel.clone());
    let mut generation = Generation::new(engine, sequence, prompt, options)?;
    sink(Event::Started);
    while !cancelled() {
        shared.pulse.beat();
        match generation.advance()? {
            Advance::Prefilled => {}
            Advance::Text(text) if text.is_empty() => {}
            Advance::Text(text) => sink(Event::Text(text)),
            Advance::Done(text, generated) => {
                if !text.is_empty() {
                    sink(Event::Text(text));
                }
                return Ok(Some(generated));
            }
        }
    }
    Ok(None)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
