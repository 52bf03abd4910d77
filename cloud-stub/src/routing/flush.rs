//! Makes what was written survive a power cut, within about a second: one thread syncs whatever was written since it did
//! so last, and nobody waits for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From the first write of a group until the group is synced.
const SYNC_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Flusher {
    written: Option<Sender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start() -> io::Result<Self> {
        let (written, paths) = channel();
        let thread = std::thread::Builder::new().name("tether-flush".into()).spawn(move || run(&paths))?;
        Ok(Self { written: Some(written), thread: Some(thread) })
    }

    /// A file that has grown, or a folder that holds a new one.
    pub(super) fn wrote(&self, path: &Path) {
        // The thread ends with this value only.
        let _ = self.written.as_ref().map(|written| written.send(path.to_owned()));
    }
}

impl Drop for Flusher {
    /// Syncs what is left.
    fn drop(&mut self) {
        self.written = None;
        // A panic in there has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(paths: &Receiver<PathBuf>) {
    let mut failed_before = false;
    while let Some(group) = group(paths, SYNC_AFTER) {
        let failed = group.iter().filter_map(|path| sync(path).err().map(|problem| (path, problem))).next();
        if let (Some((path, problem)), false) = (&failed, failed_before) {
            tracing::error!(file = %path.display(), %problem, "what was learned last may not survive a power cut");
        }
        failed_before = failed.is_some();
    }
}

/// What is written within a while from the first; `None` once nobody writes any more.
fn group(paths: &Receiver<PathBuf>, within: Duration) -> Option<BTreeSet<PathBuf>> {
    let mut group = BTreeSet::from([paths.recv().ok()?]);
    let until = Instant::now() + within;
    loop {
        match paths.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(path) => group.insert(path),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Some(group),
        };
    }
}

fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        // A snapshot has taken its place.
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_what_was_written_within_its_time_and_each_file_once() {
        let (written, paths) = channel();
        for name in ["b", "a", "b"] {
            written.send(PathBuf::from(name)).unwrap();
        }
        let names =
            |group: BTreeSet<PathBuf>| group.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(group(&paths, Duration::from_millis(1)).unwrap()), ["a", "b"]);
        written.send(PathBuf::from("c")).unwrap();
        drop(written);
        assert_eq!(names(group(&paths, Duration::from_secs(60)).unwrap()), ["c"], "the end waits for nothing");
        assert!(group(&paths, Duration::from_secs(60)).is_none());
    }

    #[test]
    fn a_file_that_has_gone_is_no_failure_and_a_folder_can_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sync(&folder.path().join("gone")).is_ok());
        assert!(sync(folder.path()).is_ok());
    }
}
