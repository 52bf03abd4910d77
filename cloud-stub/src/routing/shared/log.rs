//! A log that several gateways append to and all follow, with a snapshot of the state at some place in it.

use super::Saved;
use std::time::Duration;

/// A place in the log; a later one is greater. (milliseconds, counter) in Redis, (file, byte) in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position(pub(super) u64, pub(super) u64);

/// A record on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    /// Whose it is; empty where it is everybody's.
    pub(super) tenant: String,
    pub(super) json: String,
}

/// The newest snapshot and the place in the log up to which it holds everything.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) epoch: String,
    pub(super) number: u64,
    pub(super) position: Position,
    pub(super) saved: Saved,
}

/// What was read of the log, and how the log stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Batch {
    /// A new epoch begins when somebody puts a state back that the place had lost. `None`: the place is empty.
    pub(super) epoch: Option<String>,
    /// Counts the snapshots of an epoch.
    pub(super) number: u64,
    /// Records before this place are gone; whoever stands there needs the snapshot.
    pub(super) kept_from: Position,
    /// The end of the log.
    pub(super) last: Position,
    /// Oldest first, each with the place behind it.
    pub(super) records: Vec<(Position, String)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("{place}: {problem}")]
    Io { place: String, problem: std::io::Error },
    #[error("{place}: {problem}")]
    Redis { place: String, problem: redis::RedisError },
    /// What is there was not written by this version, or not whole; trying again would not help.
    #[error("{place}: {problem}")]
    Unusable { place: String, problem: String },
}

/// Every call blocks; an error leaves the log usable, and the call may be made again.
pub(super) trait SharedLog: Send {
    /// As the settings name it.
    fn kind(&self) -> &'static str;

    /// The newest snapshot; `None` in an empty place.
    fn load(&mut self) -> Result<Option<Stored>, LogError>;

    /// Begins a new epoch with this snapshot, unless the place holds another epoch than `instead_of` by now.
    fn found(&mut self, instead_of: Option<&str>, saved: Saved) -> Result<(), LogError>;

    /// Adds records at the end, in order. After an error all, none or the first of them may be there; writing them
    /// again is harmless, because each carries its writer's number.
    fn append(&mut self, records: &[Sent]) -> Result<(), LogError>;

    /// What stands behind `after`; waits at most `wait` for the first record.
    fn read(&mut self, after: Position, wait: Duration) -> Result<Batch, LogError>;

    /// Puts snapshot `number + 1` of the epoch in place, unless it is there already, and lets go of what the snapshot
    /// before it did not need.
    fn replace(&mut self, epoch: &str, number: u64, at: Position, saved: Saved) -> Result<(), LogError>;
}

/// A name that no other epoch or writer has.
pub(super) fn unique_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}
