//! Opening the database: one daemon at a time, versioned, and a damaged file is set aside, never a crash loop.

use super::Store;
use super::schema::MIGRATIONS;
use super::spending::{self, SavedBudgets};
use crate::lock::{FileLock, LockError};
use rusqlite::{Connection, ErrorCode};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A database up to this size is checked whole at the start: a fifth of a second from a slow disk.
const MAX_CHECKED_BYTES: u64 = 64 << 20;
/// How long a database that another program has locked is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the database {path} was written by a newer tether (schema {found}, this one knows {}); \
         install that version, or set ledger.path to another file",
        MIGRATIONS.len()
    )]
    Newer { path: PathBuf, found: usize },
    #[error("the database {path} is used by another tether daemon: {lock}; set ledger.path to another file")]
    InUse { path: PathBuf, lock: LockError },
    #[error("the database {path} cannot be opened: {problem}{}", fix(.problem.kind() == io::ErrorKind::StorageFull))]
    Io { path: PathBuf, problem: io::Error },
    #[error("the database {path} cannot be opened: {problem}{}", fix(super::is_full(.problem)))]
    Sqlite { path: PathBuf, problem: rusqlite::Error },
}

fn fix(full: bool) -> &'static str {
    if full { super::FULL } else { "" }
}

/// An open database, what it knows of the budgets, and what the operator should know about how it was opened.
pub struct Opened {
    pub store: Store,
    pub budgets: SavedBudgets,
    pub notices: Vec<String>,
}

pub(super) struct Open {
    pub(super) connection: Connection,
    pub(super) lock: FileLock,
    pub(super) budgets: SavedBudgets,
    pub(super) notices: Vec<String>,
}

/// How a daemon writes: to a log, so that what was committed survives a kill.
pub(super) const LOGGED: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;";
/// Each page once, straight to its place: what is begun anew after a crash.
pub(super) const UNLOGGED: &str = "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;";

/// `writing`: one of the two above.
pub(super) fn open(path: &Path, writing: &str) -> Result<Open, OpenError> {
    let io = |problem| OpenError::Io { path: path.to_owned(), problem };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    }
    let lock = FileLock::take(&beside(path, "lock"));
    let lock = lock.map_err(|lock| match lock {
        LockError::Held { .. } => OpenError::InUse { path: path.to_owned(), lock },
        LockError::Io { problem, .. } => io(problem),
    })?;
    // Dialogues are private: the file is made by us, so that its mode is ours; SQLite's other files follow it.
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io)?;
    let mut notices = Vec::new();
    let mut connection = match prepare(path, writing) {
        Err(OpenError::Sqlite { problem, .. }) if is_damage(&problem) => {
            let aside = set_aside(path).map_err(io)?;
            notices.push(format!(
                "the database {} was damaged ({problem}); it was set aside as {} and a new one was begun",
                path.display(),
                aside.display()
            ));
            prepare(path, writing)?
        }
        other => other?,
    };
    let sqlite = |problem| OpenError::Sqlite { path: path.to_owned(), problem };
    let cut_off = spending::cut_off(&mut connection).map_err(sqlite)?;
    if cut_off > 0 {
        notices.push(format!("{cut_off} turns were cut off by the last stop; they are marked unfinished"));
    }
    let budgets = spending::load(&connection).map_err(sqlite)?;
    Ok(Open { connection, lock, budgets, notices })
}

fn prepare(path: &Path, writing: &str) -> Result<Connection, OpenError> {
    let sqlite = |problem| OpenError::Sqlite { path: path.to_owned(), problem };
    let mut connection = Connection::open(path).map_err(sqlite)?;
    connection.busy_timeout(PATIENCE).map_err(sqlite)?;
    let pragmas = "PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA journal_size_limit = 4194304;";
    connection.execute_batch(writing).and_then(|()| connection.execute_batch(pragmas)).map_err(sqlite)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > MIGRATIONS.len() {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    for (version, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction().map_err(sqlite)?;
        transaction.execute_batch(migration).map_err(sqlite)?;
        transaction.pragma_update(None, "user_version", version as i64 + 1).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
    check(&connection).map_err(sqlite)?;
    Ok(connection)
}

/// Reads pages' headers once: a database cut short is found now, not in the middle of a turn. Of a large one only the
/// tables that decisions need, so that a million turns do not delay a start.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let tables: &[&str] = match u64::from(pages) * u64::from(page_bytes) {
        ..=MAX_CHECKED_BYTES => &["1"],
        _ => &["spending", "caps", "sessions", "messages"],
    };
    for table in tables {
        let verdict: String = connection.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get(0))?;
        if verdict != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(verdict)));
        }
    }
    Ok(())
}

fn is_damage(problem: &rusqlite::Error) -> bool {
    matches!(problem.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(problem, rusqlite::Error::SqliteFailure(_, Some(text)) if text.contains("already exists"))
}

/// Moves the database and its companions away under a name that tells when.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let aside = beside(path, &format!("damaged-{stamp}"));
    fs::rename(path, &aside)?;
    for companion in ["-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{companion}", path.display()));
        if from.exists() {
            fs::rename(&from, format!("{}{companion}", aside.display()))?;
        }
    }
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
