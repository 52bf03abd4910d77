//! Jobs that wait, round-robin between clients.

use super::Job;
use crate::error::ModelError;
use crate::worker::Event;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct Waiting {
    pub(super) job: Job,
    pub(super) since: Instant,
}

/// Why a wait for a job ended.
pub(super) enum Next {
    Job(Waiting),
    /// The time given to the wait is over, or [`Queue::wake`] was called.
    Due,
    Stopped,
}

#[derive(Default)]
struct State {
    /// The clients that have jobs waiting, the next one first. Each one's jobs stay in order.
    clients: VecDeque<(u64, VecDeque<Waiting>)>,
    waiting: usize,
    serving: bool,
    stopped: bool,
    /// A wait has to end, so that its length is thought over.
    woken: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Queue {
        Queue { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a job, unless `limit` jobs wait that are still wanted.
    pub(super) fn push(&self, job: Job) -> Result<(), ModelError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(ModelError::Stopped("it is shutting down".into()));
        }
        let cancelled = match state.waiting >= self.limit {
            true => state.remove_cancelled(),
            false => Vec::new(),
        };
        let result = match state.waiting >= self.limit {
            true => Err(ModelError::QueueFull(state.waiting)),
            false => {
                state.add(Waiting { job, since: Instant::now() });
                Ok(())
            }
        };
        drop(state);
        self.changed.notify_one();
        cancelled.into_iter().for_each(|mut waiting| (waiting.job.sink)(Event::Cancelled));
        result
    }

    /// Waits for a job, at most `within`, and takes it. `None`: as long as it takes.
    pub(super) fn next(&self, within: Option<Duration>) -> Next {
        let until = within.and_then(|within| Instant::now().checked_add(within));
        let mut state = self.lock();
        loop {
            if state.stopped {
                return Next::Stopped;
            }
            if let Some(waiting) = state.take() {
                return Next::Job(waiting);
            }
            if std::mem::take(&mut state.woken) {
                return Next::Due;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Next::Due,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Ends the wait of [`Self::next`] once.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    pub(super) fn finished(&self) {
        self.lock().serving = false;
    }

    /// Jobs waiting, the one being served included.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting + usize::from(state.serving)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Ends the wait of [`Self::next`] for good, and fails what waits.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let dropped: Vec<Waiting> = std::iter::from_fn(|| state.take()).collect();
        drop(state);
        self.changed.notify_all();
        for mut waiting in dropped {
            (waiting.job.sink)(Event::Failed(ModelError::Stopped("it is shutting down".into())));
        }
    }

    /// The state is whole between statements, so a panic elsewhere while it was locked does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, waiting: Waiting) {
        self.waiting += 1;
        let client = waiting.job.client;
        match self.clients.iter_mut().find(|(id, _)| *id == client) {
            Some((_, jobs)) => jobs.push_back(waiting),
            None => self.clients.push_back((client, VecDeque::from([waiting]))),
        }
    }

    /// The oldest job of the client whose turn it is, who then goes to the back.
    fn take(&mut self) -> Option<Waiting> {
        let (client, mut jobs) = self.clients.pop_front()?;
        let waiting = jobs.pop_front()?;
        if !jobs.is_empty() {
            self.clients.push_back((client, jobs));
        }
        self.waiting -= 1;
        self.serving = true;
        Some(waiting)
    }

    fn remove_cancelled(&mut self) -> Vec<Waiting> {
        let mut removed = Vec::new();
        for (_, jobs) in &mut self.clients {
            let (cancelled, kept) = jobs.drain(..).partition::<Vec<_>, _>(|waiting| waiting.job.cancel.is_cancelled());
            jobs.extend(kept);
            removed.extend(cancelled);
        }
        self.clients.retain(|(_, jobs)| !jobs.is_empty());
        self.waiting -= removed.len();
        removed
    }
}
