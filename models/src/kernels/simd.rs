//! Sixteen lanes of arithmetic, in three instruction sets. The kernels are written once over [`Simd`]; every operation
//! rounds the same way in each set, and products are never fused with sums, so all sets give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
pub(super) use portable::Portable;

/// Lanes of a vector of f32 or i32.
pub(super) const LANES: usize = 16;

/// # Safety
/// Every method needs the instruction set of its type: a caller is either compiled for it or has found it at run time.
/// Pointers must be valid for the whole vector: 16 f32 (64 bytes), 16 f16 (32 bytes) or 64 bytes.
pub(super) trait Simd {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 64 × u8: four for each of the 16 lanes.
    type B: Copy;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Rounds to the nearest, ties to even; what is too large becomes infinite.
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b` in each lane.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b` in each lane.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// `2^n` from `n + 1.5 * 2^23`, a float whose lowest bits are the integer `n` of -126 to 127.
    unsafe fn exp2_of_shifted(shifted: Self::F) -> Self::F;

    unsafe fn splat_i32(value: i32) -> Self::I;
    /// `128 * coarse + more`: see `FINE_BITS`.
    unsafe fn coarse_and(coarse: Self::I, more: Self::I) -> Self::I;
    unsafe fn to_f32(value: Self::I) -> Self::F;
    /// Writes 16 integers of -128 to 127, each the nearest (ties to even) to a lane, and returns their sum.
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32;

    /// Asks for the cache line at `from`, which may be any address.
    unsafe fn prefetch(from: *const u8);
    unsafe fn bytes(from: *const u8) -> Self::B;
    unsafe fn low_nibbles(bytes: Self::B) -> Self::B;
    unsafe fn high_nibbles(bytes: Self::B) -> Self::B;
    /// Adds 16 to each byte whose bit is set in the 64 bits at `bits`.
    unsafe fn add_16_where(bytes: Self::B, bits: *const u8) -> Self::B;
    /// Adds 16 times the two bits at `2 * FIELD` of each byte of `pairs`.
    unsafe fn add_16_times<const FIELD: usize>(bytes: Self::B, pairs: Self::B) -> Self::B;

    /// Adds to each lane the product of its four bytes, at most 127 each, with the four signed bytes of `four`, none -128.
    unsafe fn dot(sum: Self::I, bytes: Self::B, four: i32) -> Self::I;
    /// What belongs to a sum over [`dot_minus_128`](Self::dot_minus_128) whose signed bytes sum up to `total`.
    unsafe fn start_minus_128(total: i32) -> Self::I;
    /// As `dot`, with any bytes, each less 128.
    unsafe fn dot_minus_128(sum: Self::I, bytes: Self::B, four: i32) -> Self::I;
}
