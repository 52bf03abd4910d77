//! How much of the past is kept. The oldest turns go first, a few hundred at a time, so that no turn waits for long.

use super::{Desk, Failure};
use rusqlite::Connection;
use std::time::{SystemTime, UNIX_EPOCH};

/// Settlements between two looks at the limits.
const LOOK_EVERY: u32 = 256;
/// Turns that go at once: some milliseconds of work.
const AT_ONCE: u32 = 512;

/// The most that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_turns: u64,
    pub max_age_ms: i64,
    /// Of the database's pages in use.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// A million turns are a turn every half minute for a year; about 2.5 GB at 2.5 kB a record.
    fn default() -> Self {
        Self { max_turns: 1_000_000, max_age_ms: 365 * 86_400_000, max_bytes: 4 << 30 }
    }
}

pub(super) struct Retention {
    limits: Limits,
    /// Counted when it is first needed, then kept up.
    turns: Option<u64>,
    until_look: u32,
}

impl Retention {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, turns: None, until_look: 1 }
    }

    pub(super) fn begun(&mut self, turns: u64) {
        self.turns = self.turns.map(|count| count + turns);
    }
}

impl Desk {
    pub(super) fn turn_count(&mut self) -> Result<u64, Failure> {
        if let Some(count) = self.retention.turns {
            return Ok(count);
        }
        let count: i64 = self.connection.query_row("SELECT count(*) FROM turns", [], |row| row.get(0))?;
        self.retention.turns = Some(count.unsigned_abs());
        Ok(count.unsigned_abs())
    }

    /// Looks at the limits now and then. What is too much goes; a failure here harms no turn and is logged.
    pub(super) fn retain(&mut self, settled: u32) {
        self.retention.until_look = self.retention.until_look.saturating_sub(settled);
        if self.retention.until_look > 0 {
            return;
        }
        self.retention.until_look = match self.prune() {
            Ok(true) => 1,
            Ok(false) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(%error, "old turns could not be forgotten");
                LOOK_EVERY
            }
        };
    }

    /// Forgets at most a few hundred turns; says whether there may be more to forget.
    fn prune(&mut self) -> Result<bool, Failure> {
        let Limits { max_turns, max_age_ms, max_bytes } = self.retention.limits;
        let excess = self.turn_count()?.saturating_sub(max_turns);
        let mut gone = 0;
        if excess > 0 {
            gone += forget(&mut self.connection, i64::MAX, u32::try_from(excess).unwrap_or(AT_ONCE).min(AT_ONCE))?;
        }
        gone += forget(&mut self.connection, unix_ms().saturating_sub(max_age_ms), AT_ONCE)?;
        if used_bytes(&self.connection)? > max_bytes {
            gone += forget(&mut self.connection, i64::MAX, AT_ONCE)?;
        }
        self.retention.turns = self.retention.turns.map(|count| count.saturating_sub(gone));
        Ok(gone > 0)
    }
}

/// The oldest settled turns that started before `before_ms`, at most so many.
fn forget(db: &mut Connection, before_ms: i64, at_most: u32) -> Result<u64, Failure> {
    let transaction = db.transaction()?;
    let last: Option<String> = transaction.query_row(
        // Ids sort by time, so the oldest come first and the search ends at the first that is young enough.
        "SELECT max(id) FROM (SELECT id, started_ms FROM turns ORDER BY id LIMIT ?2) WHERE started_ms < ?1",
        (before_ms, at_most),
        |row| row.get(0),
    )?;
    let Some(last) = last else { return Ok(0) };
    for table in ["records", "contents", "images"] {
        let delete = format!("DELETE FROM {table} WHERE id <= ?1 AND id NOT IN (SELECT id FROM turns WHERE open = 1)");
        transaction.execute(&delete, [&last])?;
    }
    let gone = transaction.execute("DELETE FROM turns WHERE id <= ?1 AND open = 0", [&last])?;
    transaction.commit()?;
    Ok(gone as u64)
}

fn used_bytes(db: &Connection) -> Result<u64, Failure> {
    let pragma = |name: &str| -> Result<u64, Failure> {
        let value: i64 = db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        Ok(value.unsigned_abs())
    };
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
