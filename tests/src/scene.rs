//! Camera pictures with as much detail as real ones have, from arithmetic: a wall of noise at many scales, over which the
//! camera moves slowly, and the grain of its sensor.

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
/// Pixels that the camera moves from one turn to the next.
const STEP: u32 = 3;
/// Edge of the noise's coarsest squares; each finer one has half the contrast.
const COARSEST: u32 = 128;

/// What a camera of this seed sees at a turn, as JPEG.
///
/// # Panics
/// Never: a JPEG fits in memory.
pub fn frame(seed: u64, turn: u32) -> Vec<u8> {
    let mut grain = ChaCha8Rng::seed_from_u64(seed ^ u64::from(turn).rotate_left(32));
    let picture = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let shade = 128.0 + 100.0 * wall(seed, x + turn * STEP, y) + grain.random_range(-4.0..4.0);
        let shade = shade.clamp(0.0, 255.0);
        Rgb([shade as u8, (shade * 0.9) as u8, (40.0 + shade * 0.7) as u8])
    });
    jpeg(&picture)
}

/// One shade, of which a JPEG makes next to nothing.
///
/// # Panics
/// Never: a JPEG fits in memory.
pub fn flat() -> Vec<u8> {
    jpeg(&RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([120; 3])))
}

/// Chance in every pixel, of which a JPEG makes as much as of any picture.
///
/// # Panics
/// Never: a JPEG fits in memory.
pub fn noise(seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    jpeg(&RgbImage::from_fn(768, 768, |_, _| Rgb(random.random())))
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(picture).expect("a JPEG fits in memory");
    bytes
}

/// -1..1.
fn wall(seed: u64, x: u32, y: u32) -> f32 {
    let (mut square, mut contrast, mut sum) = (COARSEST, 0.5, 0.0);
    while square >= 4 {
        sum += contrast * smooth(seed.wrapping_add(u64::from(square)), x, y, square);
        square /= 2;
        contrast *= 0.5;
    }
    sum
}

/// Noise at the corners of squares, and between them in proportion.
fn smooth(seed: u64, x: u32, y: u32, square: u32) -> f32 {
    let (column, row) = (x / square, y / square);
    let (across, down) = ((x % square) as f32 / square as f32, (y % square) as f32 / square as f32);
    let at = |column, row| corner(seed, column, row);
    let top = at(column, row) * (1.0 - across) + at(column + 1, row) * across;
    let bottom = at(column, row + 1) * (1.0 - across) + at(column + 1, row + 1) * across;
    top * (1.0 - down) + bottom * down
}

fn corner(seed: u64, column: u32, row: u32) -> f32 {
    let mut hash = seed ^ (u64::from(column) << 32 | u64::from(row)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 32;
    (hash & 0xffff) as f32 / 32_767.5 - 1.0
}
