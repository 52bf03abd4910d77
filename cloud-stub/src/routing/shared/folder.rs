//! The shared log in a folder, each tenant in files of its own, for gateways on one machine or on a file system whose
//! locks hold between machines.
//!
//! ```text
//!     order-G.log                which record comes next: tenant, byte, length. The newest G grows.
//!     records-G/TENANT.jsonl     a tenant's records; the order says where each begins
//!     snapshot-N-EPOCH.json      what is common to all tenants, up to a place in the order, and where their parts are
//!     tenants/TENANT-HASH.json   a tenant's part of a snapshot
//!     lock                       held by whoever writes; readers take none
//! ```
//!
//! Every record, every line of the order and every part carries its crc32. One file is open at a time, and a reader
//! looks at one, the order, however many tenants there are. A snapshot lets go of the records before it, so the files
//! of tenants who say nothing any more go too.

mod parts;

use super::super::flush::Flusher;
use super::super::journal::{checked, record, set_aside};
use super::Saved;
use super::log::{Batch, LogError, Position, Sent, SharedLog, Stored, unique_name};
use parts::{Parts, file_name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a reader looks whether the order has grown.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of the order, read at once: about a thousand records.
const READ_BYTES: u64 = 64 << 10;
/// A longer record was not written by this program: new settings that name 100,000 tenants take about 10 MB.
const MAX_RECORD_BYTES: u64 = 64 << 20;

pub(super) struct FolderLog {
    folder: PathBuf,
    /// Started by the first append.
    flusher: Option<Flusher>,
}

/// A snapshot's number and epoch.
struct Name {
    number: u64,
    epoch: String,
}

/// What a snapshot's own file holds.
#[derive(Serialize, Deserialize)]
struct Head {
    file: u64,
    byte: u64,
    /// Without the tenants.
    common: Saved,
    /// Tenant -> the file of its part.
    tenants: BTreeMap<String, String>,
}

/// A line of the order: a record's file, and its bytes there.
struct Place {
    file: String,
    offset: u64,
    length: u64,
}

impl Place {
    fn line(&self) -> String {
        record(&format!("{} {} {}", self.file, self.offset, self.length))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = checked(line)?.split(' ');
        let (file, offset, length) = (words.next()?, words.next()?, words.next()?);
        Some(Self { file: file.to_owned(), offset: offset.parse().ok()?, length: length.parse().ok()? })
    }
}

impl FolderLog {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), flusher: None }
    }

    fn place(&self) -> String {
        format!("state.path {}", self.folder.display())
    }

    fn failed(&self) -> impl Fn(io::Error) -> LogError + use<> {
        let place = self.place();
        move |problem| LogError::Io { place: place.clone(), problem }
    }

    /// Released when the file is closed, by the kernel too.
    fn lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(&self.folder)?;
        let lock = OpenOptions::new().create(true).append(true).open(self.folder.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn order_path(&self, file: u64) -> PathBuf {
        self.folder.join(format!("order-{file}.log"))
    }

    fn records_folder(&self, file: u64) -> PathBuf {
        self.folder.join(format!("records-{file}"))
    }

    fn snapshot_path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("snapshot-{}-{}.json", name.number, name.epoch))
    }

    fn parts(&self) -> Parts {
        Parts::of(&self.folder)
    }

    fn names(&self) -> io::Result<impl Iterator<Item = String>> {
        let names = std::fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
    }

    /// Oldest first.
    fn orders(&self) -> io::Result<Vec<u64>> {
        let number = |name: String| name.strip_prefix("order-")?.strip_suffix(".log")?.parse().ok();
        let mut orders: Vec<u64> = self.names()?.filter_map(number).collect();
        orders.sort_unstable();
        Ok(orders)
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

    /// Earlier versions kept one log for all tenants; what they wrote is not read, and not thrown away either.
    fn refuse_old_form(&self) -> Result<(), LogError> {
        let is_old = |name: String| name.starts_with("log-") && name.ends_with(".jsonl");
        if !self.names().map_err(self.failed())?.any(is_old) {
            return Ok(());
        }
        let problem = "it holds the state of an earlier version, which had one log for all tenants; stop the gateways \
                       that still use it, then name a new folder (or empty this one): what was learned is learned again"
            .to_owned();
        Err(LogError::Unusable { place: self.place(), problem })
    }

    /// The snapshot's own file, whole or not at all. The caller holds the lock, and has written the parts.
    fn write_snapshot(&self, name: &Name, head: &Head) -> io::Result<()> {
        let json = serde_json::to_string(head).map_err(io::Error::other)?;
        let part = self.folder.join("snapshot.part");
        let mut file = File::create(&part)?;
        file.write_all(record(&json).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(part, self.snapshot_path(name))?;
        File::open(&self.folder)?.sync_all()
    }

    fn head(&self, at: Position, mut saved: Saved) -> io::Result<Head> {
        let tenants = self.parts().write(saved.router.take_tenants())?;
        Ok(Head { file: at.0, byte: at.1, common: saved, tenants })
    }

    fn read_head(&self, name: &Name) -> Result<Head, String> {
        let text = std::fs::read_to_string(self.snapshot_path(name)).map_err(|problem| problem.to_string())?;
        let json = text.strip_suffix('\n').and_then(checked).ok_or("its checksum does not fit")?;
        serde_json::from_str(json).map_err(|problem| problem.to_string())
    }

    /// A tenant whose part is damaged begins anew; the others do not notice.
    fn read_snapshot(&self, name: &Name) -> Result<Stored, String> {
        let Head { file, byte, common: mut saved, tenants } = self.read_head(name)?;
        let parts = self.parts().read(tenants).map_err(|problem| problem.to_string())?;
        saved.router.put_tenants(parts);
        Ok(Stored { epoch: name.epoch.clone(), number: name.number, position: Position(file, byte), saved })
    }

    /// The newest order, ready to be added to. The caller holds the lock.
    fn open_newest(&self) -> io::Result<(u64, File)> {
        let newest = self.orders()?.last().copied().unwrap_or(1);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(self.order_path(newest))?;
        drop_torn_end(&mut file)?;
        Ok((newest, file))
    }

    fn append_now(&mut self, records: &[Sent]) -> io::Result<()> {
        let _lock = self.lock()?;
        let (number, mut order) = self.open_newest()?;
        let folder = self.records_folder(number);
        std::fs::create_dir_all(&folder)?;
        // File -> its end, and what is added to it.
        let mut files: BTreeMap<String, (u64, String)> = BTreeMap::new();
        let mut lines = String::new();
        for Sent { tenant, json } in records {
            let file = file_name(tenant);
            if !files.contains_key(&file) {
                // Half a record of a killed writer may be the last there; the order does not know of it.
                let end = std::fs::metadata(folder.join(format!("{file}.jsonl"))).map_or(0, |about| about.len());
                files.insert(file.clone(), (end, String::new()));
            }
            let (end, added) = files.entry(file.clone()).or_default();
            let line = record(json);
            lines += &Place { file, offset: *end + added.len() as u64, length: line.len() as u64 }.line();
            *added += &line;
        }
        let mut written = vec![self.folder.clone(), folder.clone(), self.order_path(number)];
        for (file, (_, added)) in files {
            let path = folder.join(format!("{file}.jsonl"));
            OpenOptions::new().create(true).append(true).open(&path)?.write_all(added.as_bytes())?;
            written.push(path);
        }
        order.write_all(lines.as_bytes())?;
        let flusher = match &self.flusher {
            Some(flusher) => flusher,
            None => self.flusher.insert(Flusher::start()?),
        };
        written.iter().for_each(|path| flusher.wrote(path));
        Ok(())
    }

    /// Whole records behind a place in one order.
    fn records(&self, after: Position) -> io::Result<Vec<(Position, String)>> {
        let mut order = match File::open(self.order_path(after.0)) {
            Ok(file) => file,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(problem) => return Err(problem),
        };
        order.seek(SeekFrom::Start(after.1))?;
        let mut bytes = Vec::new();
        order.take(READ_BYTES).read_to_end(&mut bytes)?;
        let mut reader = Records { folder: self.records_folder(after.0), open: None };
        let mut end = after.1;
        let mut records = Vec::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            end += line.len() as u64;
            let place = std::str::from_utf8(&line[..line.len() - 1]).ok().and_then(Place::parse);
            // A damaged record keeps its place, so that readers get past it.
            records.push((Position(after.0, end), place.and_then(|place| reader.read(&place)).unwrap_or_default()));
        }
        Ok(records)
    }

    /// The records behind `after`, in the next order too, once this one has ended.
    fn records_anywhere(&self, after: Position) -> io::Result<Vec<(Position, String)>> {
        let ended = self.order_path(after.0 + 1).exists();
        // Looked at after that: nobody adds to an order once the next one is there.
        let records = self.records(after)?;
        if records.is_empty() && ended { self.records(Position(after.0 + 1, 0)) } else { Ok(records) }
    }

    fn stand(&self) -> io::Result<Batch> {
        let orders = self.orders()?;
        let newest = self.snapshots()?.pop();
        let (oldest, last) = (orders.first().copied().unwrap_or(0), orders.last().copied().unwrap_or(0));
        let bytes = std::fs::metadata(self.order_path(last)).map_or(0, |about| about.len());
        Ok(Batch {
            number: newest.as_ref().map_or(0, |name| name.number),
            epoch: newest.map(|name| name.epoch),
            kept_from: Position(oldest, 0),
            last: Position(last, bytes),
            records: Vec::new(),
        })
    }

    /// Lets go of what neither the newest snapshot needs nor the one before it, which stays in case the newest is
    /// damaged. The caller holds the lock.
    fn clean(&self) -> io::Result<()> {
        let mut snapshots = self.snapshots()?;
        let newest = snapshots.pop().map(|name| self.read_head(&name));
        let Some(before) = snapshots.pop() else { return Ok(()) };
        snapshots.iter().try_for_each(|name| std::fs::remove_file(self.snapshot_path(name)))?;
        let (Some(Ok(newest)), Ok(before)) = (newest, self.read_head(&before)) else { return Ok(()) };
        for file in self.orders()?.into_iter().filter(|&file| file < before.file) {
            std::fs::remove_file(self.order_path(file))?;
            match std::fs::remove_dir_all(self.records_folder(file)) {
                Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
                _ => {}
            }
        }
        self.parts().keep(newest.tenants.values().chain(before.tenants.values()))
    }
}

/// Records of one order, read one after the other; the file of the last one is open.
struct Records {
    folder: PathBuf,
    open: Option<(String, File)>,
}

impl Records {
    /// `None` for one that is not there whole.
    fn read(&mut self, place: &Place) -> Option<String> {
        // The name is a file's in this folder, whatever the order says.
        if place.length > MAX_RECORD_BYTES || !parts::is_file_name(&place.file) {
            return None;
        }
        if self.open.as_ref().is_none_or(|(name, _)| *name != place.file) {
            let file = File::open(self.folder.join(format!("{}.jsonl", place.file))).ok()?;
            self.open = Some((place.file.clone(), file));
        }
        let (_, file) = self.open.as_mut()?;
        file.seek(SeekFrom::Start(place.offset)).ok()?;
        let mut bytes = Vec::new();
        file.take(place.length).read_to_end(&mut bytes).ok()?;
        let line = std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?;
        checked(line).map(str::to_owned)
    }
}

/// A writer that was killed leaves half a line, which never counted.
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
        self.refuse_old_form()?;
        let snapshots = self.snapshots().map_err(&failed)?;
        let newest = snapshots.last().map(|name| name.number);
        for name in snapshots.into_iter().rev() {
            match self.read_snapshot(&name) {
                // There is a newer one: parts of this one may have been cleaned away while they were read.
                Ok(_) if self.snapshots().map_err(&failed)?.last().map(|name| name.number) != newest => {
                    return self.load();
                }
                Ok(stored) => return Ok(Some(stored)),
                Err(problem) => set_aside(&self.snapshot_path(&name), &problem).map_err(&failed)?,
            }
        }
        Ok(None)
    }

    fn found(&mut self, instead_of: Option<&str>, saved: Saved) -> Result<(), LogError> {
        let found = || {
            let _lock = self.lock()?;
            let newest = self.snapshots()?.pop();
            if newest.as_ref().map(|name| name.epoch.as_str()) != instead_of {
                return Ok(());
            }
            let orders = self.orders()?;
            if orders.is_empty() {
                File::create(self.order_path(1))?;
            }
            let name = Name { number: newest.map_or(0, |name| name.number + 1), epoch: unique_name() };
            let head = self.head(Position(orders.first().copied().unwrap_or(1), 0), saved)?;
            self.write_snapshot(&name, &head)
        };
        found().map_err(self.failed())
    }

    fn append(&mut self, records: &[Sent]) -> Result<(), LogError> {
        let failed = self.failed();
        self.append_now(records).map_err(failed)
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

    fn replace(&mut self, epoch: &str, number: u64, at: Position, saved: Saved) -> Result<(), LogError> {
        let replace = || {
            // Without the lock, because it takes long. Should another gateway replace the log meanwhile and clean these
            // parts away, its number is the newer one, and this snapshot is not written.
            let head = self.head(at, saved)?;
            let _lock = self.lock()?;
            let Some(newest) = self.snapshots()?.pop() else { return Ok(()) };
            if newest.epoch != epoch || newest.number != number {
                return Ok(());
            }
            self.write_snapshot(&Name { number: number + 1, epoch: epoch.to_owned() }, &head)?;
            // What is written from now on goes to a new order, so that the old one can leave whole.
            let (last, _) = self.open_newest()?;
            File::create(self.order_path(last + 1))?;
            self.clean()
        };
        replace().map_err(self.failed())
    }
}

#[cfg(test)]
mod tests;
