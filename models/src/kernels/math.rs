//! Functions of vectors, and of rows of any length.
#![expect(unsafe_code, reason = "generic over the instruction set; callers promise what `Simd` asks for")]

use super::simd::{LANES, Simd};

/// The non-linearity of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
}

/// `e^x`, within 2 units in the last place; x is held to -87.3 to 88.3, so the result is never 0 or infinite.
///
/// Cody and Waite's reduction by powers of two, then a polynomial on ±ln(2)/2 (the coefficients of Cephes' `expf`).
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    unsafe {
        let constant = |value: f32| S::splat(value);
        let x = S::max(S::min(x, constant(88.3)), constant(-87.3));
        // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
        let shift = constant(12_582_912.0);
        let shifted = S::add(S::mul(x, constant(std::f32::consts::LOG2_E)), shift);
        let n = S::sub(shifted, shift);
        let r = S::sub(S::sub(x, S::mul(n, constant(0.693_359_4))), S::mul(n, constant(-2.121_944_4e-4)));
        let mut p = constant(1.987_569_1e-4);
        for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
            p = S::add(S::mul(p, r), constant(coefficient));
        }
        let p = S::add(S::add(S::mul(p, S::mul(r, r)), r), constant(1.0));
        S::mul(p, S::exp2_of_shifted(shifted))
    }
}

#[inline(always)]
unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    unsafe { S::div(x, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), x)))) }
}

/// `tanh(y) = 1 - 2 / (e^2y + 1)`.
#[inline(always)]
unsafe fn gelu_tanh<S: Simd>(x: S::F) -> S::F {
    unsafe {
        let one = S::splat(1.0);
        let cubic = S::add(one, S::mul(S::mul(S::splat(0.044_715), x), x));
        // 2 * sqrt(2 / pi)
        let twice = S::mul(S::mul(S::splat(1.595_769), x), cubic);
        let tanh = S::sub(one, S::div(S::splat(2.0), S::add(exp::<S>(twice), one)));
        S::mul(S::mul(S::splat(0.5), x), S::add(one, tanh))
    }
}

/// `activation(gate) * up`.
#[inline(always)]
pub(super) unsafe fn gate<S: Simd>(activation: Activation, gate: S::F, up: S::F) -> S::F {
    unsafe {
        let activated = match activation {
            Activation::Silu => silu::<S>(gate),
            Activation::GeluTanh => gelu_tanh::<S>(gate),
        };
        S::mul(activated, up)
    }
}

/// The sum of all lanes, always in the same order.
#[inline(always)]
pub(super) unsafe fn sum<S: Simd>(value: S::F) -> f32 {
    let mut lanes = [0.0f32; LANES];
    unsafe { S::store(lanes.as_mut_ptr(), value) };
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

#[inline(always)]
pub(super) unsafe fn greatest<S: Simd>(value: S::F) -> f32 {
    let mut lanes = [0.0f32; LANES];
    unsafe { S::store(lanes.as_mut_ptr(), value) };
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = if lanes[lane] > lanes[lane + width] { lanes[lane] } else { lanes[lane + width] };
        }
    }
    lanes[0]
}

/// Sixteen numbers from `row`, from `at` on; zeros past its end.
#[inline(always)]
pub(super) unsafe fn load_part<S: Simd>(row: &[f32], at: usize) -> S::F {
    unsafe {
        if at + LANES <= row.len() {
            return S::load(row.as_ptr().add(at));
        }
        let mut lanes = [0.0; LANES];
        lanes[..row.len() - at].copy_from_slice(&row[at..]);
        S::load(lanes.as_ptr())
    }
}

/// The reverse of [`load_part`].
#[inline(always)]
pub(super) unsafe fn store_part<S: Simd>(row: &mut [f32], at: usize, value: S::F) {
    unsafe {
        if at + LANES <= row.len() {
            return S::store(row.as_mut_ptr().add(at), value);
        }
        let mut lanes = [0.0; LANES];
        S::store(lanes.as_mut_ptr(), value);
        let rest = row.len() - at;
        row[at..].copy_from_slice(&lanes[..rest]);
    }
}

/// `to = x / rms(x) * weight` (Zhang and Sennrich, 2019).
#[inline(always)]
pub(super) unsafe fn rms_norm<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) {
    unsafe {
        let mut squares = S::splat(0.0);
        for at in (0..x.len()).step_by(LANES) {
            let value = load_part::<S>(x, at);
            squares = S::add(squares, S::mul(value, value));
        }
        let mean_square = sum::<S>(squares) / x.len() as f32;
        let scale = S::splat(1.0 / (mean_square + epsilon).sqrt());
        for at in (0..x.len()).step_by(LANES) {
            let value = S::mul(load_part::<S>(x, at), S::mul(scale, load_part::<S>(weight, at)));
            store_part::<S>(to, at, value);
        }
    }
}
