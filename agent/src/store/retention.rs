//! How much of the past is kept. The oldest turns go first, a few hundred at a time, so that no turn waits for long.

use super::{Desk, Failure};
use rusqlite::{Connection, OptionalExtension, Row};
use std::time::{SystemTime, UNIX_EPOCH};

/// Settlements between two looks at the limits.
const LOOK_EVERY: u32 = 256;
/// Turns that go at once: some milliseconds of work.
const AT_ONCE: u32 = 512;

/// A clock that jumped has to go on from there for so long until turns are too old by it, or for a tenth of the age limit
/// if that is less: whoever set it wrong has the time to set it right.
const DOUBT_MS: i64 = 7 * 86_400_000;

/// The most that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_turns: u64,
    /// Counted from the newest turn, or from now if the clock stands before it. A pause between turns that is longer than
    /// a week, or a tenth of this, does not count until turns have gone on for so long after it.
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
        let oldest = "SELECT started_ms FROM turns ORDER BY id LIMIT 1";
        let oldest_ms = self.connection.query_row(oldest, [], |row| row.get::<_, i64>(0)).optional()?;
        // Seldom so, and only then the last days are gone through.
        if oldest_ms.is_some_and(|oldest_ms| oldest_ms < unix_ms().saturating_sub(max_age_ms)) {
            let now_ms = believed_now_ms(&self.connection, max_age_ms)?;
            gone += forget(&mut self.connection, now_ms.saturating_sub(max_age_ms), AT_ONCE)?;
        }
        if used_bytes(&self.connection)? > max_bytes {
            gone += forget(&mut self.connection, i64::MAX, AT_ONCE)?;
        }
        self.retention.turns = self.retention.turns.map(|count| count.saturating_sub(gone));
        Ok(gone > 0)
    }
}

/// The moment that ages are counted from, of a ledger with a turn in it. A clock that jumps forward and is set back later makes no turn old.
fn believed_now_ms(db: &Connection, max_age_ms: i64) -> Result<i64, Failure> {
    let doubt_ms = DOUBT_MS.min(max_age_ms / 10);
    // Ids sort by time: these searches end where the last few days do.
    let newest = "SELECT started_ms FROM turns ORDER BY id DESC LIMIT 1";
    let newest_ms: i64 = db.query_row(newest, [], |row| row.get(0))?;
    let before = "SELECT id, started_ms FROM turns WHERE started_ms < ?1 ORDER BY id DESC LIMIT 1";
    let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let before = db.query_row(before, [newest_ms.saturating_sub(doubt_ms)], row).optional()?;
    let pause_ms = match before {
        Some((id, started_ms)) => {
            let after = "SELECT min(started_ms) FROM turns WHERE id > ?1";
            db.query_row(after, [id], |row| row.get::<_, i64>(0))?.saturating_sub(started_ms)
        }
        None => 0,
    };
    let doubted_ms = if pause_ms > doubt_ms { pause_ms } else { 0 };
    Ok(unix_ms().min(newest_ms.saturating_sub(doubted_ms)))
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
        let open = "SELECT id FROM turns WHERE id <= ?1 AND open = 1";
        let delete = format!("DELETE FROM {table} WHERE id <= ?1 AND id NOT IN ({open})");
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
