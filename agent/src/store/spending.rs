//! What was spent of the budgets. A turn's charges are written in the transaction that settles it, so that neither can
//! be there without the other.

use super::settle::Waiting;
use super::{Failure, Store, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_policies::budget::{BudgetName, Charge, Spending};
use tokio::sync::Notify;

/// What the database's thread tells the budgets' keeper.
#[derive(Debug, Default)]
pub struct Signs {
    unwritten: AtomicU64,
    /// Something was written, or could not be.
    pub changed: Notify,
}

impl Signs {
    /// Turns, windows and the like whose spending the database lacks: while there are any, it must not be believed.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Acquire)
    }

    pub fn tell(&self, unwritten: u64) {
        self.unwritten.store(unwritten, Ordering::Release);
        self.changed.notify_one();
    }
}

/// What the database knows of the budgets.
#[derive(Debug, Clone, Default)]
pub struct SavedBudgets {
    /// The newest window of each budget.
    pub spending: BTreeMap<BudgetName, Spending>,
    /// Caps that were set while running, in counts.
    pub caps: BTreeMap<BudgetName, u64>,
    /// When the newest turn began: time cannot have been earlier since.
    pub newest_ms: Option<i64>,
    pub signs: Arc<Signs>,
}

impl Store {
    /// Keeps a cap over restarts, or forgets it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn set_cap(&self, name: BudgetName, cap: Option<u64>) -> Result<(), StoreError> {
        self.call(move |db| {
            match cap {
                Some(cap) => db.execute(
                    "INSERT INTO caps VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cap = excluded.cap",
                    params![name.to_string(), signed(cap)],
                )?,
                None => db.execute("DELETE FROM caps WHERE budget = ?1", [name.to_string()])?,
            };
            Ok(())
        })
        .await
    }

    /// Writes down that a budget's window began anew, or what is known of one from elsewhere. If the database cannot be
    /// written now, it is written before anything later is.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn put_spending(&self, name: BudgetName, spending: Spending) -> Result<(), StoreError> {
        self.at_desk(move |desk| desk.keep(Waiting::Spending(name, spending))).await
    }

    /// Makes sure that these windows have a row, so that what a crash leaves reserved has a place to be counted in.
    /// Later writes come after it; a failure is logged.
    pub fn open_windows(&self, windows: Vec<(BudgetName, Spending)>) {
        self.post(move |desk| {
            let kept = windows.into_iter().map(|(name, window)| desk.keep(Waiting::Window(name, window)));
            // Each waits for itself; the first trouble tells of all.
            kept.fold(Ok(()), Result::and)
        });
    }
}

pub(super) fn put(db: &Connection, name: BudgetName, spending: &Spending) -> rusqlite::Result<()> {
    let Spending { generation, start_ms, spent, unknown, turns } = *spending;
    let row = params![name.to_string(), signed(generation), start_ms, signed(spent), signed(unknown), signed(turns)];
    db.prepare_cached("INSERT OR REPLACE INTO spending VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(row)?;
    Ok(())
}

pub(super) fn open_window(db: &Connection, name: BudgetName, window: &Spending) -> rusqlite::Result<()> {
    let row = params![name.to_string(), signed(window.generation), window.start_ms];
    db.prepare_cached("INSERT OR IGNORE INTO spending VALUES (?1, ?2, ?3, 0, 0, 0)")?.execute(row)?;
    Ok(())
}

pub(super) fn charge(db: &Transaction<'_>, charges: &[Charge]) -> Result<(), Failure> {
    let mut add = db.prepare_cached(
        "INSERT INTO spending VALUES (?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT DO UPDATE
         SET spent = spent + excluded.spent, unknown = unknown + excluded.unknown, turns = turns + 1",
    )?;
    for Charge { name, generation, start_ms, spent, unknown } in charges {
        let row = params![name.to_string(), signed(*generation), start_ms, signed(*spent), signed(*unknown)];
        add.execute(row)?;
    }
    Ok(())
}

/// Ends the turns that a stop cut off, and counts what they had reserved as spent. Returns how many there were.
pub(super) fn cut_off(db: &mut Connection) -> rusqlite::Result<u64> {
    let transaction = db.transaction()?;
    let select = "SELECT count(*), coalesce(sum(usd), 0), coalesce(sum(energy), 0), coalesce(sum(uplink), 0),
                  coalesce(sum(downlink), 0), count(nullif(usd, 0)), count(nullif(energy, 0)),
                  count(nullif(uplink, 0)), count(nullif(downlink, 0)) FROM turns WHERE open = 1";
    let (turns, sums): (i64, [(i64, i64); 4]) = transaction.query_row(select, [], |row| {
        Ok((
            row.get(0)?,
            [
                (row.get(1)?, row.get(5)?),
                (row.get(2)?, row.get(6)?),
                (row.get(3)?, row.get(7)?),
                (row.get(4)?, row.get(8)?),
            ],
        ))
    })?;
    for name in BudgetName::all() {
        let (reserved, spenders) = sums[name.resource as usize];
        if reserved > 0 {
            // The newest window is the one they were reserved in, or a later one of the same run.
            let update = "UPDATE spending SET spent = spent + ?2, unknown = unknown + ?2, turns = turns + ?3
                          WHERE budget = ?1 AND generation = (SELECT max(generation) FROM spending WHERE budget = ?1)";
            transaction.execute(update, params![name.to_string(), reserved, spenders])?;
        }
    }
    // Most stops cut nothing off, and no index tells which are open.
    if turns > 0 {
        transaction.execute("UPDATE turns SET open = 0 WHERE open = 1", [])?;
    }
    transaction.commit()?;
    Ok(turns.unsigned_abs())
}

pub(super) fn load(db: &Connection) -> rusqlite::Result<SavedBudgets> {
    let mut saved = SavedBudgets { newest_ms: newest_ms(db)?, ..SavedBudgets::default() };
    // With one maximum in the query, SQLite takes the other columns from its row.
    let mut query =
        db.prepare("SELECT budget, max(generation), start_ms, spent, unknown, turns FROM spending GROUP BY budget")?;
    let rows = query.query_map([], |row| {
        let spending = Spending {
            generation: row.get::<_, i64>(1)?.unsigned_abs(),
            start_ms: row.get(2)?,
            spent: row.get::<_, i64>(3)?.unsigned_abs(),
            unknown: row.get::<_, i64>(4)?.unsigned_abs(),
            turns: row.get::<_, i64>(5)?.unsigned_abs(),
        };
        Ok((row.get::<_, String>(0)?, spending))
    })?;
    for row in rows {
        let (name, spending) = row?;
        // A name that this version does not know is another version's.
        saved.spending.extend(name.parse::<BudgetName>().map(|name| (name, spending)));
    }
    let mut query = db.prepare("SELECT budget, cap FROM caps")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    for row in rows {
        let (name, cap) = row?;
        saved.caps.extend(name.parse::<BudgetName>().map(|name| (name, cap)));
    }
    Ok(saved)
}

/// The time of the newest turn: its id's, or the one at which it began.
fn newest_ms(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let newest = db.query_row("SELECT id, started_ms FROM turns ORDER BY id DESC LIMIT 1", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    });
    Ok(newest.optional()?.map(|(id, started_ms)| {
        let in_id = uuid::Uuid::parse_str(&id).ok().and_then(|id| id.get_timestamp());
        let id_ms =
            in_id.map(|stamp| stamp.to_unix()).map(|(s, ns)| s.saturating_mul(1_000) + u64::from(ns / 1_000_000));
        started_ms.max(id_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MIN))
    }))
}

/// SQLite's integers are signed; what does not fit saturates, far above any cap.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
