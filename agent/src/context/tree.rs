//! Files of `/sys` and `/proc`: small, and now and then missing, full of garbage, or stuck.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest of them, `/proc/stat` of a machine with hundreds of processors.
const MAX_BYTES: u64 = 64 * 1024;
/// A folder of the largest machines has some hundreds of entries: `thermal`, a cooling device for each processor.
const MAX_ENTRIES: usize = 4_096;

/// # Errors
/// The file cannot be read now. A pipe or a device that would block is an error, not a wait.
pub fn text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))?;
    Ok(text.trim().to_owned())
}

/// A finite number; `None`: no file, or no number in it.
pub fn number(path: &Path) -> Option<f64> {
    text(path).ok()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// The entries of a folder in the order of their names, `MAX_ENTRIES` at most; none if it is not there.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    let mut found: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

/// A file's or folder's last name.
pub fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
