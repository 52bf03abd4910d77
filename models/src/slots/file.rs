//! One sequence as a file. Little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `tetherKV` |
//! | 4 | version |
//! | 20 | shape of the cache: layers, key-value heads, head width, tokens and bytes of a page |
//! | 32 | the model's fingerprint |
//! | 4 | bytes of the session's name |
//! | 4 | tokens |
//! | | the name |
//! | 4 each | the tokens |
//! | | each layer's pages, each its keys, then its values |
//! | 4 | CRC-32 of everything before |
//!
//! The sum comes last, so that a file that was cut anywhere is refused; it guards against faults, not against people,
//! who could write any file that they may write at all.

use crate::cache::Cache;
use crate::sequence::Sequence;
use crc32fast::Hasher;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

const MAGIC: &[u8; 8] = b"tetherKV";
/// Goes up when the layout changes, and when the arithmetic does: values of another arithmetic would be wrong in their
/// last bits.
const VERSION: u32 = 1;
const HEAD_BYTES: u64 = 8 + 4 + 20 + 32 + 4 + 4;
const SUM_BYTES: u64 = 4;
/// Longer names are not the daemon's.
const MAX_SESSION_BYTES: u32 = 4_096;

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a kept sequence of this version")]
    Foreign,
    #[error("it was kept of another model, or as another kind of numbers")]
    OtherModel,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Bytes of the file that [`write`] writes.
pub(super) fn bytes(session: &str, sequence: &Sequence) -> u64 {
    let tokens = sequence.tokens().len();
    HEAD_BYTES + session.len() as u64 + 4 * tokens as u64 + sequence.cache().file_bytes(tokens) + SUM_BYTES
}

pub(super) fn write(to: File, model: &[u8; 32], session: &str, sequence: &Sequence) -> io::Result<()> {
    let mut to = Summed { inner: BufWriter::with_capacity(1 << 16, to), sum: Hasher::new() };
    to.write_all(MAGIC)?;
    to.number(VERSION)?;
    sequence.cache().shape().into_iter().try_for_each(|number| to.number(number))?;
    to.write_all(model)?;
    to.number(session.len() as u32)?;
    to.number(sequence.tokens().len() as u32)?;
    to.write_all(session.as_bytes())?;
    sequence.tokens().iter().try_for_each(|&token| to.number(token))?;
    sequence.cache().write(&mut to)?;
    let Summed { mut inner, sum } = to;
    inner.write_all(&sum.finalize().to_le_bytes())?;
    inner.flush()
}

/// Reads a file into `cache`, an empty one of the model that runs. Nothing is allocated before the file's length was
/// found to be what its head says.
pub(super) fn read(file: File, model: &[u8; 32], session: &str, mut cache: Cache) -> Result<Sequence, FileError> {
    let length = file.metadata()?.len();
    let mut from = Summed { inner: BufReader::with_capacity(1 << 16, file), sum: Hasher::new() };
    let (mut magic, mut fingerprint) = ([0; 8], [0; 32]);
    from.read_exact(&mut magic)?;
    if &magic != MAGIC || from.number_read()? != VERSION {
        return Err(FileError::Foreign);
    }
    let mut shape = [0; 5];
    for number in &mut shape {
        *number = from.number_read()?;
    }
    from.read_exact(&mut fingerprint)?;
    if &fingerprint != model || shape != cache.shape() {
        return Err(FileError::OtherModel);
    }
    let (session_bytes, tokens) = (from.number_read()?, from.number_read()?);
    let wanted = HEAD_BYTES + u64::from(session_bytes) + 4 * u64::from(tokens) + SUM_BYTES;
    if session_bytes > MAX_SESSION_BYTES || length != wanted + cache.file_bytes(tokens as usize) {
        return Err(FileError::Damaged("its length is not what its head says"));
    }
    let mut name = vec![0; session_bytes as usize];
    from.read_exact(&mut name)?;
    if name != session.as_bytes() {
        return Err(FileError::Damaged("it is another session's"));
    }
    let tokens = (0..tokens).map(|_| from.number_read()).collect::<io::Result<Vec<u32>>>()?;
    cache.read(tokens.len(), &mut from)?;
    let Summed { mut inner, sum } = from;
    let mut written = [0; SUM_BYTES as usize];
    inner.read_exact(&mut written)?;
    if sum.finalize() != u32::from_le_bytes(written) {
        return Err(FileError::Damaged("its checksum is another"));
    }
    Ok(Sequence::of(cache, tokens))
}

/// Sums what goes through it.
struct Summed<T> {
    inner: T,
    sum: Hasher,
}

impl<T: Write> Summed<T> {
    fn number(&mut self, number: u32) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }
}

impl<T: Read> Summed<T> {
    fn number_read(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}
