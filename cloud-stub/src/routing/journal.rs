//! The learned state on disk: a snapshot, and a log of what happened since. Each generation has one of both:
//! `snapshot-G.json` is the state at the moment when `log-G.jsonl` begins. Every record carries its crc32.
//!
//! A record is with the kernel before its event counts, so SIGKILL loses nothing. It is on the disk about a second later
//! (`flush.rs`), so a power cut loses no more than that.

use super::event::Event;
use super::flush::Flusher;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tether_policies::mess::{Router, Snapshot, SnapshotError};

/// A log this long takes about a second to replay, and is then replaced by a snapshot.
const MAX_LOG_BYTES: u64 = 16 << 20;
/// A larger file was not written by this program: 50,000 turns that wait for ratings take about 80 MB.
const MAX_FILE_BYTES: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    generation: u64,
    log: File,
    log_bytes: u64,
    flusher: Flusher,
    /// Holds the folder against a second gateway.
    _lock: File,
}

/// What was found; the caller replays the events upon the router.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) router: Option<Router>,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("state.path {}: {problem}", path.display())]
    Io { path: PathBuf, problem: io::Error },
    #[error("state.path {}: another gateway uses this folder; give each its own", .0.display())]
    Taken(PathBuf),
}

impl Journal {
    /// Opens a folder, made if there is none. What is damaged in it is set aside with a message.
    pub(super) fn open(folder: &Path, encoder: &str) -> Result<(Self, Found), JournalError> {
        let broken = |problem| JournalError::Io { path: folder.to_owned(), problem };
        std::fs::create_dir_all(folder).map_err(broken)?;
        let lock = File::create(folder.join("lock")).map_err(broken)?;
        if lock.try_lock().is_err() {
            return Err(JournalError::Taken(folder.to_owned()));
        }
        let found = load(folder, encoder).map_err(broken)?;
        // Never appended to an old log: its last line may be torn.
        let generation = generations(folder, "log-").map_err(broken)?.last().map_or(1, |last| last + 1);
        let log = new_log(folder, generation).map_err(broken)?;
        let flusher = Flusher::start().map_err(broken)?;
        flusher.wrote(folder);
        Ok((Self { folder: folder.to_owned(), generation, log, log_bytes: 0, flusher, _lock: lock }, found))
    }

    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let json = serde_json::to_string(event).map_err(io::Error::other)?;
        let line = record(&json);
        self.log.write_all(line.as_bytes())?;
        self.log_bytes += line.len() as u64;
        self.flusher.wrote(&log_path(&self.folder, self.generation));
        Ok(())
    }

    pub(super) fn is_long(&self) -> bool {
        self.log_bytes >= MAX_LOG_BYTES
    }

    /// Begins a new log and returns what writes the snapshot before it; until that has run, the old files count.
    pub(super) fn rotate(&mut self, snapshot: Snapshot) -> io::Result<impl FnOnce() -> io::Result<()> + use<>> {
        let generation = self.generation + 1;
        self.log = new_log(&self.folder, generation)?;
        (self.generation, self.log_bytes) = (generation, 0);
        self.flusher.wrote(&self.folder);
        let folder = self.folder.clone();
        Ok(move || write_snapshot(&folder, generation, &snapshot))
    }
}

pub(super) fn record(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// The JSON of a record without its line end, if the checksum fits.
pub(super) fn checked(record: &str) -> Option<&str> {
    let (crc, json) = record.split_at_checked(8)?;
    let json = json.strip_prefix(' ')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes())).then_some(json)
}

fn snapshot_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("snapshot-{generation}.json"))
}

fn log_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("log-{generation}.jsonl"))
}

fn new_log(folder: &Path, generation: u64) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log_path(folder, generation))
}

/// Whole or not at all; then the older generations go.
fn write_snapshot(folder: &Path, generation: u64, snapshot: &Snapshot) -> io::Result<()> {
    let part = folder.join(format!("snapshot-{generation}.part"));
    let mut file = File::create(&part)?;
    file.write_all(record(&snapshot.to_json()).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, snapshot_path(folder, generation))?;
    File::open(folder)?.sync_all()?;
    for old in generations(folder, "log-")?.into_iter().filter(|&old| old < generation) {
        std::fs::remove_file(log_path(folder, old))?;
    }
    for old in generations(folder, "snapshot-")?.into_iter().filter(|&old| old < generation) {
        std::fs::remove_file(snapshot_path(folder, old))?;
    }
    Ok(())
}

/// The generations of one kind of file, oldest first; other names are none of ours.
fn generations(folder: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
        let number = rest.strip_suffix(".jsonl").or_else(|| rest.strip_suffix(".json"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn load(folder: &Path, encoder: &str) -> io::Result<Found> {
    let mut found = Found::default();
    let mut base = 0;
    for generation in generations(folder, "snapshot-")?.into_iter().rev() {
        let path = snapshot_path(folder, generation);
        match read_snapshot(&path, encoder) {
            Ok(router) => {
                (found.router, base) = (Some(router), generation);
                break;
            }
            Err(problem) => set_aside(&path, &problem)?,
        }
    }
    for generation in generations(folder, "log-")?.into_iter().filter(|&generation| generation >= base) {
        let path = log_path(folder, generation);
        if let Err(problem) = read_log(&path, &mut found.events) {
            set_aside(&path, &problem)?;
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|problem| problem.to_string())?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("it has {bytes} bytes, at most {MAX_FILE_BYTES} are read"));
    }
    std::fs::read_to_string(path).map_err(|problem| problem.to_string())
}

fn read_snapshot(path: &Path, encoder: &str) -> Result<Router, String> {
    let text = read(path)?;
    let json = text.strip_suffix('\n').and_then(checked).ok_or("its checksum does not fit")?;
    let router = |snapshot| Router::restore(snapshot, encoder);
    Snapshot::from_json(json).and_then(router).map_err(|problem: SnapshotError| problem.to_string())
}

/// Adds the events up to the first that is damaged. A torn last line is no damage: its event never counted.
fn read_log(path: &Path, events: &mut Vec<Event>) -> Result<(), String> {
    let text = read(path)?;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(line) = line.strip_suffix('\n') else {
            tracing::info!(file = %path.display(), "the last record was not written to its end and is left out");
            break;
        };
        let json = checked(line).ok_or_else(|| format!("record {} does not fit its checksum", number + 1))?;
        let event = serde_json::from_str(json).map_err(|problem| format!("record {}: {problem}", number + 1))?;
        events.push(event);
    }
    Ok(())
}

pub(super) fn set_aside(path: &Path, problem: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    tracing::error!(
        file = %path.display(), problem, moved_to = %Path::new(&aside).display(),
        "the learned state is damaged and was set aside; what was learned in it is learned again"
    );
    std::fs::rename(path, aside)
}

#[cfg(test)]
mod tests;
