//! The ledger: one record a turn, found by its id, its dialogue or its age, and rated.

use super::{Failure, Store, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tether_protocol::{SessionId, TurnId, TurnRecord};

impl Store {
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
        self.call(move |db| one(db, &turn)).await
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
        self.call(move |db| newest(db, limit, before.as_ref(), session.as_ref())).await
    }

    /// Turns in the ledger.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn turn_count(&self) -> Result<u64, StoreError> {
        self.at_desk(super::Desk::turn_count).await
    }

    /// Turns in the order in which they began, at most `limit`, after the turn `after`; for reading all, page by page.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn turns_after(&self, limit: u32, after: Option<TurnId>) -> Result<Vec<TurnRecord>, StoreError> {
        self.call(move |db| {
            let after = after.as_ref().map_or("", TurnId::as_str);
            let select =
                "SELECT record, rating FROM turns JOIN records USING (id) WHERE id > ?1 AND open = 0 ORDER BY id LIMIT ?2";
            let mut query = db.prepare_cached(select)?;
            let rows = query.query_map(params![after, limit], raw)?.collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(record).collect()
        })
        .await
    }
}

pub(crate) fn one(db: &Connection, turn: &TurnId) -> Result<Option<TurnRecord>, Failure> {
    let select = "SELECT record, rating FROM turns JOIN records USING (id) WHERE id = ?1";
    let found = db.query_row(select, [turn.as_str()], raw).optional()?;
    found.map(record).transpose()
}

pub(crate) fn newest(
    db: &Connection,
    limit: u32,
    before: Option<&TurnId>,
    session: Option<&SessionId>,
) -> Result<Vec<TurnRecord>, Failure> {
    // Ids are UUIDs of version 7, lower case: they sort by time, and "~" sorts after all of them.
    let before = before.map_or("~", TurnId::as_str);
    let select = match session {
        None => "SELECT record, rating FROM turns JOIN records USING (id) WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        Some(_) => {
            "SELECT record, rating FROM turns JOIN records USING (id) WHERE id < ?1 AND session = ?3
             ORDER BY id DESC LIMIT ?2"
        }
    };
    let mut query = db.prepare_cached(select)?;
    let rows = match session {
        None => query.query_map(params![before, limit], raw)?.collect::<Result<Vec<_>, _>>()?,
        Some(session) => {
            query.query_map(params![before, limit, session.as_str()], raw)?.collect::<Result<Vec<_>, _>>()?
        }
    };
    rows.into_iter().map(record).collect()
}

/// The newest settled turns of a session, oldest first. One that was refused is no part of the dialogue; within a string
/// the quotes of these words would be escaped.
pub(super) fn settled(db: &Connection, session: &SessionId, limit: usize) -> Result<Vec<TurnRecord>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT record, rating FROM turns JOIN records USING (id) WHERE session = ?1 AND open = 0
             AND instr(record, '\"outcome\":\"refused\"') = 0 ORDER BY id DESC LIMIT ?2",
    )?;
    let rows = query.query_map(params![session.as_str(), limit as i64], raw)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().rev().map(record).collect()
}

pub(super) fn raw(row: &Row<'_>) -> rusqlite::Result<(String, Option<f64>)> {
    Ok((row.get(0)?, row.get(1)?))
}

pub(super) fn record((json, rating): (String, Option<f64>)) -> Result<TurnRecord, Failure> {
    let mut record: TurnRecord = serde_json::from_str(&json)?;
    record.rating = rating;
    Ok(record)
}
