//! The database of sessions and turns: SQLite in WAL mode, on a thread of its own, so that neither the async runtime
//! nor the model ever waits for a disk.
//!
//! A turn is begun before anything is executed and settled after; what a SIGKILL leaves open becomes `unfinished` at
//! the next start. Committed transactions survive the process. A power cut may take those of the last second: whatever
//! is written wakes the daemon's syncing ([`Signs`]), which syncs the log at most a second apart ([`Store::sync`]). The
//! budgets' lease covers what is not synced, and what a lock or a full disk keeps out.

mod content;
mod open;
pub(crate) mod ratings;
mod retention;
mod schema;
mod sessions;
mod settle;
mod spending;
mod summary;
mod turns;

pub use content::Content;
pub use open::{OpenError, Opened};
pub use retention::Limits;
pub use sessions::{Memory, NewMessage, SessionUpdate};
pub use settle::Settling;
pub use spending::{SavedBudgets, Signs};
pub use summary::RouteTotals;
pub(crate) use turns::{newest, one};

/// The schema of the database that this version writes.
pub const SCHEMA_VERSION: usize = schema::MIGRATIONS.len();

use rusqlite::Connection;
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path}: {problem}{}", if is_full(.problem) { FULL } else { "" })]
    Database { path: PathBuf, problem: rusqlite::Error },
    #[error("the database {path} holds a record that cannot be read: {problem}")]
    Record { path: PathBuf, problem: String },
    #[error("the database's thread has stopped")]
    Stopped,
}

/// What to do about a full disk.
const FULL: &str = "; free some space there, or set ledger.path to another disk";

fn is_full(problem: &rusqlite::Error) -> bool {
    problem.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// What the database's thread works with.
struct Desk {
    connection: Connection,
    /// What a full disk or a lock kept out; written before anything later is.
    backlog: VecDeque<settle::Waiting>,
    /// Turns under way whose begin, or whose last reservation, could not be written.
    unbegun: HashSet<String>,
    /// What never will be written: the lease alone knows it.
    lost: u64,
    signs: Arc<Signs>,
    retention: retention::Retention,
}

/// A handle of the database's thread. Dropping it finishes what was posted, then closes the database.
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the database. A damaged one is set aside, see [`Opened::notices`].
    ///
    /// # Errors
    /// [`OpenError`] names the path: in use by another daemon, not writable, or written by a newer version.
    pub fn open(path: &Path) -> Result<Opened, OpenError> {
        Self::open_with(path, Limits::default())
    }

    /// As [`open`](Self::open), keeping no more than `limits` of the turns.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, limits: Limits) -> Result<Opened, OpenError> {
        Self::start(path, limits, open::LOGGED)
    }

    /// A new database that is filled and closed by one program, as a replay's is. It keeps everything and has no log: if
    /// the program is killed or the power fails, the file may be damaged and has to be made anew.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let limits = Limits { max_turns: u64::MAX, max_age_ms: i64::MAX, max_bytes: u64::MAX };
        Ok(Self::start(path, limits, open::UNLOGGED)?.store)
    }

    fn start(path: &Path, limits: Limits, writing: &str) -> Result<Opened, OpenError> {
        let open::Open { connection, lock, budgets, notices } = open::open(path, writing)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let retention = retention::Retention::new(limits);
        let (backlog, unbegun, signs) = (VecDeque::new(), HashSet::new(), budgets.signs.clone());
        let mut desk = Desk { connection, backlog, unbegun, lost: 0, signs, retention };
        let run = move || {
            let _held = lock;
            while let Ok(job) = queue.recv() {
                let before = desk.connection.total_changes();
                job(&mut desk);
                if desk.connection.total_changes() != before {
                    desk.signs.changed.notify_one();
                }
            }
            desk.close();
        };
        let thread = std::thread::Builder::new().name("tether-store".into()).spawn(run);
        let thread = thread.map_err(|problem| OpenError::Io { path: path.to_owned(), problem })?;
        let store = Store { jobs: Some(jobs), thread: Some(thread), path: path.to_owned() };
        Ok(Opened { store, budgets, notices })
    }

    /// A round trip to the database's thread.
    ///
    /// # Errors
    /// The thread is gone, or the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    /// Makes everything committed so far survive a power cut. Blocks for as long as the disk takes, and no writer with it:
    /// the log is synced from beside the database's thread.
    ///
    /// # Errors
    /// The log cannot be synced.
    pub fn sync(&self) -> std::io::Result<()> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        match std::fs::File::open(&log) {
            Ok(log) => log.sync_data(),
            // Nothing was written since the last checkpoint, which syncs by itself.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the database's thread and waits for its result.
    async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.at_desk(move |desk| work(&mut desk.connection)).await
    }

    async fn at_desk<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Desk) -> Result<T, Failure> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.send(Box::new(move |desk| {
            // A caller that went away does not undo its work.
            let _ = tell.send(work(desk));
        }))?;
        told.await.map_err(|_| StoreError::Stopped)?.map_err(|failure| self.explain(failure))
    }

    /// Runs `work` without waiting; a failure is logged.
    fn post<F>(&self, work: F)
    where
        F: FnOnce(&mut Desk) -> Result<(), Failure> + Send + 'static,
    {
        let path = self.path.clone();
        let sent = self.send(Box::new(move |desk| {
            if let Err(failure) = work(desk) {
                let error = explain(&path, failure);
                tracing::error!(%error, "a turn could not be recorded");
            }
        }));
        if let Err(error) = sent {
            tracing::error!(%error, "a turn could not be recorded");
        }
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.as_ref().ok_or(StoreError::Stopped)?.send(job).map_err(|_| StoreError::Stopped)
    }

    fn explain(&self, failure: Failure) -> StoreError {
        explain(&self.path, failure)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic on that thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// What can go wrong on the thread; the handle adds the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn explain(path: &Path, failure: Failure) -> StoreError {
    let path = path.to_owned();
    match failure {
        Failure::Sqlite(problem) => StoreError::Database { path, problem },
        Failure::Json(problem) => StoreError::Record { path, problem: problem.to_string() },
    }
}

#[cfg(test)]
mod tests;
