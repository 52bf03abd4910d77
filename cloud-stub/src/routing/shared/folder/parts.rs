//! Each tenant's part of a snapshot in a file of its own, named by what it holds: one that has not changed since the
//! snapshot before is not written again.

use super::super::super::journal::{checked, record, set_aside};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tether_policies::mess::TenantPart;

pub(super) struct Parts {
    folder: PathBuf,
}

/// A tenant's name as a file's, which is at most 192 bytes long: other characters than these mean something to some file
/// system. What is everybody's has a name that no tenant's can be.
pub(super) fn file_name(tenant: &str) -> String {
    if tenant.is_empty() {
        return "+".to_owned();
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let escaped = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    tenant.bytes().map(escaped).collect()
}

pub(super) fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_%+".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

impl Parts {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.join("tenants") }
    }

    /// Writes the parts that are not there yet; tenant -> file.
    pub(super) fn write(&self, parts: BTreeMap<String, TenantPart>) -> io::Result<BTreeMap<String, String>> {
        std::fs::create_dir_all(&self.folder)?;
        let mut files = BTreeMap::new();
        for (tenant, part) in parts {
            let json = serde_json::to_string(&part).map_err(io::Error::other)?;
            let hash: String = Sha256::digest(json.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            let name = format!("{}-{hash}.json", file_name(&tenant));
            let path = self.folder.join(&name);
            if !path.exists() {
                self.write_part(&path, &json)?;
            }
            files.insert(tenant, name);
        }
        File::open(&self.folder)?.sync_all()?;
        Ok(files)
    }

    /// Whole or not at all; two gateways that write the same part do no harm to each other.
    fn write_part(&self, path: &Path, json: &str) -> io::Result<()> {
        let part = path.with_extension(format!("{:016x}.part", rand::random::<u64>()));
        let mut file = File::create(&part)?;
        file.write_all(record(json).as_bytes())?;
        file.sync_data()?;
        std::fs::rename(part, path)
    }

    /// The parts that can be read; one that is damaged is set aside with a message.
    pub(super) fn read(&self, files: BTreeMap<String, String>) -> io::Result<Vec<(String, TenantPart)>> {
        let mut parts = Vec::with_capacity(files.len());
        for (tenant, name) in files {
            let path = self.folder.join(&name);
            match read(&path) {
                Ok(part) => parts.push((tenant, part)),
                Err(problem) if path.exists() => set_aside(&path, &problem)?,
                Err(problem) => tracing::error!(tenant, problem, "a tenant's part of the state is missing"),
            }
        }
        Ok(parts)
    }

    /// Removes all others.
    pub(super) fn keep<'a>(&self, wanted: impl Iterator<Item = &'a String>) -> io::Result<()> {
        let wanted: HashSet<&str> = wanted.map(String::as_str).collect();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(".json") && !wanted.contains(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<TenantPart, String> {
    let text = std::fs::read_to_string(path).map_err(|problem| problem.to_string())?;
    let json = text.strip_suffix('\n').and_then(checked).ok_or("its checksum does not fit")?;
    serde_json::from_str(json).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_where_tenants_do_and_are_files_of_one_folder() {
        let names = ["robot", "Robot", "ro/bot", "..", "+", "", "%2f", "/"].map(file_name);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| is_file_name(name)), "{names:?}");
        assert!(!is_file_name("../x") && !is_file_name(""));
        assert_eq!(file_name(&"Ä".repeat(32)).len(), 192);
    }
}
