//! The threads of a gateway at a shared log: one applies what comes, one writes what happened here, and one replaces a
//! long log by a snapshot, which takes too long for the others to wait for.

use super::super::{Inner, Keeper, lock};
use super::log::{Batch, Sent, SharedLog};
use super::{Health, Place, RETRY_AFTER, Saved, Threads};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How long the follower waits for a record before it looks whether its gateway is still there.
const WAIT: Duration = Duration::from_secs(1);
/// Records written at once.
const WRITE_RECORDS: usize = 256;

impl Threads {
    /// Runs them until the gateway is gone.
    pub(in crate::routing) fn start(self, inner: &Arc<Mutex<Inner>>) {
        let Self { reader, writer, keeper, records, health } = self;
        let (inner, reading) = (Arc::downgrade(inner), Arc::clone(&health));
        let (long, snapshots) = sync_channel(1);
        let keeping = Arc::clone(&health);
        std::thread::spawn(move || keep(&snapshots, keeper, &keeping));
        std::thread::spawn(move || follow(&inner, reader, &reading, &long));
        std::thread::spawn(move || write(&records, writer, &health));
    }
}

/// A snapshot that is to take the log's place.
type Long = (Place, Saved);

fn keep(snapshots: &Receiver<Long>, mut log: Box<dyn SharedLog>, health: &Health) {
    while let Ok((at, saved)) = snapshots.recv() {
        let replaced = log.replace(&at.epoch, at.number, at.position, saved);
        tell(&health.keeping_fails, "the shared log cannot be shortened", replaced.as_ref().err());
        if replaced.is_err() {
            std::thread::sleep(RETRY_AFTER);
        }
        health.keeping.store(false, Ordering::Relaxed);
    }
}

fn follow(inner: &Weak<Mutex<Inner>>, mut log: Box<dyn SharedLog>, health: &Health, long: &SyncSender<Long>) {
    loop {
        let Some(position) = with_shared(inner, |shared, _| shared.at.position) else { return };
        let read = log.read(position, WAIT).map_err(anyhow::Error::from);
        let followed = read.and_then(|batch| digest(inner, log.as_mut(), batch, health));
        tell(&health.reading_fails, "the shared state cannot be read", followed.as_ref().err());
        match followed {
            // One at a time, so there is room for it.
            Ok(Some(snapshot)) => drop(long.try_send(snapshot)),
            Ok(None) => {}
            Err(_) => std::thread::sleep(RETRY_AFTER),
        }
    }
}

/// Runs on the state, if its gateway is still there; the lock is held no longer than that.
fn with_shared<T>(
    inner: &Weak<Mutex<Inner>>,
    run: impl FnOnce(&mut super::Shared, &mut tether_policies::mess::Router) -> T,
) -> Option<T> {
    let inner = inner.upgrade()?;
    let mut inner = lock(&inner);
    let Inner { router, keeper: Keeper::Shared(shared), .. } = &mut *inner else { return None };
    Some(run(shared, router))
}

/// Takes in what was read; a snapshot, if the log is long and nobody here is writing one.
fn digest(
    inner: &Weak<Mutex<Inner>>,
    log: &mut dyn SharedLog,
    batch: Batch,
    health: &Health,
) -> anyhow::Result<Option<Long>> {
    let Batch { epoch, number, kept_from, last, records } = batch;
    let Some((mine, saved)) = with_shared(inner, |shared, router| {
        let lost = epoch.is_none() || (epoch.as_ref() == Some(&shared.at.epoch) && last < shared.at.position);
        (shared.at.clone(), lost.then(|| shared.save(router)))
    }) else {
        return Ok(None);
    };
    if let Some(saved) = saved {
        // The place was emptied, or is as it was a while ago: what is known here goes back.
        tracing::warn!("the shared state was lost or is older than what is known here; it is put back from here");
        log.found(epoch.as_deref(), saved)?;
        return Ok(None);
    }
    if epoch.as_ref() != Some(&mine.epoch) || kept_from > mine.position {
        let stored = log.load()?;
        let adopt = |stored| with_shared(inner, |shared, router| shared.adopt(router, stored)).unwrap_or(Ok(()));
        stored.map_or(Ok(()), adopt)?;
        return Ok(None);
    }
    let long = with_shared(inner, |shared, router| {
        if number != shared.at.number {
            (shared.at.number, shared.at.bytes) = (number, 0);
        }
        let own = shared.take(router, records).own;
        // Only who wrote some of it: an idle gateway need not.
        let due = own && shared.is_long() && !health.keeping.swap(true, Ordering::Relaxed);
        due.then(|| (shared.at.clone(), shared.save(router)))
    });
    Ok(long.flatten())
}

fn write(records: &Receiver<Sent>, mut log: Box<dyn SharedLog>, health: &Health) {
    while let Ok(first) = records.recv() {
        let mut batch = vec![first];
        batch.extend(records.try_iter().take(WRITE_RECORDS - 1));
        loop {
            let written = log.append(&batch);
            tell(&health.writing_fails, "the shared state cannot be written", written.as_ref().err());
            match written {
                Ok(()) => break,
                Err(_) => std::thread::sleep(RETRY_AFTER),
            }
        }
        health.unsent.fetch_sub(batch.len(), Ordering::Relaxed);
    }
}

/// Says once that something fails, and once that it works again.
fn tell(fails: &AtomicBool, what: &str, problem: Option<&impl std::fmt::Display>) {
    let failed_before = fails.swap(problem.is_some(), Ordering::Relaxed);
    match problem {
        Some(problem) if !failed_before => {
            tracing::error!(%problem, "{what}; turns go on with what is known here");
        }
        None if failed_before => tracing::info!("the shared state is reached again"),
        _ => {}
    }
}
