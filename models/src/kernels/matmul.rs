//! Products of activations and weights, a group of 16 rows and up to eight tokens at a time.
//!
//! A token's sum over a row goes through the columns from front to end whatever the tokens beside it, so its bits depend
//! neither on them nor on how a prompt is cut.
#![expect(unsafe_code, reason = "generic over the instruction set; callers promise what `Simd` asks for")]
#![expect(clippy::needless_range_loop, reason = "several arrays of registers go by one index")]

use super::input::{BLOCK_BYTES, Input, Rows, Scale, quantise};
use super::math::{Activation, gate};
use super::matrix::{BLOCK_COLUMNS, GROUP_ROWS, Kind, Matrix};
use super::pool::SendPointer;
use super::simd::Simd;
use std::array::from_fn;
use std::ops::Range;

/// Tokens whose sums are held in registers together.
const TILE_TOKENS: usize = 8;

/// How far ahead weights are asked for, in bytes: 8 to 12 KiB did best, a fraction of the first cache.
const AHEAD: usize = 8192;

/// Sums of a group of rows, for each token of a tile.
type Tile = [[f32; GROUP_ROWS]; TILE_TOKENS];

/// Where the product goes.
#[derive(Clone, Copy)]
pub(super) struct Output {
    /// The first token's first row of this matrix.
    pub(super) start: SendPointer<f32>,
    /// From one token to the next.
    pub(super) stride: usize,
    /// Whether to add to what is there.
    pub(super) add: bool,
}

/// Computes some groups of `matrix` for all tokens of `input`.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    matrix: &Matrix,
    groups: Range<usize>,
    input: &Input,
    bias: Option<&[f32]>,
    output: Output,
) {
    let mut tile: Tile = [[0.0; GROUP_ROWS]; TILE_TOKENS];
    for group in groups {
        let (row, rows) = (group * GROUP_ROWS, GROUP_ROWS.min(matrix.rows - group * GROUP_ROWS));
        for first in (0..input.tokens).step_by(TILE_TOKENS) {
            let tokens = TILE_TOKENS.min(input.tokens - first);
            unsafe { sums::<S>(matrix, group, input, first, tokens, &mut tile) };
            for (token, sums) in tile[..tokens].iter_mut().enumerate() {
                if let Some(bias) = bias {
                    sums.iter_mut().zip(&bias[row..row + rows]).for_each(|(sum, bias)| *sum += bias);
                }
                // SAFETY: each group's rows of each token are written by whoever computes the group.
                unsafe {
                    let to = output.start.at((first + token) * output.stride + row);
                    store::<S>(sums, std::slice::from_raw_parts_mut(to, rows), output.add);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(sums: &[f32; GROUP_ROWS], to: &mut [f32], add: bool) {
    if to.len() < GROUP_ROWS {
        let old = |value: f32| if add { value } else { 0.0 };
        return to.iter_mut().zip(sums).for_each(|(to, sum)| *to = old(*to) + sum);
    }
    unsafe {
        let sums = S::load(sums.as_ptr());
        let sums = if add { S::add(S::load(to.as_ptr()), sums) } else { sums };
        S::store(to.as_mut_ptr(), sums);
    }
}

/// The two matrices of a gated layer; each begins at some group of its matrix, for they may be one.
#[derive(Clone, Copy)]
pub(super) struct GateAndUp<'a> {
    pub(super) gate: (&'a Matrix, usize),
    pub(super) up: (&'a Matrix, usize),
    pub(super) activation: Activation,
}

/// Computes `activation(gate(x)) * up(x)` for some blocks of 32 rows, and quantises it for the next product.
#[inline(always)]
pub(super) unsafe fn gated<S: Simd>(pair: GateAndUp<'_>, blocks: Range<usize>, input: &Input, output: Rows) {
    let mut tiles: [[Tile; 2]; 2] = [[[[0.0; GROUP_ROWS]; TILE_TOKENS]; 2]; 2];
    for block in blocks {
        for first in (0..input.tokens).step_by(TILE_TOKENS) {
            let tokens = TILE_TOKENS.min(input.tokens - first);
            for ((matrix, start), tiles) in [pair.gate, pair.up].into_iter().zip(&mut tiles) {
                for (half, tile) in tiles.iter_mut().enumerate() {
                    unsafe { sums::<S>(matrix, start + 2 * block + half, input, first, tokens, tile) };
                }
            }
            for token in 0..tokens {
                // SAFETY: each block of each token is written by whoever computes the block.
                unsafe {
                    let mut row = output.part(first + token, block * BLOCK_COLUMNS, BLOCK_COLUMNS);
                    for half in 0..2 {
                        let (gates, ups) = (tiles[0][half][token].as_ptr(), tiles[1][half][token].as_ptr());
                        let value = gate::<S>(pair.activation, S::load(gates), S::load(ups));
                        S::store(row.floats.as_mut_ptr().add(half * GROUP_ROWS), value);
                    }
                    quantise::<S>(&mut row);
                }
            }
        }
    }
}

/// The sums of one group for up to eight tokens from `first` on.
#[inline(always)]
unsafe fn sums<S: Simd>(matrix: &Matrix, group: usize, input: &Input, first: usize, tokens: usize, tile: &mut Tile) {
    let mut done = 0;
    while done < tokens {
        let tile = &mut tile[done..];
        let at = first + done;
        unsafe {
            done += match tokens - done {
                8.. => of_kind::<S, 8>(matrix, group, input, at, tile),
                4..8 => of_kind::<S, 4>(matrix, group, input, at, tile),
                2..4 => of_kind::<S, 2>(matrix, group, input, at, tile),
                _ => of_kind::<S, 1>(matrix, group, input, at, tile),
            };
        }
    }
}

#[inline(always)]
unsafe fn of_kind<S: Simd, const T: usize>(
    matrix: &Matrix,
    group: usize,
    input: &Input,
    first: usize,
    tile: &mut [[f32; GROUP_ROWS]],
) -> usize {
    unsafe {
        match matrix.kind {
            Kind::Q4 => quantised::<S, T, 4, false>(matrix, group, input, first, tile),
            Kind::Q4Min => quantised::<S, T, 4, true>(matrix, group, input, first, tile),
            Kind::Q5 => quantised::<S, T, 5, false>(matrix, group, input, first, tile),
            Kind::Q5Min => quantised::<S, T, 5, true>(matrix, group, input, first, tile),
            Kind::Q6 => quantised::<S, T, 6, false>(matrix, group, input, first, tile),
            Kind::Q8 => quantised::<S, T, 8, false>(matrix, group, input, first, tile),
            Kind::F16 => floats::<S, T, true>(matrix, group, input, first, tile),
            Kind::F32 => floats::<S, T, false>(matrix, group, input, first, tile),
        }
    }
    T
}

/// The integer dot product of the coarse bytes, times 128, plus that of the fine ones; then
/// `sum += (integer dot product) * (weight's scale) * (activation's scale)`, block by block; then the minimum times the
/// activations' sum, where the kind has one. Integer sums are exact.
#[inline(always)]
unsafe fn quantised<S: Simd, const T: usize, const BITS: usize, const MIN: bool>(
    matrix: &Matrix,
    group: usize,
    input: &Input,
    first: usize,
    tile: &mut [[f32; GROUP_ROWS]],
) {
    let (blocks, data) = (input.blocks(), matrix.group(group));
    let (numbers, scales) = data.split_at(matrix.kind.number_bytes(matrix.columns));
    let per_block = if MIN || BITS == 6 { 2 } else { 1 };
    let block_bytes = 64 * BITS + per_block * GROUP_ROWS * size_of::<u16>();
    // The first tokens find the weights in memory, and the processor alone does not fetch them early enough.
    let fetch = first == 0;
    unsafe {
        let activations = input.numbers.as_ptr().add(first * blocks * BLOCK_BYTES);
        let activation_scales = input.scales.as_ptr().add(first * blocks);
        let mut sums = [S::splat(0.0); T];
        for block in 0..blocks {
            let packed = numbers.as_ptr().add(block * 64 * BITS);
            if fetch {
                // Numbers and scales are one stream here, asked for at an even pace.
                let ahead = data.as_ptr().wrapping_add(AHEAD + block * block_bytes);
                (0..block_bytes).step_by(64).for_each(|line| S::prefetch(ahead.wrapping_add(line)));
            }
            let weights = unpack::<S, BITS>(packed);
            let scales = scales.as_ptr().cast::<u16>().add(block * per_block * GROUP_ROWS);
            let coarse = |token: usize, index: usize| {
                let at = (token * blocks + block) * BLOCK_BYTES + 4 * index;
                activations.add(at).cast::<i32>().read_unaligned()
            };
            let fine = |token: usize, index: usize| coarse(token, index + BLOCK_COLUMNS / 4);
            let of_token = |token: usize| &*activation_scales.add(token * blocks + block);
            let scale = S::load_f16(scales);
            if BITS == 6 {
                let last_scale = S::load_f16(scales.add(GROUP_ROWS));
                let mut halves = [[S::splat_i32(0); T]; 2];
                for (half, integers) in halves.iter_mut().enumerate() {
                    for index in 4 * half..4 * half + 4 {
                        for token in 0..T {
                            integers[token] = S::dot(integers[token], weights[index], coarse(token, index));
                        }
                    }
                    for token in 0..T {
                        let start = S::splat_i32(-32 * of_token(token).totals[half]);
                        integers[token] = S::coarse_and(integers[token], start);
                    }
                    for index in 4 * half..4 * half + 4 {
                        for token in 0..T {
                            integers[token] = S::dot(integers[token], weights[index], fine(token, index));
                        }
                    }
                }
                let [first, last] = halves;
                for token in 0..T {
                    let by = S::splat(of_token(token).scale);
                    sums[token] = S::add(sums[token], S::mul(S::mul(S::to_f32(first[token]), scale), by));
                    sums[token] = S::add(sums[token], S::mul(S::mul(S::to_f32(last[token]), last_scale), by));
                }
                continue;
            }
            let dot = |sum: S::I, weights: S::B, four: i32| match BITS {
                8 => S::dot_minus_128(sum, weights, four),
                _ => S::dot(sum, weights, four),
            };
            let mut coarses = [S::splat_i32(0); T];
            let mut integers: [S::I; T] = from_fn(|token| {
                let total = of_token(token).totals[0] + of_token(token).totals[1];
                match (BITS, MIN) {
                    (8, _) => S::start_minus_128(total),
                    (_, true) => S::splat_i32(0),
                    _ => S::splat_i32(-(1 << (BITS - 1)) * total),
                }
            });
            for index in 0..8 {
                for token in 0..T {
                    coarses[token] = dot(coarses[token], weights[index], coarse(token, index));
                    integers[token] = dot(integers[token], weights[index], fine(token, index));
                }
            }
            for token in 0..T {
                integers[token] = S::coarse_and(coarses[token], integers[token]);
            }
            for token in 0..T {
                let by = S::splat(of_token(token).scale);
                sums[token] = S::add(sums[token], S::mul(S::mul(S::to_f32(integers[token]), scale), by));
            }
            if MIN {
                let min = S::load_f16(scales.add(GROUP_ROWS));
                for token in 0..T {
                    sums[token] = S::add(sums[token], S::mul(min, S::splat(of_token(token).sum)));
                }
            }
        }
        let factor = S::splat(matrix.factor);
        for (sum, to) in sums.into_iter().zip(tile) {
            S::store(to.as_mut_ptr(), S::mul(sum, factor));
        }
    }
}

/// The eight vectors of a block: four columns of sixteen rows each.
#[inline(always)]
unsafe fn unpack<S: Simd, const BITS: usize>(block: *const u8) -> [S::B; 8] {
    unsafe {
        if BITS == 8 {
            return from_fn(|index| S::bytes(block.add(64 * index)));
        }
        let nibbles: [S::B; 4] = from_fn(|index| S::bytes(block.add(64 * index)));
        let weights: [S::B; 8] = from_fn(|index| match index % 2 {
            0 => S::low_nibbles(nibbles[index / 2]),
            _ => S::high_nibbles(nibbles[index / 2]),
        });
        let above = block.add(256);
        match BITS {
            5 => from_fn(|index| S::add_16_where(weights[index], above.add(8 * index))),
            6 => {
                let pairs: [S::B; 2] = from_fn(|index| S::bytes(above.add(64 * index)));
                let [a, b, c, d, e, f, g, h] = weights;
                [
                    S::add_16_times::<0>(a, pairs[0]),
                    S::add_16_times::<1>(b, pairs[0]),
                    S::add_16_times::<2>(c, pairs[0]),
                    S::add_16_times::<3>(d, pairs[0]),
                    S::add_16_times::<0>(e, pairs[1]),
                    S::add_16_times::<1>(f, pairs[1]),
                    S::add_16_times::<2>(g, pairs[1]),
                    S::add_16_times::<3>(h, pairs[1]),
                ]
            }
            _ => weights,
        }
    }
}

/// Products of floats, column by column.
#[inline(always)]
unsafe fn floats<S: Simd, const T: usize, const HALF: bool>(
    matrix: &Matrix,
    group: usize,
    input: &Input,
    first: usize,
    tile: &mut [[f32; GROUP_ROWS]],
) {
    let (columns, data) = (matrix.columns, matrix.group(group).as_ptr());
    unsafe {
        let activations = input.floats.as_ptr().add(first * columns);
        let mut sums = [S::splat(0.0); T];
        for column in 0..columns {
            if first == 0 {
                S::prefetch(data.wrapping_add(AHEAD + column * GROUP_ROWS * if HALF { 2 } else { 4 }));
            }
            let weights = match HALF {
                true => S::load_f16(data.cast::<u16>().add(column * GROUP_ROWS)),
                false => S::load(data.cast::<f32>().add(column * GROUP_ROWS)),
            };
            for (token, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, S::mul(weights, S::splat(*activations.add(token * columns + column))));
            }
        }
        for (sum, to) in sums.into_iter().zip(tile) {
            S::store(to.as_mut_ptr(), sum);
        }
    }
}

/// Only so that the size of a scale is no surprise to the loads above.
const _: () = assert!(size_of::<Scale>() == 16);
