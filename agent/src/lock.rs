//! A lock file: held as long as the process lives, freed by the kernel when it dies, and it names its holder.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{path} is held by process {}", holder(.pid))]
    Held { path: PathBuf, pid: Option<u32> },
    #[error("{path}: {problem}")]
    Io { path: PathBuf, problem: std::io::Error },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
}

/// Dropping it frees the lock. The file stays: removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub struct FileLock {
    _held: Flock<File>,
}

impl FileLock {
    /// # Errors
    /// [`LockError::Held`] with the holder's process id, if another process (or another part of this one) has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let io = |problem| LockError::Io { path: path.to_owned(), problem };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(path).map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                held.set_len(0).map_err(io)?;
                held.rewind().map_err(io)?;
                writeln!(held, "{}", std::process::id()).map_err(io)?;
                Ok(Self { _held: held })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // Only for the message; an unreadable id is an unknown one.
                let _ = file.read_to_string(&mut text);
                Err(LockError::Held { path: path.to_owned(), pid: text.trim().parse().ok() })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}
