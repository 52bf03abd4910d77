//! Softmax attention of some queries that share one head's keys and values.
//!
//! Keys are stored a dimension after another, sixteen positions side by side, values a position after another; so neither
//! product needs a sum across lanes. A query's sums go through dimensions and positions from first to last, whatever the
//! queries beside it: what it must not see has weight zero, and adding zero changes no bit.
#![expect(unsafe_code, reason = "generic over the instruction set; callers promise what `Simd` asks for")]

use super::math::{exp, greatest, sum};
use super::simd::{LANES, Simd};
use std::array::from_fn;
use std::ops::Range;

/// Positions of a page of the cache.
pub(crate) const PAGE_TOKENS: usize = 64;
/// Queries whose scores are held in registers together.
const TILE_QUERIES: usize = 6;
/// Vectors side by side in registers: a page's positions, or 64 dimensions of the values.
const VECTORS: usize = PAGE_TOKENS / LANES;

/// One head's part of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageHead<'a> {
    /// f16, `[head_dim, PAGE_TOKENS]`.
    pub(crate) keys: &'a [u16],
    /// f16, `[PAGE_TOKENS, value_width]`: the head's dimensions, filled up with zeros to whole vectors.
    pub(crate) values: &'a [u16],
}

/// Memory of a thread for its queries, used again and again.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[queries, head_dim]`.
    pub(super) queries: Vec<f32>,
    /// `[queries, positions]`, the positions of whole pages.
    scores: Vec<f32>,
    /// `[queries, value_width]`.
    pub(super) mixed: Vec<f32>,
}

/// Whole vectors for the values of a head.
pub(crate) const fn value_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Attends with `scratch.queries`, scaled already, over some pages. `seen` tells which positions a query sees, counted
/// from the first page's first; they are not empty. Leaves `[queries, value_width]` in `scratch.mixed`.
#[inline(always)]
pub(super) unsafe fn attend<'a, S: Simd>(
    scratch: &mut Scratch,
    head_dim: usize,
    pages: usize,
    page: &dyn Fn(usize) -> PageHead<'a>,
    seen: impl Fn(usize) -> Range<usize>,
) {
    let (width, positions) = (value_width(head_dim), pages * PAGE_TOKENS);
    let queries = scratch.queries.len() / head_dim;
    scratch.scores.resize(queries * positions, 0.0);
    scratch.mixed.clear();
    scratch.mixed.resize(queries * width, 0.0);
    let last = (0..queries).map(|query| seen(query).end).max().unwrap_or(0);
    let mut first = 0;
    while first < queries {
        let tile = TILE_QUERIES.min(queries - first);
        let rows = &scratch.queries[first * head_dim..][..tile * head_dim];
        let scores = &mut scratch.scores[first * positions..][..tile * positions];
        let mixed = &mut scratch.mixed[first * width..][..tile * width];
        unsafe {
            for index in 0..pages {
                if first == 0 && index + 1 < pages {
                    fetch::<S>(page(index + 1).keys);
                }
                score_page::<S>(rows, head_dim, page(index).keys, &mut scores[index * PAGE_TOKENS..], positions);
            }
            let mut sums = [0.0; TILE_QUERIES];
            for (query, row) in scores.chunks_exact_mut(positions).enumerate() {
                sums[query] = softmax::<S>(row, seen(first + query));
            }
            for index in 0..pages {
                let count = last.saturating_sub(index * PAGE_TOKENS).min(PAGE_TOKENS);
                if first == 0 && index + 1 < pages {
                    fetch::<S>(page(index + 1).values);
                }
                mix_page::<S>(&scores[index * PAGE_TOKENS..], positions, page(index).values, count, mixed, width);
            }
            for (row, sum) in mixed.chunks_exact_mut(width).zip(sums) {
                let by = S::splat(1.0 / sum);
                for part in row.chunks_exact_mut(LANES) {
                    S::store(part.as_mut_ptr(), S::mul(S::load(part.as_ptr()), by));
                }
            }
        }
        first += tile;
    }
}

/// Asks for the next page while this one is worked on: the processor does not see where it goes on.
#[inline(always)]
unsafe fn fetch<S: Simd>(page: &[u16]) {
    page.chunks(32).for_each(|line| unsafe { S::prefetch(line.as_ptr().cast()) });
}

/// Calls a kernel for the number of queries, which it knows when compiled.
macro_rules! for_queries {
    ($count:expr, $kernel:ident, $simd:ty, $($argument:expr),+) => {
        match $count {
            1 => $kernel::<$simd, 1>($($argument),+),
            2 => $kernel::<$simd, 2>($($argument),+),
            3 => $kernel::<$simd, 3>($($argument),+),
            4 => $kernel::<$simd, 4>($($argument),+),
            5 => $kernel::<$simd, 5>($($argument),+),
            _ => $kernel::<$simd, 6>($($argument),+),
        }
    };
}

/// The scores of a tile of queries at a page's positions; `stride` is from one query's scores to the next's.
#[inline(always)]
unsafe fn score_page<S: Simd>(queries: &[f32], head_dim: usize, keys: &[u16], scores: &mut [f32], stride: usize) {
    let count = queries.len() / head_dim;
    unsafe { for_queries!(count, score, S, queries.as_ptr(), head_dim, keys.as_ptr(), scores.as_mut_ptr(), stride) }
}

#[inline(always)]
unsafe fn score<S: Simd, const Q: usize>(
    queries: *const f32,
    head_dim: usize,
    keys: *const u16,
    scores: *mut f32,
    stride: usize,
) {
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; Q];
        for dimension in 0..head_dim {
            let keys: [S::F; VECTORS] =
                from_fn(|vector| S::load_f16(keys.add(dimension * PAGE_TOKENS + vector * LANES)));
            for (query, sums) in sums.iter_mut().enumerate() {
                let value = S::splat(*queries.add(query * head_dim + dimension));
                for vector in 0..VECTORS {
                    sums[vector] = S::add(sums[vector], S::mul(keys[vector], value));
                }
            }
        }
        for (query, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                S::store(scores.add(query * stride + vector * LANES), sum);
            }
        }
    }
}

/// Turns scores into weights, not yet divided by their sum, which it returns; what is not seen gets weight 0.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: &mut [f32], seen: Range<usize>) -> f32 {
    let hide = |scores: &mut [f32], value: f32| {
        scores[..seen.start].fill(value);
        scores[seen.end..].fill(value);
    };
    hide(scores, f32::NEG_INFINITY);
    unsafe {
        let mut top = S::splat(f32::NEG_INFINITY);
        for part in scores.chunks_exact(LANES) {
            top = S::max(top, S::load(part.as_ptr()));
        }
        let top = S::splat(greatest::<S>(top));
        for part in scores.chunks_exact_mut(LANES) {
            S::store(part.as_mut_ptr(), exp::<S>(S::sub(S::load(part.as_ptr()), top)));
        }
        hide(scores, 0.0);
        let mut total = S::splat(0.0);
        for part in scores.chunks_exact(LANES) {
            total = S::add(total, S::load(part.as_ptr()));
        }
        sum::<S>(total)
    }
}

/// Adds the values of a page's first `count` positions, each times its weight, to a tile of rows.
#[inline(always)]
unsafe fn mix_page<S: Simd>(
    weights: &[f32],
    stride: usize,
    values: &[u16],
    count: usize,
    mixed: &mut [f32],
    width: usize,
) {
    let queries = mixed.len() / width;
    let mut from = 0;
    while from < width {
        let (weights, values, mixed) = (weights.as_ptr(), values.as_ptr(), mixed.as_mut_ptr());
        unsafe {
            let (values, mixed) = (values.add(from), mixed.add(from));
            if width - from >= VECTORS * LANES {
                for_queries!(queries, mix_wide, S, weights, stride, values, count, mixed, width);
                from += VECTORS * LANES;
            } else {
                for_queries!(queries, mix_narrow, S, weights, stride, values, count, mixed, width);
                from += LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn mix_wide<S: Simd, const Q: usize>(
    weights: *const f32,
    stride: usize,
    values: *const u16,
    count: usize,
    mixed: *mut f32,
    width: usize,
) {
    unsafe { mix::<S, Q, VECTORS>(weights, stride, values, count, mixed, width) }
}

#[inline(always)]
unsafe fn mix_narrow<S: Simd, const Q: usize>(
    weights: *const f32,
    stride: usize,
    values: *const u16,
    count: usize,
    mixed: *mut f32,
    width: usize,
) {
    unsafe { mix::<S, Q, 1>(weights, stride, values, count, mixed, width) }
}

#[inline(always)]
unsafe fn mix<S: Simd, const Q: usize, const V: usize>(
    weights: *const f32,
    stride: usize,
    values: *const u16,
    count: usize,
    mixed: *mut f32,
    width: usize,
) {
    unsafe {
        let mut sums: [[S::F; V]; Q] =
            from_fn(|query| from_fn(|vector| S::load(mixed.add(query * width + vector * LANES))));
        for position in 0..count {
            let values: [S::F; V] = from_fn(|vector| S::load_f16(values.add(position * width + vector * LANES)));
            for (query, sums) in sums.iter_mut().enumerate() {
                let weight = S::splat(*weights.add(query * stride + position));
                for vector in 0..V {
                    sums[vector] = S::add(sums[vector], S::mul(values[vector], weight));
                }
            }
        }
        for (query, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                S::store(mixed.add(query * width + vector * LANES), sum);
            }
        }
    }
}
