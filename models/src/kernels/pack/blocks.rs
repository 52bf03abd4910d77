//! The blocks of GGUF's quantised kinds, read as bytes; layouts as in ggml's `ggml-common.h`.

use super::{BLOCK_COLUMNS, Stored};
use half::f16;

/// The stored kinds that are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantised {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// 32 columns of a row: unsigned numbers, and two scales. The second is the minimum, that of the last 16 columns (Q6_K),
/// or unused.
pub(super) struct Block {
    pub(super) numbers: [u8; BLOCK_COLUMNS],
    pub(super) scales: [f32; 2],
}

impl Quantised {
    pub(super) fn of(stored: Stored) -> Option<Quantised> {
        Some(match stored {
            Stored::Q4_0 => Quantised::Q4_0,
            Stored::Q4_1 => Quantised::Q4_1,
            Stored::Q5_0 => Quantised::Q5_0,
            Stored::Q5_1 => Quantised::Q5_1,
            Stored::Q8_0 => Quantised::Q8_0,
            Stored::Q4K => Quantised::Q4K,
            Stored::Q5K => Quantised::Q5K,
            Stored::Q6K => Quantised::Q6K,
            _ => return None,
        })
    }

    /// Whether a scale is a product that f16 cannot hold exactly.
    pub(super) fn has_products(self) -> bool {
        matches!(self, Quantised::Q4K | Quantised::Q5K | Quantised::Q6K)
    }
}

/// Calls `with` for each 32 columns of `bytes`, whole blocks of `kind`, with their index.
#[inline]
pub(super) fn each(kind: Quantised, bytes: &[u8], mut with: impl FnMut(usize, Block)) {
    match kind {
        Quantised::Q4_0 => small::<18>(bytes, with, |b| (nibbles(&b[2..]), [half(b, 0), 0.0])),
        Quantised::Q4_1 => small::<20>(bytes, with, |b| (nibbles(&b[4..]), [half(b, 0), half(b, 2)])),
        Quantised::Q5_0 => small::<22>(bytes, with, |b| (fifths(&b[2..6], &b[6..]), [half(b, 0), 0.0])),
        Quantised::Q5_1 => small::<24>(bytes, with, |b| (fifths(&b[4..8], &b[8..]), [half(b, 0), half(b, 2)])),
        Quantised::Q8_0 => small::<34>(bytes, with, |b| (std::array::from_fn(|i| b[2 + i] ^ 0x80), [half(b, 0), 0.0])),
        Quantised::Q4K => {
            for (index, block) in bytes.as_chunks::<144>().0.iter().enumerate() {
                (0..8).for_each(|part| with(8 * index + part, q4k(block, part)));
            }
        }
        Quantised::Q5K => {
            for (index, block) in bytes.as_chunks::<176>().0.iter().enumerate() {
                (0..8).for_each(|part| with(8 * index + part, q5k(block, part)));
            }
        }
        Quantised::Q6K => {
            for (index, block) in bytes.as_chunks::<210>().0.iter().enumerate() {
                (0..8).for_each(|part| with(8 * index + part, q6k(block, part)));
            }
        }
    }
}

/// The kinds whose blocks are 32 columns wide.
#[inline(always)]
fn small<const BYTES: usize>(
    bytes: &[u8],
    mut with: impl FnMut(usize, Block),
    read: impl Fn(&[u8; BYTES]) -> ([u8; BLOCK_COLUMNS], [f32; 2]),
) {
    for (index, block) in bytes.as_chunks::<BYTES>().0.iter().enumerate() {
        let (numbers, scales) = read(block);
        with(index, Block { numbers, scales });
    }
}

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low nibbles are the first 16 columns, the high ones the last.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; BLOCK_COLUMNS] {
    let mut numbers = [0; BLOCK_COLUMNS];
    let (first, last) = numbers.split_at_mut(16);
    for ((first, last), byte) in first.iter_mut().zip(last).zip(bytes) {
        (*first, *last) = (byte & 15, byte >> 4);
    }
    numbers
}

/// Nibbles, and a fifth bit for each column.
#[inline(always)]
fn fifths(bits: &[u8], bytes: &[u8]) -> [u8; BLOCK_COLUMNS] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let mut numbers = nibbles(bytes);
    numbers.iter_mut().enumerate().for_each(|(column, number)| *number |= ((bits >> column & 1) << 4) as u8);
    numbers
}

/// Scale and minimum of a part of Q4_K and Q5_K: 6 bits each, in 12 bytes.
#[inline(always)]
fn scale_and_min(block: &[u8], part: usize) -> [f32; 2] {
    let packed = &block[4..16];
    let (scale, min) = match part < 4 {
        true => (packed[part] & 63, packed[part + 4] & 63),
        false => (packed[part + 4] & 15 | packed[part - 4] >> 6 << 4, packed[part + 4] >> 4 | packed[part] >> 6 << 4),
    };
    [half(block, 0) * f32::from(scale), -half(block, 2) * f32::from(min)]
}

/// Two parts share 32 bytes: the low nibbles are the even one's.
fn k_nibbles(bytes: &[u8], part: usize) -> [u8; BLOCK_COLUMNS] {
    let bytes = &bytes[part / 2 * 32..][..32];
    std::array::from_fn(|column| bytes[column] >> (4 * (part % 2)) & 15)
}

fn q4k(block: &[u8; 144], part: usize) -> Block {
    Block { numbers: k_nibbles(&block[16..], part), scales: scale_and_min(block, part) }
}

fn q5k(block: &[u8; 176], part: usize) -> Block {
    let (bits, mut numbers) = (&block[16..48], k_nibbles(&block[48..], part));
    numbers.iter_mut().zip(bits).for_each(|(number, bits)| *number |= (bits >> part & 1) << 4);
    Block { numbers, scales: scale_and_min(block, part) }
}

/// 128 columns share 64 bytes of low nibbles and 32 bytes of upper pairs of bits.
fn q6k(block: &[u8; 210], part: usize) -> Block {
    let (half_block, quarter) = (part / 4, part % 4);
    let low = &block[64 * half_block + 32 * (quarter % 2)..][..32];
    let pairs = &block[128 + 32 * half_block..][..32];
    let numbers = std::array::from_fn(|column| {
        low[column] >> (4 * (quarter / 2)) & 15 | (pairs[column] >> (2 * quarter) & 3) << 4
    });
    let scale = |index: usize| half(block, 208) * f32::from(block[192 + index] as i8);
    Block { numbers, scales: [scale(2 * part), scale(2 * part + 1)] }
}
