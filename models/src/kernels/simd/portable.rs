//! Plain Rust, for every other processor, and to test the others against.
#![expect(unsafe_code, reason = "reads and writes through pointers; `Simd` says what its callers promise")]

use super::{LANES, Simd};
use half::f16;
use std::array::from_fn;

pub(in super::super) struct Portable;

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 4 * LANES];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe { to.cast::<Self::F>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32_const())
    }

    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Self::F) {
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(value.map(|value| f16::from_f32_const(value).to_bits())) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn exp2_of_shifted(shifted: Self::F) -> Self::F {
        shifted.map(|shifted| f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)))
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::I {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn coarse_and(coarse: Self::I, more: Self::I) -> Self::I {
        from_fn(|lane| (coarse[lane] << 7) + more[lane])
    }

    #[inline(always)]
    unsafe fn to_f32(value: Self::I) -> Self::F {
        value.map(|value| value as f32)
    }

    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32 {
        let integers = value.map(|value| value.round_ties_even() as i32);
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(integers.map(|integer| integer as i8)) };
        integers.iter().sum()
    }

    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}

    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self::B {
        unsafe { from.cast::<Self::B>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::B) -> Self::B {
        bytes.map(|byte| byte & 15)
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: Self::B) -> Self::B {
        bytes.map(|byte| byte >> 4)
    }

    #[inline(always)]
    unsafe fn add_16_where(bytes: Self::B, bits: *const u8) -> Self::B {
        let bits = unsafe { bits.cast::<u64>().read_unaligned() }.to_le();
        from_fn(|at| bytes[at] + ((bits >> at & 1) << 4) as u8)
    }

    #[inline(always)]
    unsafe fn add_16_times<const FIELD: usize>(bytes: Self::B, pairs: Self::B) -> Self::B {
        from_fn(|at| bytes[at] + ((pairs[at] >> (2 * FIELD) & 3) << 4))
    }

    #[inline(always)]
    unsafe fn dot(sum: Self::I, bytes: Self::B, four: i32) -> Self::I {
        let four = four.to_ne_bytes();
        from_fn(|lane| (0..4).fold(sum[lane], |sum, i| sum + i32::from(bytes[4 * lane + i]) * i32::from(four[i] as i8)))
    }

    #[inline(always)]
    unsafe fn start_minus_128(_total: i32) -> Self::I {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn dot_minus_128(sum: Self::I, bytes: Self::B, four: i32) -> Self::I {
        let four = four.to_ne_bytes();
        let product = |byte: u8, four: u8| (i32::from(byte) - 128) * i32::from(four as i8);
        from_fn(|lane| (0..4).fold(sum[lane], |sum, i| sum + product(bytes[4 * lane + i], four[i])))
    }
}
