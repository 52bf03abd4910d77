//! The shared log in a folder, for gateways on one machine or on a file system whose locks hold between machines.
//!
//! `log-G.jsonl` holds records, each with its crc32; the newest G grows. `snapshot-N-EPOCH.json` says up to which file
//! and byte it holds everything. Whoever writes holds the lock; readers take none.

use super::super::journal::{checked, record};
use super::log::{Batch, LogError, Position, SharedLog, Stored, unique_name};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a reader looks whether a file has grown.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Read at once; a record is some kilobytes.
const READ_BYTES: u64 = 4 << 20;

pub(super) struct FolderLog {
    folder: PathBuf,
}

/// A file of the folder: a snapshot's number and epoch.
struct Name {
    number: u64,
    epoch: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    file: u64,
    byte: u64,
    snapshot: String,
}

impl FolderLog {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn failed(&self) -> impl Fn(io::Error) -> LogError + use<> {
        let place = format!("state.path {}", self.folder.display());
        move |problem| LogError::Io { place: place.clone(), problem }
    }

    /// Released when the file is closed, by the kernel too.
    fn lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(&self.folder)?;
        let lock = OpenOptions::new().create(true).append(true).open(self.folder.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn log_path(&self, file: u64) -> PathBuf {
        self.folder.join(format!("log-{file}.jsonl"))
    }

    fn snapshot_path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("snapshot-{}-{}.json", name.number, name.epoch))
    }

    fn names(&self) -> io::Result<impl Iterator<Item = String>> {
        let names = std::fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
    }

    /// Oldest first.
    fn logs(&self) -> io::Result<Vec<u64>> {
        let number = |name: String| name.strip_prefix("log-")?.strip_suffix(".jsonl")?.parse().ok();
        let mut logs: Vec<u64> = self.names()?.filter_map(number).collect();
        logs.sort_unstable();
        Ok(logs)
    }

    /// Oldest first. A new epoch goes on counting, so that the newest is the last.
    fn snapshots(&self) -> io::Result<Vec<Name>> {
        let parse = |name: String| {
            let (number, epoch) = name.strip_prefix("snapshot-")?.strip_suffix(".json")?.split_once('-')?;
            Some(Name { number: number.parse().ok()?, epoch: epoch.to_owned() })
        };
        let mut snapshots: Vec<Name> = self.names()?.filter_map(parse).collect();
        snapshots.sort_by_key(|name| name.number);
        Ok(snapshots)
    }

    /// Whole or not at all. The caller holds the lock.
    fn write_snapshot(&self, name: &Name, at: Position, snapshot: &str) -> io::Result<()> {
        let head = Head { file: at.0, byte: at.1, snapshot: snapshot.to_owned() };
        let json = serde_json::to_string(&head).map_err(io::Error::other)?;
        let part = self.folder.join("snapshot.part");
        let mut file = File::create(&part)?;
        file.write_all(record(&json).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(part, self.snapshot_path(name))?;
        File::open(&self.folder)?.sync_all()
    }

    fn read_snapshot(&self, name: &Name) -> Result<Stored, String> {
        let text = std::fs::read_to_string(self.snapshot_path(name)).map_err(|problem| problem.to_string())?;
        let json = text.strip_suffix('\n').and_then(checked).ok_or("its checksum does not fit")?;
        let head: Head = serde_json::from_str(json).map_err(|problem| problem.to_string())?;
        let position = Position(head.file, head.byte);
        Ok(Stored { epoch: name.epoch.clone(), number: name.number, position, snapshot: head.snapshot })
    }

    /// The newest log, ready to be added to. The caller holds the lock.
    fn open_newest(&self) -> io::Result<File> {
        let newest = self.logs()?.last().copied().unwrap_or(1);
        let path = self.log_path(newest);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        drop_torn_end(&mut file)?;
        Ok(file)
    }

    /// Whole records behind a place in one file.
    fn records(&self, after: Position) -> io::Result<Vec<(Position, String)>> {
        let mut file = match File::open(self.log_path(after.0)) {
            Ok(file) => file,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(problem) => return Err(problem),
        };
        file.seek(SeekFrom::Start(after.1))?;
        let mut bytes = Vec::new();
        file.take(READ_BYTES).read_to_end(&mut bytes)?;
        let mut end = after.1;
        let mut records = Vec::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            end += line.len() as u64;
            let text = std::str::from_utf8(&line[..line.len() - 1]).ok().and_then(checked);
            // A damaged record keeps its place, so that readers get past it.
            records.push((Position(after.0, end), text.unwrap_or_default().to_owned()));
        }
        Ok(records)
    }

    /// The records behind `after`, in the next file too, once this one has ended.
    fn records_anywhere(&self, after: Position) -> io::Result<Vec<(Position, String)>> {
        let ended = self.log_path(after.0 + 1).exists();
        // Looked at after that: nobody adds to a file once the next one is there.
        let records = self.records(after)?;
        if records.is_empty() && ended { self.records(Position(after.0 + 1, 0)) } else { Ok(records) }
    }

    fn stand(&self) -> io::Result<Batch> {
        let logs = self.logs()?;
        let newest = self.snapshots()?.pop();
        let (oldest, last) = (logs.first().copied().unwrap_or(0), logs.last().copied().unwrap_or(0));
        let bytes = std::fs::metadata(self.log_path(last)).map_or(0, |about| about.len());
        Ok(Batch {
            number: newest.as_ref().map_or(0, |name| name.number),
            epoch: newest.map(|name| name.epoch),
            kept_from: Position(oldest, 0),
            last: Position(last, bytes),
            records: Vec::new(),
        })
    }

    fn clean(&self) -> io::Result<()> {
        let mut snapshots = self.snapshots()?;
        snapshots.pop();
        // The snapshot before the newest stays, in case the newest is damaged.
        let Some(before) = snapshots.pop() else { return Ok(()) };
        snapshots.iter().try_for_each(|name| std::fs::remove_file(self.snapshot_path(name)))?;
        let Ok(stored) = self.read_snapshot(&before) else { return Ok(()) };
        let old = self.logs()?.into_iter().filter(|&file| file < stored.position.0);
        old.into_iter().try_for_each(|file| std::fs::remove_file(self.log_path(file)))
    }
}

/// A writer that was killed leaves half a record, which never counted.
fn drop_torn_end(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    file.set_len(whole as u64)
}

impl SharedLog for FolderLog {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn load(&mut self) -> Result<Option<Stored>, LogError> {
        let failed = self.failed();
        std::fs::create_dir_all(&self.folder).map_err(&failed)?;
        for name in self.snapshots().map_err(&failed)?.into_iter().rev() {
            match self.read_snapshot(&name) {
                Ok(stored) => return Ok(Some(stored)),
                Err(problem) => {
                    super::super::journal::set_aside(&self.snapshot_path(&name), &problem).map_err(&failed)?;
                }
            }
        }
        Ok(None)
    }

    fn found(&mut self, instead_of: Option<&str>, snapshot: &str) -> Result<(), LogError> {
        let found = || {
            let _lock = self.lock()?;
            let newest = self.snapshots()?.pop();
            if newest.as_ref().map(|name| name.epoch.as_str()) != instead_of {
                return Ok(());
            }
            let logs = self.logs()?;
            if logs.is_empty() {
                File::create(self.log_path(1))?;
            }
            let name = Name { number: newest.map_or(0, |name| name.number + 1), epoch: unique_name() };
            self.write_snapshot(&name, Position(logs.first().copied().unwrap_or(1), 0), snapshot)
        };
        found().map_err(self.failed())
    }

    fn append(&mut self, records: &[String]) -> Result<(), LogError> {
        let append = || {
            let _lock = self.lock()?;
            let lines: String = records.iter().map(|json| record(json)).collect();
            self.open_newest()?.write_all(lines.as_bytes())
        };
        append().map_err(self.failed())
    }

    fn read(&mut self, after: Position, wait: Duration) -> Result<Batch, LogError> {
        let read = || {
            let begun = Instant::now();
            let mut records = self.records_anywhere(after)?;
            while records.is_empty() && begun.elapsed() < wait {
                std::thread::sleep(LOOK_EVERY);
                records = self.records_anywhere(after)?;
            }
            Ok(Batch { records, ..self.stand()? })
        };
        read().map_err(self.failed())
    }

    fn replace(&mut self, epoch: &str, number: u64, at: Position, snapshot: &str) -> Result<(), LogError> {
        let replace = || {
            let _lock = self.lock()?;
            let Some(newest) = self.snapshots()?.pop() else { return Ok(()) };
            if newest.epoch != epoch || newest.number != number {
                return Ok(());
            }
            self.write_snapshot(&Name { number: number + 1, epoch: epoch.to_owned() }, at, snapshot)?;
            // What is written from now on goes to a new file, so that the old one can leave whole.
            let next = self.logs()?.last().map_or(1, |last| last + 1);
            self.open_newest()?;
            File::create(self.log_path(next))?;
            self.clean()
        };
        replace().map_err(self.failed())
    }
}

#[cfg(test)]
mod tests;
