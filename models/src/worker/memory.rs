//! What the model's thread keeps between answers, in memory and on disk. Others may look, and may have a session
//! forgotten, at any time.

use crate::engine::Engine;
use crate::error::ModelError;
use crate::sequence::Sequence;
use crate::slots::{Disk, DiskOptions, DiskStats, Owner, Slot, SlotOptions, SlotStats, Slots};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub(super) struct Memory {
    /// Locked before `slots` where both are.
    disk: Option<Mutex<Disk>>,
    slots: Mutex<Kept>,
    /// As the last use of the disk left it, so that who asks never waits for one.
    disk_stats: Mutex<DiskStats>,
}

struct Kept {
    slots: Slots,
    /// Let go from memory, not on disk yet.
    leaving: Vec<Slot>,
}

impl Memory {
    /// # Errors
    /// The folder on disk cannot be used.
    pub(super) fn new(slots: SlotOptions, disk: Option<DiskOptions>) -> Result<Memory, ModelError> {
        let open = |options: DiskOptions| {
            let folder = options.folder.clone();
            Disk::open(options).map_err(|error| ModelError::File { path: folder, problem: error.to_string() })
        };
        let disk = disk.map(open).transpose()?.map(Mutex::new);
        let slots = Mutex::new(Kept { slots: Slots::new(slots), leaving: Vec::new() });
        let memory = Memory { disk, slots, disk_stats: Mutex::default() };
        memory.expire();
        Ok(memory)
    }

    pub(super) fn stats(&self) -> (SlotStats, DiskStats) {
        let disk = *self.disk_stats.lock().unwrap_or_else(PoisonError::into_inner);
        (self.slots().slots.stats(), disk)
    }

    fn note(&self, disk: &Disk) {
        *self.disk_stats.lock().unwrap_or_else(PoisonError::into_inner) = disk.stats();
    }

    /// The sequence to answer `prompt` from, read from disk where the session has none in memory.
    ///
    /// # Errors
    /// The engine can make no cache.
    pub(super) fn take(&self, engine: &Engine, owner: &Owner, prompt: &[u32]) -> Result<Sequence, ModelError> {
        self.restore(engine, owner);
        let taken = self.slots().slots.take(owner, prompt);
        taken.map_or_else(|| Sequence::new(engine), Ok)
    }

    fn restore(&self, engine: &Engine, owner: &Owner) {
        let (Some(session), Some(mut disk)) = (&owner.session, self.disk()) else { return };
        if self.slots().slots.holds(session) {
            return;
        }
        let loaded = disk.load(session, engine);
        self.note(&disk);
        if let Some(sequence) = loaded {
            let mut kept = self.slots();
            let leaving = kept.slots.put(owner.clone(), sequence, Instant::now());
            kept.leaving.extend(leaving);
        }
    }

    /// Keeps what an answer leaves.
    pub(super) fn give_back(&self, owner: Owner, sequence: Sequence) {
        let mut kept = self.slots();
        let leaving = kept.slots.give_back(owner, sequence, Instant::now());
        if self.disk.is_some() {
            kept.leaving.extend(leaving);
        }
    }

    pub(super) fn abandon(&self) {
        self.slots().slots.abandon();
    }

    /// Writes to disk what was let go from memory. Nobody's answer waits for it.
    pub(super) fn spill(&self) {
        let Some(mut disk) = self.disk() else { return };
        let leaving = std::mem::take(&mut self.slots().leaving);
        let now = SystemTime::now();
        for Slot { owner, sequence, .. } in &leaving {
            if let Some(session) = &owner.session {
                disk.save(session, sequence, now);
            }
        }
        self.note(&disk);
    }

    /// Lets everything go, to disk where that is wanted.
    pub(super) fn close(&self) {
        {
            let mut kept = self.slots();
            let all = kept.slots.drain();
            kept.leaving.extend(all);
        }
        self.spill();
        self.slots().leaving.clear();
    }

    pub(super) fn forget(&self, session: &str) {
        let disk = self.disk();
        let mut kept = self.slots();
        kept.slots.forget(session);
        kept.leaving.retain(|slot| slot.owner.session.as_deref() != Some(session));
        drop(kept);
        if let Some(mut disk) = disk {
            disk.forget(session);
            self.note(&disk);
        }
    }

    pub(super) fn set_max_age(&self, max_age: Option<Duration>) {
        self.slots().slots.set_max_age(max_age);
    }

    /// Drops what is too old. Returns how long until there is something to drop again.
    pub(super) fn expire(&self) -> Option<Duration> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let disk = self.disk();
        let mut kept = self.slots();
        kept.slots.expire(now);
        let Some(max_age) = kept.slots.max_age() else {
            drop(kept);
            disk.iter().for_each(|disk| self.note(disk));
            return None;
        };
        let in_memory = kept.slots.next_expiry().map(|at| at.saturating_duration_since(now));
        drop(kept);
        let on_disk = disk.and_then(|mut disk| {
            disk.expire(wall, max_age);
            self.note(&disk);
            disk.next_expiry(wall, max_age)
        });
        in_memory.into_iter().chain(on_disk).min()
    }

    /// Both states are whole between statements, so a panic elsewhere while they were locked does not matter.
    fn disk(&self) -> Option<MutexGuard<'_, Disk>> {
        Some(self.disk.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn slots(&self) -> MutexGuard<'_, Kept> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
