//! One state for several gateways: a log that all append to and all follow.
//!
//! The state is what comes out when the log's records are applied in their order; each gateway does that for itself.
//! A decision is made on the state as it stands here, at once, and is written to the log as made; ratings count where
//! they stand in the log, so the same answer rated at two gateways counts once. A record carries its writer and the
//! writer's own number, so one that was written twice (an append that failed half-way) counts once as well.
//!
//! A place that cannot be reached stops no turn: decisions are made on the last known state, and what happened is
//! kept in memory, up to a limit, until it can be written.

mod folder;
mod follow;
mod log;
mod redis;
mod writers;

use super::agreement::Agreement;
use super::event::{Event, EventError, Outcome};
use crate::config::StateSettings;
use anyhow::Context;
use log::{LogError, Position, Sent, SharedLog, Stored};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tether_policies::mess::{Router, Snapshot};
use tokio::sync::oneshot;
use writers::Writers;

/// Records that wait to be written: about a minute of 200 turns a second, 40 MB.
const MAX_UNSENT: usize = 30_000;
/// A log this long takes a second or two to apply, and is then replaced by a snapshot.
const MAX_LOG_BYTES: u64 = 16 << 20;
/// How long a starting gateway tries to reach the place.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What an event of this gateway did, once it came back from the log.
pub(super) type Applied = Result<Outcome, EventError>;

/// This gateway's part in the log.
#[derive(Debug)]
pub(super) struct Shared {
    kind: &'static str,
    me: String,
    /// The number of this gateway's last record.
    sent: u64,
    queue: SyncSender<Sent>,
    health: Arc<Health>,
    waiting: HashMap<u64, oneshot::Sender<Applied>>,
    at: Place,
    writers: Writers,
    pub(super) agreed: Agreement,
    encoder: String,
    /// The log is replaced by a snapshot when it is longer.
    max_log_bytes: u64,
}

/// Where in the log this gateway's state stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    epoch: String,
    number: u64,
    position: Position,
    /// Bytes of records applied since the newest snapshot.
    bytes: u64,
}

/// What both threads tell the turns.
#[derive(Debug, Default)]
struct Health {
    writing_fails: AtomicBool,
    reading_fails: AtomicBool,
    keeping_fails: AtomicBool,
    /// A snapshot is being written.
    keeping: AtomicBool,
    unsent: AtomicUsize,
}

/// How the shared state stands, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStatus {
    /// `redis` or `files`.
    pub kind: String,
    pub reachable: bool,
    /// Records of this gateway that wait to be written.
    pub unsent: usize,
    /// Gateways that have written to it, this one included.
    pub writers: usize,
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    writer: String,
    number: u64,
    event: Event,
}

/// A snapshot of the whole state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    writers: Writers,
    agreed: Agreement,
    router: Snapshot,
}

/// The state as the log has it now, this gateway's part in the log, and what its threads need.
///
/// # Errors
/// A place that cannot be reached in time, or a state that was learned on another encoder.
pub(super) fn open(
    settings: &StateSettings,
    encoder: &str,
    agreement: &Agreement,
    fresh: &Router,
) -> anyhow::Result<Option<(Router, Shared, Threads)>> {
    let (Some(mut reader), Some(writer), Some(keeper)) = (connect(settings)?, connect(settings)?, connect(settings)?)
    else {
        return Ok(None);
    };
    let router = fresh.snapshot(encoder);
    let fresh = Saved { writers: Writers::default(), agreed: agreement.clone(), router };
    let stored = load_or_found(reader.as_mut(), &fresh).context("the state that gateways share")?;
    let (queue, records) = sync_channel(MAX_UNSENT);
    let health = Arc::<Health>::default();
    let (mut router, at, saved) = restore(stored, encoder)?;
    let mut shared = Shared {
        kind: reader.kind(),
        me: log::unique_name(),
        sent: 0,
        queue,
        health: Arc::clone(&health),
        waiting: HashMap::new(),
        at,
        writers: saved.0,
        agreed: saved.1,
        encoder: encoder.to_owned(),
        max_log_bytes: MAX_LOG_BYTES,
    };
    while shared.take(&mut router, reader.read(shared.at.position, Duration::ZERO)?.records).any {}
    Ok(Some((router, shared, Threads { reader, writer, keeper, records, health })))
}

/// One end of the log; `None` for a state that is not shared.
fn connect(settings: &StateSettings) -> Result<Option<Box<dyn SharedLog>>, LogError> {
    Ok(match settings {
        StateSettings::Redis(server) => Some(Box::new(redis::RedisLog::new(server)?)),
        StateSettings::Files(path) => Some(Box::new(folder::FolderLog::new(path))),
        StateSettings::Memory | StateSettings::File(_) => None,
    })
}

const OTHER_STATE: &str =
    "the shared state cannot be used here; give these gateways another state.name, or the settings of the others";

fn load_or_found(log: &mut dyn SharedLog, fresh: &Saved) -> Result<Stored, LogError> {
    let begun = Instant::now();
    let mut try_once = || -> Result<Option<Stored>, LogError> {
        if let Some(stored) = log.load()? {
            return Ok(Some(stored));
        }
        log.found(None, fresh.clone())?;
        log.load()
    };
    loop {
        match try_once() {
            Ok(Some(stored)) => return Ok(stored),
            Err(problem @ LogError::Unusable { .. }) => return Err(problem),
            Err(problem) if begun.elapsed() > START_WITHIN => return Err(problem),
            Ok(None) => {}
            Err(problem) => tracing::warn!(%problem, "the shared state is not reached yet; trying again"),
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

fn restore(stored: Stored, encoder: &str) -> anyhow::Result<(Router, Place, (Writers, Agreement))> {
    let Stored { epoch, number, position, saved } = stored;
    let router = Router::restore(saved.router, encoder).context(OTHER_STATE)?;
    Ok((router, Place { epoch, number, position, bytes: 0 }, (saved.writers, saved.agreed)))
}

impl Shared {
    /// Sends an event to the log. False if too many wait already: then it is forgotten, and its turn with it.
    pub(super) fn send(&mut self, event: Event) -> bool {
        let tenant = event.tenant().to_owned();
        let record = Record { writer: self.me.clone(), number: self.sent + 1, event };
        let Ok(json) = serde_json::to_string(&record) else { return false };
        let taken = self.queue.try_send(Sent { tenant, json }).is_ok();
        if taken {
            self.sent += 1;
            self.health.unsent.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// The same, and tells when the event came back from the log; `None` where that would take long.
    pub(super) fn send_and_hear(&mut self, event: Event) -> Option<oneshot::Receiver<Applied>> {
        let reachable = self.is_reachable();
        if !self.send(event) || !reachable {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(self.sent, sender);
        Some(receiver)
    }

    pub(super) fn is_reachable(&self) -> bool {
        let Health { writing_fails, reading_fails, .. } = self.health.as_ref();
        !writing_fails.load(Ordering::Relaxed) && !reading_fails.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> SharedStatus {
        SharedStatus {
            kind: self.kind.to_owned(),
            reachable: self.is_reachable(),
            unsent: self.health.unsent.load(Ordering::Relaxed),
            writers: self.writers.len(),
        }
    }

    /// Applies records in their order.
    fn take(&mut self, router: &mut Router, records: Vec<(Position, String)>) -> Taken {
        let mut taken = Taken { any: !records.is_empty(), own: false };
        for (position, json) in records {
            self.at.position = position;
            self.at.bytes += json.len() as u64;
            match serde_json::from_str(&json) {
                Ok(record) => taken.own |= self.apply(router, record),
                Err(problem) => tracing::error!(?position, %problem, "a record of the shared log is passed over"),
            }
        }
        taken
    }

    /// Whether the record was this gateway's own.
    fn apply(&mut self, router: &mut Router, Record { writer, number, event }: Record) -> bool {
        let own = writer == self.me;
        if !self.writers.is_next(&writer, number) {
            return own;
        }
        let applied = event.apply(router);
        if let (Event::Agreed(agreement), Ok(_)) = (event, &applied) {
            if !own && agreement != self.agreed {
                tracing::warn!(
                    "another gateway brought other settings of the zoo or the levels; they hold for all now"
                );
            }
            self.agreed = agreement;
        }
        if own && let Some(waiting) = self.waiting.remove(&number) {
            // Whoever waited may have gone.
            let _ = waiting.send(applied);
        }
        own
    }

    fn is_long(&self) -> bool {
        self.at.bytes >= self.max_log_bytes
    }

    fn save(&self, router: &Router) -> Saved {
        Saved { writers: self.writers.clone(), agreed: self.agreed.clone(), router: router.snapshot(&self.encoder) }
    }

    /// Goes over to what the place holds now.
    fn adopt(&mut self, router: &mut Router, stored: Stored) -> anyhow::Result<()> {
        let (restored, at, (writers, agreed)) = restore(stored, &self.encoder)?;
        (*router, self.at, self.writers, self.agreed) = (restored, at, writers, agreed);
        // What the snapshot holds does not come by again.
        let known = self.writers.last(&self.me);
        self.waiting.retain(|&number, _| number > known);
        Ok(())
    }
}

/// What was in a batch of records.
struct Taken {
    any: bool,
    /// Some were this gateway's.
    own: bool,
}

/// The log in the hands of three threads: one follows it, one writes to it, one replaces it when it is long.
pub(super) struct Threads {
    reader: Box<dyn SharedLog>,
    writer: Box<dyn SharedLog>,
    keeper: Box<dyn SharedLog>,
    records: Receiver<Sent>,
    health: Arc<Health>,
}

#[cfg(test)]
mod tests;
