//! The lease: a small file, synced to the disk, that says at least as much spent as can have been spent before the next
//! sync. The database is exact, but a power cut may take its last second; then the lease counts instead. While the
//! database cannot be written (a lock, a full disk) the lease also says exactly what is spent, and after any stop that
//! counts.
//!
//! Form: two slots of 8 KiB, each `tether-lease 1 CRC32\n` and JSON, the checksum (eight hexadecimal digits) over the
//! JSON, spaces up to the slot's end. They are overwritten in turns and in place: a disk that is full has room for that,
//! and a write that is torn leaves the other slot. The slot with the greater number counts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tether_policies::budget::{BudgetName, Spending};

const HEAD: &str = "tether-lease 1 ";
/// Twelve budgets, told twice, with the largest numbers: five kilobytes.
const SLOT_BYTES: usize = 8 * 1024;
const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// Greater than the one of the lease before.
    #[serde(default)]
    pub number: u64,
    /// The kernel's name of this boot: after another one, what was not synced may be gone.
    pub boot_id: String,
    /// The daemon stopped in order, and the database has everything.
    pub clean: bool,
    /// By the budgets' names; `spent` is the lease.
    pub budgets: BTreeMap<String, Spending>,
    /// How much the database lacks: turns, and windows that began. Unless it is nothing, the database is not believed.
    #[serde(default)]
    pub unwritten: u64,
    /// While it lacks something: what is spent and reserved, to the last count.
    #[serde(default)]
    pub held: BTreeMap<String, Spending>,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the lease {path}: {problem}")]
    Io { path: PathBuf, problem: io::Error },
    #[error("the lease {path} is damaged: {problem}")]
    Damaged { path: PathBuf, problem: String },
}

impl Lease {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or neither slot's checksum is right.
    pub fn read(path: &Path) -> Result<Option<Self>, LeaseError> {
        let bytes = match File::open(path).and_then(|file| read(&file)) {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(problem) => return Err(LeaseError::Io { path: path.to_owned(), problem }),
            Ok(bytes) => bytes,
        };
        let damaged = |problem: &str| LeaseError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
        newest(&bytes).map(|(_, lease)| Some(lease)).map_err(damaged)
    }

    /// Writes the file so that it survives a power cut, over the older slot. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// It cannot be written; the newer slot is still there.
    pub fn write(self, path: &Path) -> Result<(), LeaseError> {
        self.try_write(path).map_err(|problem| LeaseError::Io { path: path.to_owned(), problem })
    }

    fn try_write(mut self, path: &Path) -> io::Result<()> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        let (file, bytes) = match file {
            Ok(file) => {
                let bytes = read(&file)?;
                (Some(file), bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Vec::new()),
            Err(error) => return Err(error),
        };
        let found = newest(&bytes).ok();
        self.number = found.as_ref().map_or(0, |(_, lease)| lease.number) + 1;
        let slot = self.slot()?;
        match file.filter(|_| bytes.len() == FILE_BYTES) {
            Some(file) => {
                let other = found.map_or(0, |(at, _)| 1 - at);
                file.write_all_at(&slot, (other * SLOT_BYTES) as u64)?;
                file.sync_data()
            }
            // None yet, or not of this form: a whole one takes its place, and its room on the disk.
            None => replace(path, &[slot, vec![b' '; SLOT_BYTES]].concat()),
        }
    }

    fn slot(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_string(self)?;
        let mut slot = format!("{HEAD}{:08x}\n{json}", crc32fast::hash(json.as_bytes())).into_bytes();
        if slot.len() > SLOT_BYTES {
            return Err(io::Error::other("it does not fit its slot"));
        }
        slot.resize(SLOT_BYTES, b' ');
        Ok(slot)
    }

    /// What is to be taken as spent: the database's word where nothing can be missing, else the greater one. Returns
    /// what differs from the database, by name.
    pub fn settle(&self, boot_id: &str, saved: &BTreeMap<BudgetName, Spending>) -> BTreeMap<BudgetName, Spending> {
        let survived = self.clean || self.boot_id == boot_id;
        let behind = self.unwritten > 0;
        let said = if survived && behind { &self.held } else { &self.budgets };
        let named = said.iter().filter_map(|(name, lease)| Some((name.parse::<BudgetName>().ok()?, *lease)));
        let lost = |(name, lease): (BudgetName, Spending)| {
            let raised = match saved.get(&name) {
                Some(_) if survived && !behind => return None,
                Some(saved) if saved.generation > lease.generation => return None,
                Some(saved) if saved.generation == lease.generation => {
                    let more = lease.spent.checked_sub(saved.spent).filter(|more| *more > 0)?;
                    let unknown = if survived { lease.unknown.max(saved.unknown) } else { saved.unknown + more };
                    Spending { spent: lease.spent, unknown, turns: lease.turns.max(saved.turns), ..*saved }
                }
                _ if survived && behind => lease,
                // The database has lost the window, or was lost itself.
                _ => Spending { unknown: lease.spent, turns: lease.turns.max(1), ..lease },
            };
            Some((name, raised))
        };
        named.filter_map(lost).collect()
    }
}

/// No more than a lease has.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The slot that counts, and what it says.
fn newest(bytes: &[u8]) -> Result<(usize, Lease), &'static str> {
    if bytes.len() > FILE_BYTES {
        return Err("it is too large");
    }
    let (first, second) = bytes.split_at(bytes.len().min(SLOT_BYTES));
    match (parse(first), parse(second)) {
        (Ok(first), Ok(second)) if second.number > first.number => Ok((1, second)),
        (Ok(first), _) => Ok((0, first)),
        (Err(_), Ok(second)) => Ok((1, second)),
        (Err(problem), Err(_)) => Err(problem),
    }
}

fn parse(slot: &[u8]) -> Result<Lease, &'static str> {
    let text = std::str::from_utf8(slot).map_err(|_| "it is not text")?.trim_end_matches(' ');
    let (head, json) = text.split_once('\n').ok_or("it has no first line")?;
    let sum = head.strip_prefix(HEAD).ok_or("it does not begin as a lease")?;
    if sum != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
        return Err("its checksum is wrong");
    }
    serde_json::from_str(json).map_err(|_| "it is not a lease of this version")
}

/// Written under another name, synced, and renamed, so that a whole file is there at every moment.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The new name, too.
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// The kernel's name of this boot; where it has none, a name that no other boot has.
pub fn boot_id() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(|_| uuid::Uuid::now_v7().to_string(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spending(generation: u64, spent: u64) -> Spending {
        Spending { generation, start_ms: 0, spent, unknown: 0, turns: 3 }
    }

    fn lease(clean: bool, generation: u64, spent: u64) -> Lease {
        let budgets = BTreeMap::from([("usd_per_day".to_owned(), spending(generation, spent))]);
        Lease { boot_id: "one".into(), clean, budgets, ..Lease::default() }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        assert_eq!(Lease::read(&path).unwrap(), None);
        lease(false, 4, 100).write(&path).unwrap();
        assert_eq!(Lease::read(&path).unwrap(), Some(Lease { number: 1, ..lease(false, 4, 100) }));
        let text = fs::read_to_string(&path).unwrap();
        let cut = text.trim_end();
        for bad in [text.replace("100", "900"), cut[..cut.len() - 1].to_owned(), "tether".into(), String::new()] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Lease::read(&path), Err(LeaseError::Damaged { .. })));
        }
        // As earlier versions wrote it: read, and replaced by one that has its room.
        let json = r#"{"boot_id":"one","clean":true,"budgets":{}}"#;
        fs::write(&path, format!("{HEAD}{:08x}\n{json}", crc32fast::hash(json.as_bytes()))).unwrap();
        assert!(Lease::read(&path).unwrap().unwrap().clean);
        lease(false, 4, 100).write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), FILE_BYTES as u64);
    }

    #[test]
    fn a_lease_is_overwritten_in_place_and_a_torn_write_leaves_the_one_before() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        lease(false, 4, 1).write(&path).unwrap();
        let room = |path: &Path| fs::metadata(path).map(|file| (file.ino(), file.len(), file.blocks())).unwrap();
        let before = room(&path);
        for spent in 2..=9 {
            lease(false, 4, spent).write(&path).unwrap();
            let whole = fs::read(&path).unwrap();
            // Torn anywhere in the slot that was just written.
            let (at, newer) = newest(&whole).unwrap();
            assert_eq!(newer.budgets["usd_per_day"].spent, spent);
            for kept in [0, 10, 40, 200] {
                let mut torn = whole.clone();
                torn[at * SLOT_BYTES + kept..][..8].fill(0);
                fs::write(folder.path().join("torn"), torn).unwrap();
                let read = Lease::read(&folder.path().join("torn")).unwrap().unwrap();
                assert_eq!(read.budgets["usd_per_day"].spent, spent - 1, "{kept}");
            }
        }
        assert_eq!(room(&path), before, "it needs no more room than it has");
    }

    #[test]
    fn the_largest_lease_fits_its_slot() {
        let most =
            Spending { generation: u64::MAX, start_ms: i64::MIN, spent: u64::MAX, unknown: u64::MAX, turns: u64::MAX };
        let all: BTreeMap<String, Spending> = BudgetName::all().map(|name| (name.to_string(), most)).collect();
        let boot_id = boot_id();
        let lease =
            Lease { number: u64::MAX, boot_id, clean: false, budgets: all.clone(), unwritten: u64::MAX, held: all };
        assert!(lease.slot().is_ok());
    }

    #[test]
    fn the_lease_counts_after_any_stop_while_the_database_lacks_something() {
        let name: BudgetName = "usd_per_day".parse().unwrap();
        let saved = |generation, spent| BTreeMap::from([(name, spending(generation, spent))]);
        let held = BTreeMap::from([("usd_per_day".to_owned(), Spending { unknown: 5, ..spending(4, 90) })]);
        let behind = Lease { unwritten: 2, held, ..lease(false, 4, 100) };
        // The same boot: to the last count. What the database has since is more, or it is not.
        assert_eq!(behind.settle("one", &saved(4, 60))[&name], Spending { unknown: 5, ..spending(4, 90) });
        assert_eq!(behind.settle("one", &saved(3, 999))[&name].spent, 90, "the window's begin could not be written");
        assert!(behind.settle("one", &saved(4, 95)).is_empty());
        assert!(behind.settle("one", &saved(5, 1)).is_empty());
        // And a power cut on top.
        assert_eq!(behind.settle("two", &saved(4, 60))[&name].spent, 100);
    }

    #[test]
    fn the_database_is_believed_unless_it_may_have_lost_something() {
        let name: BudgetName = "usd_per_day".parse().unwrap();
        let saved = |generation, spent| BTreeMap::from([(name, spending(generation, spent))]);
        // The same boot, or an orderly stop: nothing that was written is missing.
        assert!(lease(false, 4, 100).settle("one", &saved(4, 60)).is_empty());
        assert!(lease(true, 4, 100).settle("two", &saved(4, 60)).is_empty());
        // A power cut: up to the lease may have been spent.
        let raised = lease(false, 4, 100).settle("two", &saved(4, 60));
        assert_eq!(raised[&name], Spending { spent: 100, unknown: 40, ..spending(4, 0) });
        assert!(lease(false, 4, 100).settle("two", &saved(4, 100)).is_empty());
        // The window began after the lease: its spending waited for a lease, so there is none.
        assert!(lease(false, 4, 100).settle("two", &saved(5, 0)).is_empty());
        // The database was lost, even in an orderly way.
        for lost in [lease(true, 4, 100), lease(false, 4, 100)] {
            assert_eq!(lost.settle("one", &BTreeMap::new())[&name].spent, 100);
        }
    }
}
