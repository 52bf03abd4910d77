//! Reading a ledger without the daemon.

use super::ExportError;
use crate::store::SCHEMA_VERSION;
use rusqlite::{Connection, OpenFlags, Row};
use std::path::{Path, PathBuf};
use tether_protocol::TurnRecord;

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

    /// Every settled turn, oldest first, as of one moment.
    pub(super) fn each(&self, mut take: impl FnMut(Exported) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let sqlite = |problem| SourceError::Sqlite { path: self.path.clone(), problem };
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
