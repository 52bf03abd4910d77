//! The kernels, compiled once for each instruction set.
#![expect(unsafe_code, reason = "each table is used only where its instruction set was found")]

use super::attention::{self, PageHead, Scratch};
use super::input::{Input, Row, Rows, quantise};
use super::math;
use super::matmul::{self, GateAndUp, Output};
use super::matrix::Matrix;
use super::simd::{Portable, Simd};
use std::ops::Range;

/// Which instructions the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// AVX2 and F16C.
    Avx2,
    /// What every processor has.
    Portable,
}

/// What the queries of a tile see: `count` positions each at most, up to its own, counted from the first page's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The first token's own position.
    pub(super) position: usize,
    /// Queries of one token.
    pub(super) group: usize,
    pub(super) window: Option<usize>,
}

impl Seen {
    pub(super) fn of(self, query: usize) -> Range<usize> {
        let end = self.position + query / self.group + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// Some groups of a matrix, times an input, plus a bias.
type Multiply = unsafe fn(&Matrix, Range<usize>, &Input, Option<&[f32]>, Output);
/// Attention over so many pages with heads so wide.
type Attend = for<'a> unsafe fn(&mut Scratch, usize, usize, &dyn Fn(usize) -> PageHead<'a>, Seen);

/// # Safety
/// Every entry needs the instruction set of its table.
pub(super) struct Table {
    /// Quantises a row whose floats are written.
    pub(super) quantise: unsafe fn(&mut Row<'_>),
    /// Norms a row into another.
    pub(super) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    /// Gates a row, in place.
    pub(super) gate: unsafe fn(math::Activation, &mut [f32], &[f32]),
    /// Rounds floats to f16.
    pub(super) to_f16: unsafe fn(&[f32], &mut [u16]),
    pub(super) multiply: Multiply,
    pub(super) gated: unsafe fn(GateAndUp<'_>, Range<usize>, &Input, Rows),
    pub(super) attend: Attend,
}

#[inline(always)]
unsafe fn gate_row<S: Simd>(activation: math::Activation, gate: &mut [f32], up: &[f32]) {
    for at in (0..gate.len()).step_by(super::simd::LANES) {
        unsafe {
            let value = math::gate::<S>(activation, math::load_part::<S>(gate, at), math::load_part::<S>(up, at));
            math::store_part::<S>(gate, at, value);
        }
    }
}

/// Magnitudes beyond f16's greatest are held to it, so that no weight of zero ever meets an infinity.
#[inline(always)]
unsafe fn to_f16<S: Simd>(from: &[f32], to: &mut [u16]) {
    unsafe {
        let (top, bottom) = (S::splat(65_504.0), S::splat(-65_504.0));
        for (at, to) in to.chunks_mut(super::simd::LANES).enumerate() {
            let value = math::load_part::<S>(from, at * super::simd::LANES);
            let mut lanes = [0u16; super::simd::LANES];
            S::store_f16(lanes.as_mut_ptr(), S::max(S::min(value, top), bottom));
            to.copy_from_slice(&lanes[..to.len()]);
        }
    }
}

macro_rules! table {
    ($module:ident, $simd:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $features)])?
            unsafe fn quantise_row(row: &mut Row<'_>) {
                unsafe { quantise::<$simd>(row) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) {
                unsafe { math::rms_norm::<$simd>(x, weight, epsilon, to) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn gate(activation: math::Activation, gate: &mut [f32], up: &[f32]) {
                unsafe { gate_row::<$simd>(activation, gate, up) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn to_f16(from: &[f32], to: &mut [u16]) {
                unsafe { super::to_f16::<$simd>(from, to) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn multiply(
                matrix: &Matrix,
                groups: Range<usize>,
                input: &Input,
                bias: Option<&[f32]>,
                output: Output,
            ) {
                unsafe { matmul::multiply::<$simd>(matrix, groups, input, bias, output) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn gated(pair: GateAndUp<'_>, blocks: Range<usize>, input: &Input, output: Rows) {
                unsafe { matmul::gated::<$simd>(pair, blocks, input, output) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn attend<'a>(
                scratch: &mut Scratch,
                head_dim: usize,
                pages: usize,
                page: &dyn Fn(usize) -> PageHead<'a>,
                seen: Seen,
            ) {
                unsafe { attention::attend::<$simd>(scratch, head_dim, pages, page, |query| seen.of(query)) }
            }

            pub(super) static TABLE: Table =
                Table { quantise: quantise_row, rms_norm, gate, to_f16, multiply, gated, attend };
        }
    };
}

table!(portable, Portable);
#[cfg(target_arch = "x86_64")]
table!(avx2, super::super::simd::Avx2, "avx2,f16c");
#[cfg(target_arch = "x86_64")]
table!(avx512, super::super::simd::Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,f16c");

impl InstructionSet {
    /// Those that this processor has, the fastest first.
    pub fn available() -> Vec<InstructionSet> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            found.extend(avx512.then_some(InstructionSet::Avx512));
            found.extend(avx2.then_some(InstructionSet::Avx2));
        }
        found.push(InstructionSet::Portable);
        found
    }

    /// The kernels compiled for it; `None` if this processor does not have it.
    pub(super) fn table(self) -> Option<&'static Table> {
        if !InstructionSet::available().contains(&self) {
            return None;
        }
        Some(match self {
            InstructionSet::Portable => &portable::TABLE,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => &avx512::TABLE,
            #[cfg(not(target_arch = "x86_64"))]
            _ => return None,
        })
    }
}
