//! The thread that a model runs on: a bounded queue, fair between clients, never the async runtime.

mod memory;
mod pulse;
mod queue;
mod stats;

pub use stats::WorkerStats;

use crate::engine::Engine;
use crate::error::ModelError;
use crate::generate::{Advance, GenerateOptions, Generated, Generation};
use crate::sequence::Sequence;
use crate::slots::{DiskOptions, Owner, SlotOptions};
use memory::Memory;
use pulse::Pulse;
use queue::{Next, Queue, Waiting};
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
    /// Of one token, whole characters only; empty while a character or a stop string is not complete.
    Text(String),
    Done(Generated),
    Cancelled,
    Failed(ModelError),
}

/// One answer to make.
pub struct Job {
    /// Jobs are served round-robin between clients.
    pub client: u64,
    /// The dialogue that the prompt goes on with, if it has a name; what was computed of it is kept under it.
    pub session: Option<String>,
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
    /// What is kept of earlier answers.
    pub slots: SlotOptions,
    /// Where sessions go that have to leave memory; `None`: nowhere.
    pub disk: Option<DiskOptions>,
    /// Whether tokens are guessed from what was said before. Answers are the same either way.
    pub speculation: bool,
}

impl Default for WorkerOptions {
    /// 16 jobs: at 40 tokens/s, short answers of about a minute.
    fn default() -> Self {
        Self { queue_limit: 16, slots: SlotOptions::default(), disk: None, speculation: true }
    }
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
    memory: Memory,
    speculation: bool,
}

impl Worker {
    /// # Errors
    /// [`ModelError::File`] if the folder of `options.disk` cannot be used.
    pub fn start(engine: Arc<Engine>, options: WorkerOptions) -> Result<Worker, ModelError> {
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_limit),
            rates: Rates::default(),
            pulse: Pulse::default(),
            memory: Memory::new(options.slots, options.disk)?,
            speculation: options.speculation,
        });
        let (thread_engine, thread_shared) = (engine.clone(), shared.clone());
        let run = move || {
            loop {
                match thread_shared.queue.next(thread_shared.memory.expire()) {
                    Next::Job(waiting) => serve(&thread_engine, &thread_shared, waiting),
                    Next::Due => {}
                    Next::Stopped => return thread_shared.memory.close(),
                }
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
        self.shared.rates.stats(self.shared.queue.len(), self.shared.memory.stats())
    }

    /// Drops what is kept of a session, on disk too. Waits for the disk if it is being written to.
    pub fn forget(&self, session: &str) {
        self.shared.memory.forget(session);
    }

    /// Changes how long unused sequences are kept.
    pub fn set_max_age(&self, max_age: Option<Duration>) {
        self.shared.memory.set_max_age(max_age);
        self.shared.queue.wake();
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
fn serve(engine: &Engine, shared: &Shared, waiting: Waiting) {
    let Waiting { mut job, since } = waiting;
    shared.pulse.beat();
    let queue_ms = since.elapsed().as_secs_f64() * 1e3;
    let end = match catch_unwind(AssertUnwindSafe(|| answer(engine, shared, &mut job))) {
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
            // What a pass was doing to the cache is unknown, so it is not kept.
            shared.memory.abandon();
            Event::Failed(ModelError::Stopped(format!("this answer panicked: {problem}")))
        }
    };
    // Before the last event, so that who waits for it finds the queue without this job.
    shared.queue.finished();
    if catch_unwind(AssertUnwindSafe(|| (job.sink)(end))).is_err() {
        tracing::error!("a job's sink panicked at its last event");
    }
    shared.memory.spill();
}

/// `None` if the job was cancelled.
fn answer(engine: &Engine, shared: &Shared, job: &mut Job) -> Result<Option<Generated>, ModelError> {
    if job.cancel.is_cancelled() || shared.queue.is_stopped() {
        return Ok(None);
    }
    let owner = Owner { client: job.client, session: job.session.take() };
    let mut sequence = shared.memory.take(engine, &owner, &job.prompt)?;
    sequence.until(job.cancel.clone());
    let ended = generate(engine, shared, job, &mut sequence);
    shared.memory.give_back(owner, sequence);
    ended
}

fn generate(
    engine: &Engine,
    shared: &Shared,
    job: &mut Job,
    sequence: &mut Sequence,
) -> Result<Option<Generated>, ModelError> {
    let Job { prompt, options, cancel, sink, .. } = job;
    let mut generation = Generation::new(engine, sequence, std::mem::take(prompt), options)?;
    if shared.speculation {
        generation = generation.with_speculation();
    }
    sink(Event::Started);
    while !cancel.is_cancelled() && !shared.queue.is_stopped() {
        shared.pulse.beat();
        match generation.advance()? {
            Advance::Prefilled => {}
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
