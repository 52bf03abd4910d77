//! Which of the sequences kept from earlier answers the next one goes on from, and which are let go. No I/O; the time is
//! an argument.
//!
//! A prompt takes the sequence of its own session. Where another one holds more of the prompt (a system prompt that
//! sessions share, or a dialogue that its client sends whole each time), it goes on from that one: it takes it over if
//! nothing would be lost by that, else it forks it, which shares the pages up to where the two differ.

mod disk;
mod file;

pub(crate) use disk::Disk;
pub use disk::{DiskOptions, DiskStats, fingerprint, forget_on_disk};

use crate::sequence::Sequence;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Sequences kept, however small: each is compared with every prompt.
const MAX_SLOTS: usize = 256;
/// An unnamed sequence is taken over although it holds this many tokens more than the prompt: the end of an answer
/// that the client cut off, or wrote down otherwise than the model.
const FORGETTABLE_TOKENS: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub struct SlotOptions {
    /// Bytes of keys and values kept between answers; pages that several sequences share count once. The sequence of
    /// the answer under way comes on top.
    pub max_bytes: usize,
    /// How long a sequence is kept that nobody uses; `None`: until others need its place.
    pub max_age: Option<Duration>,
    /// Whether a client's answer may go on from what another client's prompt began with. It is then faster if somebody
    /// sent the same beginning before, which tells that somebody did.
    pub share_between_clients: bool,
}

impl Default for SlotOptions {
    /// 256 MiB: a few dialogues of thousands of tokens (the default model takes 22.5 KiB a token), and about twice
    /// its weights.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_age: None, share_between_clients: true }
    }
}

/// Whose sequence it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) client: u64,
    /// `None`: the client sends the whole dialogue with each prompt.
    pub(crate) session: Option<String>,
}

/// What is kept now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotStats {
    pub count: usize,
    /// Shared pages once.
    pub bytes: usize,
    /// Sequences let go so far to keep to the bytes.
    pub evicted: u64,
}

pub(crate) struct Slot {
    pub(crate) owner: Owner,
    pub(crate) sequence: Sequence,
    used: Instant,
}

pub(crate) struct Slots {
    options: SlotOptions,
    kept: Vec<Slot>,
    /// Whose answer is under way, and whether it was forgotten meanwhile.
    running: Option<(Owner, bool)>,
    stats: SlotStats,
}

impl Slots {
    pub(crate) fn new(options: SlotOptions) -> Slots {
        Slots { options, kept: Vec::new(), running: None, stats: SlotStats::default() }
    }

    pub(crate) fn stats(&self) -> SlotStats {
        self.stats
    }

    pub(crate) fn set_max_age(&mut self, max_age: Option<Duration>) {
        self.options.max_age = max_age;
    }

    pub(crate) fn max_age(&self) -> Option<Duration> {
        self.options.max_age
    }

    pub(crate) fn holds(&self, session: &str) -> bool {
        self.position(session).is_some()
    }

    fn position(&self, session: &str) -> Option<usize> {
        self.kept.iter().position(|slot| slot.owner.session.as_deref() == Some(session))
    }

    /// The sequence to answer `prompt` from; `None`: an empty one. Until [`give_back`](Self::give_back), `owner` counts
    /// as having an answer under way.
    pub(crate) fn take(&mut self, owner: &Owner, prompt: &[u32]) -> Option<Sequence> {
        self.running = Some((owner.clone(), false));
        let own = owner.session.as_deref().and_then(|session| self.position(session));
        let own = own.map(|index| self.kept.swap_remove(index));
        let held = own.as_ref().map_or(0, |slot| slot.sequence.common(prompt));
        let usable = |slot: &&Slot| self.options.share_between_clients || slot.owner.client == owner.client;
        let common = |(index, slot): (usize, &Slot)| (slot.sequence.common(prompt), slot.used, index);
        let best = self.kept.iter().enumerate().filter(|(_, slot)| usable(slot)).map(common).max();
        match best {
            Some((common, _, index)) if common > held => Some(self.go_on_from(index, common)),
            _ => own.map(|slot| slot.sequence),
        }
        .filter(|sequence| !sequence.tokens().is_empty())
    }

    fn go_on_from(&mut self, index: usize, common: usize) -> Sequence {
        let slot = &self.kept[index];
        let lost = slot.sequence.tokens().len() - common;
        if slot.owner.session.is_none() && lost <= FORGETTABLE_TOKENS {
            return self.kept.swap_remove(index).sequence;
        }
        slot.sequence.fork(common)
    }

    /// Keeps the sequence that an answer leaves, unless its session was forgotten meanwhile. Returns what had to be let
    /// go, the longest unused first.
    #[must_use]
    pub(crate) fn give_back(&mut self, owner: Owner, sequence: Sequence, now: Instant) -> Vec<Slot> {
        match self.running.take() {
            Some((_, true)) => Vec::new(),
            _ => self.put(owner, sequence, now),
        }
    }

    /// Keeps a sequence that no answer is under way on.
    #[must_use]
    pub(crate) fn put(&mut self, owner: Owner, sequence: Sequence, now: Instant) -> Vec<Slot> {
        if let Some(index) = owner.session.as_deref().and_then(|session| self.position(session)) {
            self.kept.swap_remove(index);
        }
        if !sequence.tokens().is_empty() {
            self.kept.push(Slot { owner, sequence, used: now });
        }
        self.evict()
    }

    /// The answer under way left nothing that could be trusted.
    pub(crate) fn abandon(&mut self) {
        self.running = None;
    }

    fn evict(&mut self) -> Vec<Slot> {
        let mut shares: HashMap<usize, usize> = HashMap::new();
        let mut bytes = 0;
        for (page, page_bytes) in self.kept.iter().flat_map(|slot| slot.sequence.cache().pages()) {
            let share = shares.entry(page).or_default();
            *share += 1;
            bytes += if *share == 1 { page_bytes } else { 0 };
        }
        self.kept.sort_by_key(|slot| slot.used);
        let mut leaving = 0;
        while bytes > self.options.max_bytes || self.kept.len() - leaving > MAX_SLOTS {
            for (page, page_bytes) in self.kept[leaving].sequence.cache().pages() {
                let share = shares.entry(page).or_default();
                *share -= 1;
                bytes -= if *share == 0 { page_bytes } else { 0 };
            }
            leaving += 1;
        }
        self.stats =
            SlotStats { count: self.kept.len() - leaving, bytes, evicted: self.stats.evicted + leaving as u64 };
        self.kept.drain(..leaving).collect()
    }

    /// Drops a session's sequence; the one of its answer under way as soon as that ends.
    pub(crate) fn forget(&mut self, session: &str) {
        if let Some((owner, forgotten)) = &mut self.running {
            *forgotten |= owner.session.as_deref() == Some(session);
        }
        self.remove(|slot| slot.owner.session.as_deref() == Some(session));
    }

    /// Drops what nobody used for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        if let Some(max_age) = self.options.max_age {
            self.remove(|slot| now.saturating_duration_since(slot.used) >= max_age);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.kept.iter().map(|slot| slot.used).min()?;
        oldest.checked_add(self.options.max_age?)
    }

    fn remove(&mut self, gone: impl Fn(&Slot) -> bool) {
        let before = self.kept.len();
        self.kept.retain(|slot| !gone(slot));
        if self.kept.len() < before {
            let within = self.evict();
            debug_assert!(within.is_empty(), "less than before cannot be too much");
        }
    }

    /// Everything kept, the longest unused first.
    pub(crate) fn drain(&mut self) -> Vec<Slot> {
        self.kept.sort_by_key(|slot| slot.used);
        let all = std::mem::take(&mut self.kept);
        self.stats = SlotStats { evicted: self.stats.evicted, ..SlotStats::default() };
        all
    }
}

#[cfg(test)]
pub(in crate::slots) mod tests;
