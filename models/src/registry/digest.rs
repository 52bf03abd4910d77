//! Files checked by their size and sha256.

use super::{Model, OnProgress, Progress, RegistryError, tell};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::Path;

/// Bytes between two reports of progress.
const STEP_BYTES: usize = 1 << 20;

/// Reads `from` to its end, at most `total_bytes` and one more, writes it to `to`, and returns its sha256.
pub(super) fn copy(
    mut from: impl Read,
    mut to: impl Write,
    total_bytes: u64,
    mut report: impl FnMut(u64) -> Result<(), RegistryError>,
    io: impl Fn(std::io::Error) -> RegistryError,
) -> Result<String, RegistryError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; STEP_BYTES];
    let mut bytes = 0;
    loop {
        report(bytes)?;
        let read = from.read(&mut buffer).map_err(&io)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(&io)?;
        bytes += read as u64;
        if bytes > total_bytes {
            // Longer than it should be, so the hash is wrong already; an endless source must not fill the disk.
            break;
        }
    }
    to.flush().map_err(&io)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Checks that the file at `path` is the one that the registry means.
pub(super) fn check(model: &Model, path: &Path, on_progress: OnProgress<'_>) -> Result<(), RegistryError> {
    let file = std::fs::File::open(path).map_err(RegistryError::io(path))?;
    let total_bytes = model.size_bytes;
    let report = |bytes| tell(&mut *on_progress, Progress::Verifying { bytes, total_bytes });
    let io = |source| RegistryError::Io { path: path.to_owned(), source };
    let found = copy(file, std::io::sink(), total_bytes, report, io)?;
    compare(model, path, found)
}

pub(super) fn compare(model: &Model, path: &Path, found: String) -> Result<(), RegistryError> {
    if found == model.sha256 {
        return Ok(());
    }
    let (name, expected) = (model.name.clone(), model.sha256.clone());
    Err(RegistryError::Hash { name, file: path.to_owned(), expected, found })
}
