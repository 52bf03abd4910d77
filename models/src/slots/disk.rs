//! Sessions' sequences in a folder: written when they have to leave memory, read when the session goes on. A file
//! that cannot be used is removed, with a message; the prompt is then computed again, so nothing here can fail an answer.

use super::file;
use crate::engine::Engine;
use crate::sequence::Sequence;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A shorter sequence is computed again about as fast as it is found on a disk.
const MIN_TOKENS: usize = 64;
const SUFFIX: &str = "kv";
const PART_SUFFIX: &str = "part";
/// Read whole for the fingerprint: the metadata, the tensors' names and the tokens of most files.
const FINGERPRINT_HEAD_BYTES: u64 = 8 << 20;
/// Places that the fingerprint reads after that, and the bytes of each.
const FINGERPRINT_SAMPLES: u64 = 256;
const FINGERPRINT_SAMPLE_BYTES: u64 = 4_096;

/// Where sequences go that have to leave memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Made if it is missing, for its owner only.
    pub folder: PathBuf,
    /// Bytes of all files; the one written longest ago goes first.
    pub max_bytes: u64,
    /// Of the model that runs: what another one computed is refused.
    pub fingerprint: [u8; 32],
}

/// What lies in the folder now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    pub count: usize,
    pub bytes: u64,
    /// Sequences read back so far.
    pub restored: u64,
}

pub(crate) struct Disk {
    options: DiskOptions,
    files: HashMap<PathBuf, Entry>,
    restored: u64,
}

struct Entry {
    bytes: u64,
    written: SystemTime,
    /// Of the tokens, where this process wrote or read them: the same ones need not be written again.
    tokens_sum: Option<u32>,
}

impl Disk {
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(options: DiskOptions) -> io::Result<Disk> {
        DirBuilder::new().recursive(true).mode(0o700).create(&options.folder)?;
        let mut disk = Disk { options, files: HashMap::new(), restored: 0 };
        for entry in fs::read_dir(&disk.options.folder)? {
            let entry = entry?;
            let (path, about) = (entry.path(), entry.metadata()?);
            match path.extension().and_then(|suffix| suffix.to_str()) {
                Some(SUFFIX) if about.is_file() => {
                    let entry = Entry { bytes: about.len(), written: about.modified()?, tokens_sum: None };
                    disk.files.insert(path, entry);
                }
                // A write that the process did not live to end.
                Some(PART_SUFFIX) => remove_file(&path),
                _ => {}
            }
        }
        disk.make_room(0);
        Ok(disk)
    }

    pub(crate) fn stats(&self) -> DiskStats {
        DiskStats { count: self.files.len(), bytes: self.bytes(), restored: self.restored }
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }

    /// Writes a session's sequence, over an older one. It appears under its name only whole.
    pub(crate) fn save(&mut self, session: &str, sequence: &Sequence, now: SystemTime) {
        let (path, bytes, sum) = (self.path(session), file::bytes(session, sequence), tokens_sum(sequence));
        let known = self.files.get(&path).is_some_and(|entry| entry.tokens_sum == Some(sum));
        if known || sequence.tokens().len() < MIN_TOKENS || bytes > self.options.max_bytes {
            return;
        }
        self.discard(&path);
        self.make_room(bytes);
        match write_whole(&path, |file| file::write(file, &self.options.fingerprint, session, sequence)) {
            Ok(()) => {
                self.files.insert(path, Entry { bytes, written: now, tokens_sum: Some(sum) });
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "a dialogue's cache was not kept on disk"),
        }
    }

    /// A session's sequence, if one lies here that fits the model.
    pub(crate) fn load(&mut self, session: &str, engine: &Engine) -> Option<Sequence> {
        let path = self.path(session);
        self.files.get(&path)?;
        let cache = engine.new_cache().ok()?;
        let read = File::open(&path).map_err(file::FileError::Io);
        let read = read.and_then(|opened| file::read(opened, &self.options.fingerprint, session, cache));
        match read {
            Ok(sequence) => {
                let sum = tokens_sum(&sequence);
                self.files.entry(path).and_modify(|entry| entry.tokens_sum = Some(sum));
                self.restored += 1;
                Some(sequence)
            }
            Err(problem) => {
                tracing::warn!(path = %path.display(), %problem, "a dialogue's cache on disk was removed");
                self.discard(&path);
                None
            }
        }
    }

    pub(crate) fn forget(&mut self, session: &str) {
        let path = self.path(session);
        self.discard(&path);
    }

    /// Removes what was written too long ago.
    pub(crate) fn expire(&mut self, now: SystemTime, max_age: Duration) {
        let old = |entry: &Entry| now.duration_since(entry.written).is_ok_and(|age| age >= max_age);
        let old: Vec<PathBuf> = self.files.iter().filter(|(_, e)| old(e)).map(|(path, _)| path.clone()).collect();
        old.iter().for_each(|path| self.discard(path));
    }

    /// How long until [`expire`](Self::expire) has something to do next.
    pub(crate) fn next_expiry(&self, now: SystemTime, max_age: Duration) -> Option<Duration> {
        let oldest = self.files.values().map(|entry| entry.written).min()?;
        Some(max_age.saturating_sub(now.duration_since(oldest).unwrap_or_default()))
    }

    fn path(&self, session: &str) -> PathBuf {
        file_of(&self.options.folder, session)
    }

    fn discard(&mut self, path: &Path) {
        if self.files.remove(path).is_some() {
            remove_file(path);
        }
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes() + bytes > self.options.max_bytes {
            let oldest = self.files.iter().min_by_key(|(_, entry)| entry.written).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { return };
            self.discard(&oldest);
        }
    }
}

/// Removes what lies in `folder` of a session, where no model runs that could.
pub fn forget_on_disk(folder: &Path, session: &str) {
    remove_file(&file_of(folder, session));
}

/// Names are hashed, so that no name can lead out of the folder, and none can be read from it.
fn file_of(folder: &Path, session: &str) -> PathBuf {
    let hash = Sha256::digest(session.as_bytes());
    let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    folder.join(name).with_extension(SUFFIX)
}

fn write_whole(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    let part = path.with_extension(PART_SUFFIX);
    remove_file(&part);
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    // Not synced: what a power cut tears, the checksum refuses.
    let written = created.and_then(write).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        remove_file(&part);
    }
    written
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(path = %path.display(), %error, "a dialogue's cache on disk could not be removed");
        }
        _ => {}
    }
}

fn tokens_sum(sequence: &Sequence) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sequence.tokens().iter().for_each(|token| sum.update(&token.to_le_bytes()));
    sum.finalize()
}

/// Tells a model file from others and from changed ones: SHA-256 over its length, its first 8 MiB, and 256 samples of
/// 4 KiB spread over the rest. A fine-tuned copy differs nearly everywhere, so samples are enough, and a file of
/// gigabytes takes milliseconds instead of seconds at each start.
///
/// # Errors
/// The file cannot be read.
pub fn fingerprint(model: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(model)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut bytes = Vec::new();
    (&mut file).take(FINGERPRINT_HEAD_BYTES).read_to_end(&mut bytes)?;
    hash.update(&bytes);
    let rest = length.saturating_sub(FINGERPRINT_HEAD_BYTES + FINGERPRINT_SAMPLE_BYTES);
    for sample in (0..=FINGERPRINT_SAMPLES).filter(|_| rest > 0) {
        file.seek(SeekFrom::Start(FINGERPRINT_HEAD_BYTES + rest / FINGERPRINT_SAMPLES * sample))?;
        bytes.clear();
        (&mut file).take(FINGERPRINT_SAMPLE_BYTES).read_to_end(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests;
