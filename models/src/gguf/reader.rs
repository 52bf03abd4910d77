//! A buffered reader at its own position of a shared file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Bytes read at a time. A vocabulary is a hundred thousand short strings.
const WINDOW_BYTES: usize = 256 * 1024;

/// Reads `file` without moving its own position, so that several threads can read one open file. Asking for the
/// position is free, which matters because candle's parser does so before every string.
pub(super) struct WindowReader<'a> {
    file: &'a File,
    len: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> WindowReader<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, position: 0, window: Vec::new(), window_start: 0 })
    }

    fn buffered(&self) -> &[u8] {
        let offset = self.position.checked_sub(self.window_start).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.window.get(offset..)).unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        self.window.resize(WINDOW_BYTES, 0);
        let read = self.file.read_at(&mut self.window, self.position)?;
        self.window.truncate(read);
        self.window_start = self.position;
        Ok(())
    }
}

impl Read for WindowReader<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let read = if self.buffered().is_empty() && target.len() >= WINDOW_BYTES {
            self.file.read_at(target, self.position)?
        } else {
            if self.buffered().is_empty() {
                self.fill()?;
            }
            self.buffered().read(target)?
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for WindowReader<'_> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
