//! The one hash of text features, in the router's encoder and in the text models.

/// FNV-1a with a final mix, so that the low bits (bucket) and bit 40 (sign) are independent. Features of different
/// families never mean the same bucket by design.
pub(crate) fn hash(bytes: &[u8], family: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ family.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut hash = bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}

/// The sign that a feature's hash gives it (a count sketch: collisions cancel in the mean).
pub(crate) fn sign(hash: u64) -> f32 {
    if hash >> 40 & 1 == 1 { 1.0 } else { -1.0 }
}
