//! The ledger: one record a turn, begun before execution, settled after, rated later.

use super::sessions::{SessionUpdate, append};
use super::{Failure, Store, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tether_protocol::{SessionId, TurnId, TurnRecord};

impl Store {
    /// Writes a turn down before it is executed. Until it is settled it counts as open.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn begin(&self, record: &TurnRecord) -> Result<(), StoreError> {
        let (id, session, json) = columns(record).map_err(|failure| self.explain(failure))?;
        self.call(move |db| {
            let insert = "INSERT INTO turns (id, session, open, record) VALUES (?1, ?2, 1, ?3)";
            db.prepare_cached(insert)?.execute(params![id, session, json])?;
            Ok(())
        })
        .await
    }

    /// Writes down how a turn ended, and what its dialogue remembers, in one transaction.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn settle(&self, record: &TurnRecord, update: Option<SessionUpdate>) -> Result<(), StoreError> {
        let columns = columns(record).map_err(|failure| self.explain(failure))?;
        self.call(move |db| settle(db, &columns, update.as_ref())).await
    }

    /// As [`settle`](Self::settle), from where nothing can wait, such as a drop. A failure is logged.
    pub fn settle_later(&self, record: &TurnRecord, update: Option<SessionUpdate>) {
        match columns(record) {
            Ok(columns) => self.post(move |db| settle(db, &columns, update.as_ref())),
            Err(error) => tracing::error!(%error, "a turn could not be recorded"),
        }
    }

    /// Joins a rating to its turn. Returns the rating that it replaced; `None` for an unknown turn.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn rate(&self, turn: TurnId, rating: f64) -> Result<Option<Option<f64>>, StoreError> {
        self.call(move |db| {
            let transaction = db.transaction()?;
            let select = "SELECT rating FROM turns WHERE id = ?1";
            let old = transaction.query_row(select, [turn.as_str()], |row| row.get(0)).optional()?;
            transaction.execute("UPDATE turns SET rating = ?2 WHERE id = ?1", params![turn.as_str(), rating])?;
            transaction.commit()?;
            Ok(old)
        })
        .await
    }

    /// One turn by its id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn turn(&self, turn: TurnId) -> Result<Option<TurnRecord>, StoreError> {
        self.call(move |db| {
            let select = "SELECT record, rating FROM turns WHERE id = ?1";
            let found = db.query_row(select, [turn.as_str()], raw).optional()?;
            found.map(record).transpose()
        })
        .await
    }

    /// The newest turns first, at most `limit`, before the turn `before`, of one session or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn turns(
        &self,
        limit: u32,
        before: Option<TurnId>,
        session: Option<SessionId>,
    ) -> Result<Vec<TurnRecord>, StoreError> {
        self.call(move |db| {
            // Ids are UUIDs of version 7, lower case: they sort by time, and "~" sorts after all of them.
            let before = before.as_ref().map_or("~", TurnId::as_str);
            let select = match session {
                None => "SELECT record, rating FROM turns WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
                Some(_) => "SELECT record, rating FROM turns WHERE id < ?1 AND session = ?3 ORDER BY id DESC LIMIT ?2",
            };
            let mut query = db.prepare_cached(select)?;
            let rows = match &session {
                None => query.query_map(params![before, limit], raw)?.collect::<Result<Vec<_>, _>>()?,
                Some(session) => {
                    query.query_map(params![before, limit, session.as_str()], raw)?.collect::<Result<Vec<_>, _>>()?
                }
            };
            rows.into_iter().map(record).collect()
        })
        .await
    }

    /// Turns in the ledger.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn turn_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self.call(|db| Ok(db.query_row("SELECT count(*) FROM turns", [], |row| row.get(0))?)).await?;
        Ok(count.unsigned_abs())
    }
}

/// The newest settled turns of a session, oldest first.
pub(super) fn settled(db: &Connection, session: &SessionId, limit: usize) -> Result<Vec<TurnRecord>, Failure> {
    let mut query = db
        .prepare_cached("SELECT record, rating FROM turns WHERE session = ?1 AND open = 0 ORDER BY id DESC LIMIT ?2")?;
    let rows = query.query_map(params![session.as_str(), limit as i64], raw)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().rev().map(record).collect()
}

type Columns = (String, Option<String>, String);

fn columns(record: &TurnRecord) -> Result<Columns, Failure> {
    let session = record.session.as_ref().map(|session| session.as_str().to_owned());
    Ok((record.turn_id.as_str().to_owned(), session, serde_json::to_string(record)?))
}

fn settle(db: &mut Connection, columns: &Columns, update: Option<&SessionUpdate>) -> Result<(), Failure> {
    let (id, session, json) = columns;
    let transaction: Transaction<'_> = db.transaction()?;
    // Inserted if the begin failed, so that a disk that was full for a moment loses no finished turn.
    let upsert = "INSERT INTO turns (id, session, open, record) VALUES (?1, ?2, 0, ?3)
                  ON CONFLICT (id) DO UPDATE SET open = 0, record = excluded.record";
    transaction.prepare_cached(upsert)?.execute(params![id, session, json])?;
    if let Some(update) = update {
        append(&transaction, update)?;
    }
    Ok(transaction.commit()?)
}

fn raw(row: &Row<'_>) -> rusqlite::Result<(String, Option<f64>)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn record((json, rating): (String, Option<f64>)) -> Result<TurnRecord, Failure> {
    let mut record: TurnRecord = serde_json::from_str(&json)?;
    record.rating = rating;
    Ok(record)
}
