//! Activations made ready for the matrix products: as f32, and as 15-bit numbers with a scale for each 32 of them.
//!
//! A number is `128 * coarse + fine`, two signed bytes, so that instructions for bytes multiply it. Eight bits alone, as
//! llama.cpp has them, move logits by some tenths and with them one best token in forty.
#![expect(unsafe_code, reason = "generic over the instruction set; callers promise what `Simd` asks for")]

use super::math::greatest;
use super::matrix::BLOCK_COLUMNS;
use super::pool::SendPointer;
use super::simd::{LANES, Simd};

/// Rows of activations, `[tokens, columns]`. Several products can share them, and the memory is used again.
#[derive(Default)]
pub(crate) struct Input {
    pub(super) tokens: usize,
    pub(super) columns: usize,
    pub(super) floats: Vec<f32>,
    /// The coarse bytes of a block, then its fine ones. Whole blocks only: a matrix of other widths holds floats.
    pub(super) numbers: Vec<i8>,
    pub(super) scales: Vec<Scale>,
}

/// Bits that the coarse byte of a number is above the fine one.
pub(super) const FINE_BITS: i32 = 7;
/// Bytes of a quantised block.
pub(super) const BLOCK_BYTES: usize = 2 * BLOCK_COLUMNS;

/// Of 32 quantised activations.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub(super) struct Scale {
    pub(super) scale: f32,
    /// The sum of the dequantised numbers.
    pub(super) sum: f32,
    /// The sums of the first and of the last 16 numbers.
    pub(super) totals: [i32; 2],
}

/// Where one row is written to.
pub(super) struct Row<'a> {
    pub(super) floats: &'a mut [f32],
    pub(super) numbers: &'a mut [i8],
    pub(super) scales: &'a mut [Scale],
}

/// The same for many rows, from several threads.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    columns: usize,
    floats: SendPointer<f32>,
    numbers: SendPointer<i8>,
    scales: SendPointer<Scale>,
}

impl Input {
    /// Gets room for so many rows; what they hold is to be written next.
    pub(super) fn resize(&mut self, tokens: usize, columns: usize) {
        (self.tokens, self.columns) = (tokens, columns);
        let blocks = columns / BLOCK_COLUMNS;
        self.floats.resize(tokens * columns, 0.0);
        self.numbers.resize(tokens * blocks * BLOCK_BYTES, 0);
        self.scales.resize(tokens * blocks, Scale::default());
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The rows as they were before quantisation, `[tokens, columns]`.
    pub(crate) fn floats(&self) -> &[f32] {
        &self.floats
    }

    pub(super) fn blocks(&self) -> usize {
        self.columns / BLOCK_COLUMNS
    }

    pub(super) fn rows_mut(&mut self) -> Rows {
        Rows {
            columns: self.columns,
            floats: SendPointer(self.floats.as_mut_ptr()),
            numbers: SendPointer(self.numbers.as_mut_ptr()),
            scales: SendPointer(self.scales.as_mut_ptr()),
        }
    }
}

impl Rows {
    /// # Safety
    /// The input still exists, and nobody else uses these `len` columns (`from` is a multiple of 32) of this row.
    pub(super) unsafe fn part<'a>(self, token: usize, from: usize, len: usize) -> Row<'a> {
        let blocks = self.columns / BLOCK_COLUMNS;
        let (first, count) = (token * blocks + from / BLOCK_COLUMNS, len / BLOCK_COLUMNS);
        unsafe {
            Row {
                floats: std::slice::from_raw_parts_mut(self.floats.at(token * self.columns + from), len),
                numbers: std::slice::from_raw_parts_mut(self.numbers.at(first * BLOCK_BYTES), count * BLOCK_BYTES),
                scales: std::slice::from_raw_parts_mut(self.scales.at(first), count),
            }
        }
    }

    /// # Safety
    /// As for [`part`](Self::part), of the whole row.
    pub(super) unsafe fn row<'a>(self, token: usize) -> Row<'a> {
        unsafe { self.part(token, 0, self.columns) }
    }
}

/// Quantises `row.floats`: each block by its greatest magnitude, whose coarse byte becomes 127.
#[inline(always)]
pub(super) unsafe fn quantise<S: Simd>(row: &mut Row<'_>) {
    let blocks = row.floats.as_chunks::<BLOCK_COLUMNS>().0;
    let numbers = row.numbers.as_chunks_mut::<BLOCK_BYTES>().0;
    for ((floats, numbers), scale) in blocks.iter().zip(numbers).zip(row.scales.iter_mut()) {
        unsafe {
            let halves = [S::load(floats.as_ptr()), S::load(floats.as_ptr().add(LANES))];
            let top = greatest::<S>(S::max(S::abs(halves[0]), S::abs(halves[1])));
            let inverse = S::splat(if top > 0.0 { 127.0 / top } else { 0.0 });
            let mut totals = [0i32; 2];
            for (at, (half, total)) in halves.into_iter().zip(&mut totals).enumerate() {
                let to = numbers.as_mut_ptr().add(at * LANES);
                let exact = S::mul(half, inverse);
                // Adding 1.5 * 2^23 rounds to an integer, as `store_i8` does.
                let shift = S::splat(12_582_912.0);
                let coarse = S::sub(S::add(exact, shift), shift);
                let fine = S::mul(S::sub(exact, coarse), S::splat((1 << FINE_BITS) as f32));
                *total = (S::store_i8(to, coarse) << FINE_BITS) + S::store_i8(to.add(BLOCK_COLUMNS), fine);
            }
            let step = top / (127.0 * (1 << FINE_BITS) as f32);
            *scale = Scale { scale: step, sum: step * totals[0].wrapping_add(totals[1]) as f32, totals };
        }
    }
}
