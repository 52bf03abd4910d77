//! One anonymous mapping for all weights, in huge pages where the system gives them: fewer page faults while loading and
//! fewer misses of the address cache in every pass.
#![expect(unsafe_code, reason = "pieces of one mapping are handed out to be filled from several threads")]

use memmap2::{Advice, MmapMut};
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every piece begins at a multiple of this.
const ALIGNMENT_BYTES: usize = 64;

/// Hands out pieces of one mapping. What is not handed out is never touched, so it takes no memory.
pub(crate) struct Arena {
    mapping: Arc<Mapping>,
    used: AtomicUsize,
}

struct Mapping {
    /// Kept so that the memory stays; `start` points into it.
    _owner: MmapMut,
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping is plain memory. Bytes are written only through the one `PieceMut` that owns them, and are shared
// only after that has become a `Piece`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A piece to be filled, all zeros at first.
pub(crate) struct PieceMut(Piece);

/// A piece that no longer changes.
pub(crate) struct Piece {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
}

impl Arena {
    /// # Errors
    /// If the system refuses so much address space.
    pub(crate) fn new(bytes: usize) -> io::Result<Arena> {
        let mut owner = MmapMut::map_anon(bytes.max(ALIGNMENT_BYTES))?;
        #[cfg(target_os = "linux")]
        {
            // Only advice: without huge pages everything works, a little slower.
            let _ = owner.advise(Advice::HugePage);
        }
        let (start, len) = (owner.as_mut_ptr(), owner.len());
        Ok(Arena { mapping: Arc::new(Mapping { _owner: owner, start, len }), used: AtomicUsize::new(0) })
    }

    /// `None` if the arena is full.
    pub(crate) fn piece(&self, len: usize) -> Option<PieceMut> {
        let size = len.checked_next_multiple_of(ALIGNMENT_BYTES)?;
        let take = |used: usize| used.checked_add(size).filter(|&end| end <= self.mapping.len);
        let offset = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(PieceMut(Piece { mapping: self.mapping.clone(), offset, len }))
    }
}

impl PieceMut {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in the mapping, which lives as long as `self`, and was handed out only once.
        unsafe { std::slice::from_raw_parts_mut(self.0.mapping.start.add(self.0.offset), self.0.len) }
    }

    pub(crate) fn freeze(self) -> Piece {
        self.0
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping, which lives as long as `self`; nobody writes it any more.
        unsafe { std::slice::from_raw_parts(self.mapping.start.add(self.offset), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_aligned_and_bounded() {
        let arena = Arena::new(4096).unwrap();
        let mut pieces: Vec<_> = (0..4).map(|_| arena.piece(1000).unwrap()).collect();
        for (value, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES));
            piece.bytes().fill(value as u8 + 1);
        }
        assert!(arena.piece(1).is_none(), "4 * 1024 bytes are all there is");
        assert!(arena.piece(usize::MAX).is_none());
        for (value, piece) in pieces.into_iter().map(PieceMut::freeze).enumerate() {
            assert!(piece.len() == 1000 && piece.iter().all(|&byte| byte == value as u8 + 1));
        }
    }
}
