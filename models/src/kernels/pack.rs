//! From a GGUF file's blocks to [`Matrix`].
//!
//! The numbers stay as they are. Scales of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are f16 in the file and stay so. Those of the K
//! kinds are products of an f16 and a small integer; they are rounded to f16, after a power of two, the same for the whole
//! matrix, has moved the greatest of them to the top of f16's range, so that none that matters is lost below it.

mod blocks;

use super::arena::{Arena, PieceMut};
use super::matrix::{BLOCK_COLUMNS, GROUP_ROWS, Kind, Matrix};
use blocks::Quantised;
use half::{bf16, f16};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// About so many bytes are read and packed at a time.
const CHUNK_BYTES: usize = 128 * 1024;
/// The greatest scale is moved to at most this, a power of two within f16's range of 65,504.
const TOP_EXPONENT: i32 = 14;

/// How a file stores a matrix: the GGUF kinds that these kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    F16,
    BF16,
    F32,
}

impl Stored {
    /// How it is held here.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Stored::Q4_0 => Kind::Q4,
            Stored::Q4_1 | Stored::Q4K => Kind::Q4Min,
            Stored::Q5_0 => Kind::Q5,
            Stored::Q5_1 | Stored::Q5K => Kind::Q5Min,
            Stored::Q6K => Kind::Q6,
            Stored::Q8_0 => Kind::Q8,
            Stored::F16 => Kind::F16,
            Stored::BF16 | Stored::F32 => Kind::F32,
        }
    }

    /// Columns and bytes of a block.
    pub(crate) fn block(self) -> (usize, usize) {
        match self {
            Stored::Q4_0 => (32, 18),
            Stored::Q4_1 => (32, 20),
            Stored::Q5_0 => (32, 22),
            Stored::Q5_1 => (32, 24),
            Stored::Q8_0 => (32, 34),
            Stored::Q4K => (256, 144),
            Stored::Q5K => (256, 176),
            Stored::Q6K => (256, 210),
            Stored::F16 | Stored::BF16 => (1, 2),
            Stored::F32 => (1, 4),
        }
    }

    /// Bytes of a row; `None` if `columns` are not whole blocks.
    pub(crate) fn row_bytes(self, columns: usize) -> Option<usize> {
        let (width, bytes) = self.block();
        columns.is_multiple_of(width).then(|| columns / width * bytes)
    }
}

/// Reads some rows of a matrix as stored, to a buffer of just their size.
pub(crate) trait Source: Sync {
    type Error: Send;

    fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), Self::Error>;
}

/// A matrix to be packed.
pub(crate) struct Packer {
    stored: Stored,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    data: PieceMut,
}

impl Packer {
    /// `None` if the width does not fit the kind, or if the arena is full.
    pub(crate) fn new(arena: &Arena, stored: Stored, rows: usize, columns: usize) -> Option<Packer> {
        let row_bytes = stored.row_bytes(columns).filter(|&bytes| bytes > 0)?;
        let data = arena.piece(stored.kind().bytes(rows, columns))?;
        Some(Packer { stored, rows, columns, row_bytes, data })
    }

    /// Reads and packs on several threads, a few rows at a time: the whole matrix as stored is never in memory.
    pub(crate) fn pack<S: Source>(mut self, source: &S) -> Result<Matrix, S::Error> {
        let (stored, kind, columns, row_bytes) = (self.stored, self.stored.kind(), self.columns, self.row_bytes);
        let factor = self.factor(source)?;
        let group_bytes = kind.group_bytes(columns);
        let groups = (CHUNK_BYTES / group_bytes).max(1);
        let chunks = self.data.bytes().par_chunks_mut(groups * group_bytes).enumerate();
        chunks.try_for_each(|(chunk, groups_bytes)| {
            let first = chunk * groups * GROUP_ROWS;
            with_rows(source, first..self.rows.min(first + groups * GROUP_ROWS), row_bytes, |bytes| {
                let groups = groups_bytes.chunks_exact_mut(group_bytes);
                for (rows, group) in bytes.chunks(row_bytes * GROUP_ROWS).zip(groups) {
                    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                        match Quantised::of(stored) {
                            Some(quantised) => pack_row(quantised, kind, columns, 1.0 / factor, row, lane, group),
                            None => pack_floats(stored, row, lane, group),
                        }
                    }
                }
            })
        })?;
        Ok(Matrix { kind, rows: self.rows, columns, factor, data: self.data.freeze() })
    }

    /// By what the scales are divided when held: 1 unless they are rounded anyway.
    fn factor<S: Source>(&self, source: &S) -> Result<f32, S::Error> {
        let Some(kind) = Quantised::of(self.stored).filter(|kind| kind.has_products()) else { return Ok(1.0) };
        let rows = (CHUNK_BYTES / self.row_bytes).max(1);
        let greatest_of = |chunk: usize| {
            let mut greatest = 0.0f32;
            with_rows(source, chunk * rows..self.rows.min((chunk + 1) * rows), self.row_bytes, |bytes| {
                blocks::each(kind, bytes, |_, block| {
                    let scales = block.scales.iter().map(|scale| scale.abs());
                    greatest = scales.filter(|scale| scale.is_finite()).fold(greatest, f32::max);
                });
            })?;
            Ok(greatest)
        };
        let chunks = (0..self.rows.div_ceil(rows)).into_par_iter();
        let greatest = chunks.map(greatest_of).try_reduce(|| 0.0, |a, b| Ok(a.max(b)))?;
        Ok(match greatest > 0.0 {
            true => 2.0f32.powi((greatest.log2().floor() as i32 - TOP_EXPONENT).clamp(-60, 60)),
            false => 1.0,
        })
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads rows into this thread's buffer.
fn with_rows<S: Source>(
    source: &S,
    rows: Range<usize>,
    row_bytes: usize,
    with: impl FnOnce(&[u8]),
) -> Result<(), S::Error> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(rows.len() * row_bytes, 0);
        source.read(rows, buffer)?;
        with(buffer);
        Ok(())
    })
}

/// Writes one quantised row to its lane of a group.
fn pack_row(stored: Quantised, kind: Kind, columns: usize, factor: f32, row: &[u8], lane: usize, group: &mut [u8]) {
    let (numbers, scales) = group.split_at_mut(kind.number_bytes(columns));
    let block_bytes = kind.number_bytes(BLOCK_COLUMNS);
    let scales_per_block = kind.scales();
    blocks::each(stored, row, |index, block| {
        pack_numbers(kind, &block.numbers, lane, &mut numbers[index * block_bytes..(index + 1) * block_bytes]);
        for (part, &scale) in block.scales[..scales_per_block].iter().enumerate() {
            let at = ((index * scales_per_block + part) * GROUP_ROWS + lane) * 2;
            let bits = f16::from_f32(scale * factor).to_bits();
            scales[at..at + 2].copy_from_slice(&bits.to_ne_bytes());
        }
    });
}

/// Four columns are four bytes of a lane. The vector `p` of a block holds the columns from `8p` on in its low nibbles and
/// those from `8p + 4` on in its high ones; the bits above follow, in the order of the eight vectors that nibbles become.
fn pack_numbers(kind: Kind, numbers: &[u8; BLOCK_COLUMNS], lane: usize, block: &mut [u8]) {
    let quads = numbers.as_chunks::<4>().0;
    if kind == Kind::Q8 {
        for (index, quad) in quads.iter().enumerate() {
            block[64 * index + 4 * lane..][..4].copy_from_slice(quad);
        }
        return;
    }
    for (index, pair) in quads.chunks_exact(2).enumerate() {
        let low = u32::from_ne_bytes(pair[0]) & 0x0F0F_0F0F;
        let high = u32::from_ne_bytes(pair[1]) & 0x0F0F_0F0F;
        block[64 * index + 4 * lane..][..4].copy_from_slice(&(low | high << 4).to_ne_bytes());
    }
    let above = &mut block[256..];
    match kind {
        Kind::Q5 | Kind::Q5Min => {
            for (index, quad) in quads.iter().enumerate() {
                let bits = quad.iter().enumerate().fold(0, |bits, (i, number)| bits | (number >> 4 & 1) << i);
                above[8 * index + lane / 2] |= bits << (4 * (lane % 2));
            }
        }
        Kind::Q6 => {
            for (index, quad) in quads.iter().enumerate() {
                for (i, number) in quad.iter().enumerate() {
                    above[64 * (index / 4) + 4 * lane + i] |= (number >> 4) << (2 * (index % 4));
                }
            }
        }
        _ => {}
    }
}

/// Floats: column after column, sixteen rows each.
fn pack_floats(stored: Stored, row: &[u8], lane: usize, group: &mut [u8]) {
    match stored {
        Stored::F16 => {
            for (column, value) in row.chunks_exact(2).enumerate() {
                group[2 * (column * GROUP_ROWS + lane)..][..2].copy_from_slice(value);
            }
        }
        Stored::BF16 => {
            for (column, value) in row.as_chunks::<2>().0.iter().enumerate() {
                let value = bf16::from_le_bytes(*value).to_f32();
                group[4 * (column * GROUP_ROWS + lane)..][..4].copy_from_slice(&value.to_ne_bytes());
            }
        }
        _ => {
            for (column, value) in row.chunks_exact(4).enumerate() {
                group[4 * (column * GROUP_ROWS + lane)..][..4].copy_from_slice(value);
            }
        }
    }
}

/// Writes a row as stored to `to`, in f32.
pub(crate) fn dequantise_row(stored: Stored, row: &[u8], to: &mut [f32]) {
    let Some(quantised) = Quantised::of(stored) else {
        for (column, to) in to.iter_mut().enumerate() {
            *to = match stored {
                Stored::F16 => f16::from_le_bytes([row[2 * column], row[2 * column + 1]]).to_f32(),
                Stored::BF16 => bf16::from_le_bytes([row[2 * column], row[2 * column + 1]]).to_f32(),
                _ => f32::from_le_bytes(std::array::from_fn(|i| row[4 * column + i])),
            };
        }
        return;
    };
    blocks::each(quantised, row, |index, block| {
        let to = &mut to[index * BLOCK_COLUMNS..(index + 1) * BLOCK_COLUMNS];
        dequantise_block(stored.kind(), &block.numbers, block.scales, to);
    });
}

fn dequantise_block(kind: Kind, numbers: &[u8; BLOCK_COLUMNS], scales: [f32; 2], to: &mut [f32]) {
    for (column, (to, number)) in to.iter_mut().zip(numbers).enumerate() {
        let number = f32::from(*number);
        *to = match kind {
            Kind::Q4 => scales[0] * (number - 8.0),
            Kind::Q5 => scales[0] * (number - 16.0),
            Kind::Q6 => scales[column / 16] * (number - 32.0),
            Kind::Q8 => scales[0] * (number - 128.0),
            _ => scales[0] * number + scales[1],
        };
    }
}

/// Writes the row `row` of the matrix to `to`, in f32.
pub(crate) fn unpack_row(matrix: &Matrix, row: usize, to: &mut [f32]) {
    let (kind, columns, lane) = (matrix.kind, matrix.columns, row % GROUP_ROWS);
    let group = matrix.group(row / GROUP_ROWS);
    if kind.is_float() {
        for (column, to) in to.iter_mut().enumerate() {
            let at = column * GROUP_ROWS + lane;
            *to = match kind {
                Kind::F16 => f16::from_ne_bytes([group[2 * at], group[2 * at + 1]]).to_f32(),
                _ => f32::from_ne_bytes([group[4 * at], group[4 * at + 1], group[4 * at + 2], group[4 * at + 3]]),
            };
        }
        return;
    }
    let (numbers, scales) = group.split_at(kind.number_bytes(columns));
    let block_bytes = kind.number_bytes(BLOCK_COLUMNS);
    let scale = |index: usize, part: usize| {
        let at = ((index * kind.scales() + part) * GROUP_ROWS + lane) * 2;
        f16::from_ne_bytes([scales[at], scales[at + 1]]).to_f32() * matrix.factor
    };
    for (index, to) in to.chunks_exact_mut(BLOCK_COLUMNS).enumerate() {
        let numbers = unpack_numbers(kind, &numbers[index * block_bytes..(index + 1) * block_bytes], lane);
        let scales = [scale(index, 0), scale(index, kind.scales() - 1)];
        dequantise_block(kind, &numbers, scales, to);
    }
}

fn unpack_numbers(kind: Kind, block: &[u8], lane: usize) -> [u8; BLOCK_COLUMNS] {
    std::array::from_fn(|column| {
        let (index, i) = (column / 4, column % 4);
        if kind == Kind::Q8 {
            return block[64 * index + 4 * lane + i];
        }
        let low = block[64 * (index / 2) + 4 * lane + i] >> (4 * (index % 2)) & 15;
        let above = &block[256..];
        match kind {
            Kind::Q5 | Kind::Q5Min => low | (above[8 * index + lane / 2] >> (4 * (lane % 2) + i) & 1) << 4,
            Kind::Q6 => low | (above[64 * (index / 4) + 4 * lane + i] >> (2 * (index % 4)) & 3) << 4,
            _ => low,
        }
    })
}

#[cfg(test)]
pub(super) mod tests;
