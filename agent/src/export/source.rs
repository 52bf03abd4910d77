//! Reading a ledger without the daemon.

use super::ExportError;
use crate::store::{self, Failure, SCHEMA_VERSION};
use rusqlite::{Connection, OpenFlags, Row};
use std::path::{Path, PathBuf};
use tether_policies::budget::{BudgetName, Window};
use tether_protocol::api::TurnList;
use tether_protocol::{SessionId, TurnId, TurnRecord};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the ledger {path} cannot be read: {problem}")]
    Sqlite { path: PathBuf, problem: rusqlite::Error },
    #[error("the ledger {path} does not exist; --ledger FILE names another one")]
    Missing { path: PathBuf },
    #[error(
        "the ledger {path} has schema {found}, this tether reads {SCHEMA_VERSION}; a daemon that opens it brings it up to date"
    )]
    Version { path: PathBuf, found: i64 },
    #[error("the ledger {path} holds a record that cannot be read: {problem}")]
    Record { path: PathBuf, problem: serde_json::Error },
}

/// One settled turn, with its text where the ledger kept it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    pub record: TurnRecord,
    /// Question and answer.
    pub text: Option<(String, String)>,
}

/// An open ledger.
pub struct Source {
    connection: Connection,
    path: PathBuf,
    since_ms: i64,
}

impl Source {
    /// Only turns that started at or after `since_ms` are read.
    ///
    /// # Errors
    /// [`SourceError`] names the file.
    pub fn open(path: &Path, since_ms: i64) -> Result<Self, SourceError> {
        let path = path.to_owned();
        if !path.exists() {
            return Err(SourceError::Missing { path });
        }
        let sqlite = |problem| SourceError::Sqlite { path: path.clone(), problem };
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
        if found != SCHEMA_VERSION as i64 {
            return Err(SourceError::Version { path, found });
        }
        Ok(Self { connection, path, since_ms })
    }

    /// One turn by its id, also one that is under way.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn turn(&self, turn: &TurnId) -> Result<Option<TurnRecord>, SourceError> {
        store::one(&self.connection, turn).map_err(|failure| self.failed(failure))
    }

    /// The newest turns first, as a daemon lists them.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn newest(
        &self,
        limit: u32,
        before: Option<&TurnId>,
        session: Option<&SessionId>,
    ) -> Result<TurnList, SourceError> {
        let turns = store::newest(&self.connection, limit + 1, before, session);
        Ok(TurnList::page(turns.map_err(|failure| self.failed(failure))?, limit))
    }

    /// When the first and the last of the settled turns began.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn span(&self) -> Result<Option<(i64, i64)>, SourceError> {
        let select = "SELECT min(started_ms), max(started_ms) FROM turns WHERE open = 0 AND started_ms >= ?1";
        let read = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
        let (first, last) = self.connection.query_row(select, [self.since_ms], read).map_err(|p| self.sqlite(p))?;
        Ok(first.zip(last))
    }

    /// Caps that were set while the daemon ran.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn caps(&self) -> Result<Vec<(BudgetName, u64)>, SourceError> {
        let caps = self.named("SELECT budget, cap FROM caps")?;
        Ok(caps.into_iter().map(|(name, cap)| (name, cap.unsigned_abs())).collect())
    }

    /// When missions began, of the budgets that something was spent of.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn missions(&self) -> Result<Vec<(BudgetName, i64)>, SourceError> {
        let windows = self.named("SELECT budget, start_ms FROM spending ORDER BY start_ms")?;
        Ok(windows.into_iter().filter(|(name, _)| name.window == Window::Mission).collect())
    }

    /// Rows of a budget's name and a number; names that are no budget's are left out.
    fn named(&self, select: &str) -> Result<Vec<(BudgetName, i64)>, SourceError> {
        let mut query = self.connection.prepare(select).map_err(|problem| self.sqlite(problem))?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
        let rows = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|problem| self.sqlite(problem))?;
        Ok(rows.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value))).collect())
    }

    fn failed(&self, failure: Failure) -> SourceError {
        match failure {
            Failure::Sqlite(problem) => self.sqlite(problem),
            Failure::Json(problem) => SourceError::Record { path: self.path.clone(), problem },
        }
    }

    fn sqlite(&self, problem: rusqlite::Error) -> SourceError {
        SourceError::Sqlite { path: self.path.clone(), problem }
    }

    /// Every settled turn, oldest first, as of one moment.
    ///
    /// # Errors
    /// The ledger cannot be read, or what `take` returns.
    pub fn each(&self, mut take: impl FnMut(Exported) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let sqlite = |problem| self.sqlite(problem);
        let select = "SELECT record, rating, question, answer FROM turns JOIN records USING (id)
                      LEFT JOIN contents USING (id) WHERE open = 0 AND started_ms >= ?1 ORDER BY turns.id";
        let mut query = self.connection.prepare(select).map_err(sqlite)?;
        let mut rows = query.query([self.since_ms]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let (json, rating, question, answer) = columns(row).map_err(sqlite)?;
            let record: Result<TurnRecord, _> = serde_json::from_str(&json);
            let record = record.map_err(|problem| SourceError::Record { path: self.path.clone(), problem })?;
            take(Exported { record: TurnRecord { rating, ..record }, text: question.zip(answer) })?;
        }
        Ok(())
    }
}

type Columns = (String, Option<f64>, Option<String>, Option<String>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}
