//! The lease: a small file, synced to the disk, that says at least as much spent as can have been spent before the next
//! sync. The database is exact, but a power cut may take its last second; then the lease counts instead.
//!
//! Form: `tether-lease 1 CRC32\n` and JSON, the checksum (eight hexadecimal digits) over the JSON. Written anew under
//! another name, synced, and renamed, so that a whole file is there at every moment.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tether_policies::budget::{BudgetName, Spending};

const HEAD: &str = "tether-lease 1 ";
/// Twelve budgets are two kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// The kernel's name of this boot: after another one, what was not synced may be gone.
    pub boot_id: String,
    /// The daemon stopped in order, and the database has everything.
    pub clean: bool,
    /// By the budgets' names; `spent` is the lease.
    pub budgets: BTreeMap<String, Spending>,
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
    /// It cannot be read, or its checksum is wrong.
    pub fn read(path: &Path) -> Result<Option<Self>, LeaseError> {
        let io = |problem| LeaseError::Io { path: path.to_owned(), problem };
        let damaged = |problem: &str| LeaseError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
            Ok(metadata) if metadata.len() > MAX_BYTES => return Err(damaged("it is too large")),
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(io)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
        let (head, json) = text.split_once('\n').ok_or_else(|| damaged("it has no first line"))?;
        let sum = head.strip_prefix(HEAD).ok_or_else(|| damaged("it does not begin as a lease"))?;
        if sum != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
            return Err(damaged("its checksum is wrong"));
        }
        serde_json::from_str(json).map(Some).map_err(|error| damaged(&error.to_string()))
    }

    /// Writes the file so that it survives a power cut. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub fn write(&self, path: &Path) -> Result<(), LeaseError> {
        self.try_write(path).map_err(|problem| LeaseError::Io { path: path.to_owned(), problem })
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        write!(file, "{HEAD}{:08x}\n{json}", crc32fast::hash(json.as_bytes()))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The new name, too.
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }

    /// What is to be taken as spent: the database's word where nothing can be missing, else the greater one. Returns
    /// what differs from the database, by name.
    pub fn settle(&self, boot_id: &str, saved: &BTreeMap<BudgetName, Spending>) -> BTreeMap<BudgetName, Spending> {
        let whole = self.clean || self.boot_id == boot_id;
        let named = self.budgets.iter().filter_map(|(name, lease)| Some((name.parse::<BudgetName>().ok()?, *lease)));
        let lost = |(name, lease): (BudgetName, Spending)| {
            let raised = match saved.get(&name) {
                Some(_) if whole => return None,
                Some(saved) if saved.generation > lease.generation => return None,
                Some(saved) if saved.generation == lease.generation => {
                    let more = lease.spent.checked_sub(saved.spent).filter(|more| *more > 0)?;
                    Spending { spent: lease.spent, unknown: saved.unknown + more, ..*saved }
                }
                // The database has lost the window, or was lost itself.
                _ => Spending { unknown: lease.spent, turns: lease.turns.max(1), ..lease },
            };
            Some((name, raised))
        };
        named.filter_map(lost).collect()
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
        Lease { boot_id: "one".into(), clean, budgets }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        assert_eq!(Lease::read(&path).unwrap(), None);
        let lease = lease(false, 4, 100);
        lease.write(&path).unwrap();
        assert_eq!(Lease::read(&path).unwrap(), Some(lease));
        let text = fs::read_to_string(&path).unwrap();
        for bad in [text.replace("100", "900"), text[..text.len() - 1].to_owned(), "tether".into(), String::new()] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Lease::read(&path), Err(LeaseError::Damaged { .. })));
        }
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
