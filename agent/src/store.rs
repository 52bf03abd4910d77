//! The database of sessions and turns: SQLite in WAL mode, on a thread of its own, so that neither the async runtime
//! nor the model ever waits for a disk.
//!
//! A turn is begun before anything is executed and settled after; what a SIGKILL leaves open becomes `unfinished` at
//! the next start. Committed transactions survive the process (not necessarily a power cut: `synchronous = NORMAL`).

mod open;
mod sessions;
mod turns;

pub use open::{OpenError, Opened};
pub use sessions::{Memory, NewMessage, SessionUpdate};

use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path}: {problem}")]
    Database { path: PathBuf, problem: rusqlite::Error },
    #[error("the database {path} holds a record that cannot be read: {problem}")]
    Record { path: PathBuf, problem: String },
    #[error("the database's thread has stopped")]
    Stopped,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

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
        let (mut connection, lock, notices) = open::open(path)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            let _held = lock;
            while let Ok(job) = queue.recv() {
                job(&mut connection);
            }
        };
        let thread = std::thread::Builder::new().name("tether-store".into()).spawn(run);
        let thread = thread.map_err(|problem| OpenError::Io { path: path.to_owned(), problem })?;
        Ok(Opened { store: Store { jobs: Some(jobs), thread: Some(thread), path: path.to_owned() }, notices })
    }

    /// A round trip to the database's thread.
    ///
    /// # Errors
    /// The thread is gone, or the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    /// Runs `work` on the database's thread and waits for its result.
    async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.send(Box::new(move |connection| {
            // A caller that went away does not undo its work.
            let _ = tell.send(work(connection));
        }))?;
        told.await.map_err(|_| StoreError::Stopped)?.map_err(|failure| self.explain(failure))
    }

    /// Runs `work` without waiting; a failure is logged.
    fn post<F>(&self, work: F)
    where
        F: FnOnce(&mut Connection) -> Result<(), Failure> + Send + 'static,
    {
        let path = self.path.clone();
        let sent = self.send(Box::new(move |connection| {
            if let Err(failure) = work(connection) {
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
enum Failure {
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
