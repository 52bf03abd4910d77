//! AVX2 with F16C: two registers where AVX-512 has one.
#![expect(unsafe_code, reason = "instructions by name; `Simd` says what its callers promise")]

use super::Simd;
use std::arch::x86_64::*;

pub(in super::super) struct Avx2;

/// Applies an instruction to both halves.
macro_rules! both {
    ($instruction:expr, $($operand:expr),+) => {
        unsafe { [$instruction($($operand[0]),+), $instruction($($operand[1]),+)] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        unsafe {
            let half = |at: usize| _mm256_cvtph_ps(_mm_loadu_si128(from.add(at).cast()));
            [half(0), half(8)]
        }
    }

    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Self::F) {
        unsafe {
            let half = |value: __m256| _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(value);
            _mm_storeu_si128(to.cast(), half(value[0]));
            _mm_storeu_si128(to.add(8).cast(), half(value[1]));
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        unsafe {
            let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFF_FFFF));
            [_mm256_and_ps(a[0], magnitude), _mm256_and_ps(a[1], magnitude)]
        }
    }

    #[inline(always)]
    unsafe fn exp2_of_shifted(shifted: Self::F) -> Self::F {
        unsafe {
            let one = |shifted: __m256| {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
                _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)))
            };
            [one(shifted[0]), one(shifted[1])]
        }
    }

    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }

    #[inline(always)]
    unsafe fn coarse_and(coarse: Self::I, more: Self::I) -> Self::I {
        both!(|coarse, more| _mm256_add_epi32(_mm256_slli_epi32::<7>(coarse), more), coarse, more)
    }

    #[inline(always)]
    unsafe fn to_f32(value: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps, value)
    }

    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32 {
        unsafe {
            let integers = [_mm256_cvtps_epi32(value[0]), _mm256_cvtps_epi32(value[1])];
            let mut all = [0i32; 16];
            _mm256_storeu_si256(all.as_mut_ptr().cast(), integers[0]);
            _mm256_storeu_si256(all.as_mut_ptr().add(8).cast(), integers[1]);
            all.iter().enumerate().for_each(|(lane, &integer)| *to.add(lane) = integer as i8);
            all.iter().sum()
        }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self::B {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn low_nibbles(bytes: Self::B) -> Self::B {
        unsafe { bytes.map(|bytes| _mm256_and_si256(bytes, _mm256_set1_epi8(15))) }
    }

    #[inline(always)]
    unsafe fn high_nibbles(bytes: Self::B) -> Self::B {
        unsafe { bytes.map(|bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15))) }
    }

    #[inline(always)]
    unsafe fn add_16_where(bytes: Self::B, bits: *const u8) -> Self::B {
        unsafe {
            // Each byte gets the byte of `bits` that holds its bit, and looks at that bit.
            let spread = _mm256_setr_epi8(
                0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
            );
            let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let add = |bytes: __m256i, bits: i32| {
                let held = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), select);
                let set = _mm256_cmpeq_epi8(held, select);
                _mm256_or_si256(bytes, _mm256_and_si256(set, _mm256_set1_epi8(16)))
            };
            let bits = bits.cast::<i32>();
            [add(bytes[0], bits.read_unaligned()), add(bytes[1], bits.add(1).read_unaligned())]
        }
    }

    #[inline(always)]
    unsafe fn add_16_times<const FIELD: usize>(bytes: Self::B, pairs: Self::B) -> Self::B {
        unsafe {
            let add = |bytes: __m256i, pairs: __m256i| {
                let shifted = match FIELD {
                    0 => _mm256_slli_epi16::<4>(pairs),
                    1 => _mm256_slli_epi16::<2>(pairs),
                    2 => pairs,
                    _ => _mm256_srli_epi16::<2>(pairs),
                };
                _mm256_or_si256(bytes, _mm256_and_si256(shifted, _mm256_set1_epi8(0x30)))
            };
            [add(bytes[0], pairs[0]), add(bytes[1], pairs[1])]
        }
    }

    #[inline(always)]
    unsafe fn dot(sum: Self::I, bytes: Self::B, four: i32) -> Self::I {
        unsafe {
            // 2 * 127 * 127 fits i16, so the first instruction does not saturate.
            let four = _mm256_set1_epi32(four);
            let dot = |sum: __m256i, bytes: __m256i| {
                let pairs = _mm256_maddubs_epi16(bytes, four);
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            [dot(sum[0], bytes[0]), dot(sum[1], bytes[1])]
        }
    }

    #[inline(always)]
    unsafe fn start_minus_128(_total: i32) -> Self::I {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn dot_minus_128(sum: Self::I, bytes: Self::B, four: i32) -> Self::I {
        unsafe {
            // |a| * (b with the sign of a) is a * b; 2 * 128 * 127 still fits i16.
            let four = _mm256_set1_epi32(four);
            let dot = |sum: __m256i, bytes: __m256i| {
                let signed = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(four, signed));
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            [dot(sum[0], bytes[0]), dot(sum[1], bytes[1])]
        }
    }
}
