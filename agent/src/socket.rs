//! The Unix socket that the daemon listens on: one daemon a path, stale ones replaced, removed on a clean exit.

use crate::config::SocketSettings;
use crate::lock::{FileLock, LockError};
use nix::unistd::{Gid, Group, chown};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// `sun_path` of Linux, without its final zero.
const MAX_PATH_BYTES: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{path}: a tether daemon already listens here{}; stop it, or choose another socket.path", pid_note(.pid))]
    AlreadyRunning { path: PathBuf, pid: Option<u32> },
    #[error("{path} exists and is not a socket; remove it, or choose another socket.path")]
    NotASocket { path: PathBuf },
    #[error("{path}: a socket's path may have at most {MAX_PATH_BYTES} bytes, this one has {given}")]
    TooLong { path: PathBuf, given: usize },
    #[error("socket.group: there is no group {group:?} on this system; make it with `groupadd --system {group}`")]
    NoGroup { group: String },
    #[error("the socket {path}: {what}: {problem}")]
    Io { path: PathBuf, what: &'static str, problem: io::Error },
}

fn pid_note(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A listening socket. Dropping it removes the file, if this process made it and it still is the same one.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: Option<PathBuf>,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    inode: u64,
    _lock: FileLock,
}

impl Socket {
    /// Makes the socket and listens on it. What a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// A living daemon on the same path (with its process id, if it told), or what the file system says.
    pub fn bind(settings: &SocketSettings) -> Result<Self, SocketError> {
        let path = settings.path.clone();
        let io = |what| {
            let path = path.clone();
            move |problem| SocketError::Io { path, what, problem }
        };
        let given = path.as_os_str().len();
        if given > MAX_PATH_BYTES {
            return Err(SocketError::TooLong { path, given });
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io("its folder cannot be made"))?;
        }
        let lock = FileLock::take(&lock_path(&path)).map_err(|error| match error {
            LockError::Held { pid, .. } => SocketError::AlreadyRunning { path: path.clone(), pid },
            LockError::Io { problem, .. } => io("its lock file")(problem),
        })?;
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path).map_err(io("cannot listen"))?;
        set_owner(settings)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(settings.mode)).map_err(io("its mode"))?;
        let inode = fs::symlink_metadata(&path).map_err(io("cannot be read back"))?.ino();
        Ok(Self { listener, path: Some(path), made: Some(Made { inode, _lock: lock }) })
    }

    /// Takes a socket that the service manager opened; it keeps the file.
    pub fn inherited(listener: UnixListener) -> Self {
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        Self { listener, path, made: None }
    }

    /// Where clients connect, if it has a name.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A handle for the async runtime; this value must live as long as it is used.
    pub(crate) fn to_tokio(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let (Some(path), Some(made)) = (&self.path, &self.made) else { return };
        if fs::symlink_metadata(path).is_ok_and(|found| found.ino() == made.inode)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "the socket could not be removed");
        }
    }
}

/// We hold the lock, so no tether daemon made by the same path lives; something else might.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(_) => return Ok(()),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(stream) => Err(SocketError::AlreadyRunning { path: path.to_owned(), pid: peer_pid(&stream) }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "a socket without a daemon was left here; it is replaced");
            fs::remove_file(path).map_err(|problem| SocketError::Io {
                path: path.to_owned(),
                what: "a stale one cannot be removed",
                problem,
            })
        }
        Err(problem) => Err(SocketError::Io { path: path.to_owned(), what: "cannot be tried", problem }),
    }
}

fn peer_pid(stream: &UnixStream) -> Option<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(stream, PeerCredentials).ok().map(|peer| peer.pid().unsigned_abs())
}

fn set_owner(settings: &SocketSettings) -> Result<(), SocketError> {
    let Some(group) = &settings.group else { return Ok(()) };
    let failed = |problem: io::Error| SocketError::Io { path: settings.path.clone(), what: "its group", problem };
    let found = Group::from_name(group).map_err(|errno| failed(errno.into()))?;
    let gid: Gid = found.ok_or_else(|| SocketError::NoGroup { group: group.clone() })?.gid;
    chown(&settings.path, None, Some(gid)).map_err(|errno| failed(errno.into()))
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> SocketSettings {
        SocketSettings { path: folder.join("run/t.sock"), mode: 0o600, group: None }
    }

    #[test]
    fn one_daemon_a_path_and_the_second_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::bind(&settings(folder.path())).unwrap();
        let error = Socket::bind(&settings(folder.path())).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(socket.path().unwrap()), 0o600);
        assert_eq!(mode(&folder.path().join("run")), 0o700);
        drop(socket);
        assert!(!folder.path().join("run/t.sock").exists());
        Socket::bind(&settings(folder.path())).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(folder.path().join("run")).unwrap();
        drop(UnixListener::bind(&settings.path).unwrap());
        assert!(settings.path.exists());
        drop(Socket::bind(&settings).unwrap());
        fs::write(&settings.path, "text").unwrap();
        assert!(matches!(Socket::bind(&settings), Err(SocketError::NotASocket { .. })));
        assert!(settings.path.exists());
    }

    #[test]
    fn a_socket_in_use_by_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir(folder.path().join("run")).unwrap();
        let other = UnixListener::bind(&settings.path).unwrap();
        assert!(matches!(Socket::bind(&settings), Err(SocketError::AlreadyRunning { pid: Some(_), .. })));
        drop(other);
    }

    #[test]
    fn too_long_a_path_is_told_before_the_kernel_does() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(MAX_PATH_BYTES)));
        let error = Socket::bind(&SocketSettings { path, mode: 0o600, group: None }).unwrap_err();
        assert!(matches!(error, SocketError::TooLong { .. }));
    }
}
