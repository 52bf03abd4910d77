//! Three cameras of a small kitchen, drawn, so that the demo and the tests need no picture files. What is drawn is
//! plain enough to check an answer against: a red mug that moves along the counter, a stove whose ring glows.

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// The three cameras of the default configuration.
pub const CAMERAS: [&str; 3] = ["front", "side", "overhead"];

/// One camera's frame at a turn of the dialogue, as JPEG. Unknown cameras show a grey wall.
pub fn frame(camera: &str, turn: u32) -> Vec<u8> {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([176, 174, 170]));
    match camera {
        "front" => front(&mut picture, turn),
        "side" => side(&mut picture),
        "overhead" => overhead(&mut picture, turn),
        _ => {}
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&picture).expect("a JPEG fits in memory");
    bytes
}

/// A wooden counter under a white wall, with a red mug that is further to the right at each turn.
fn front(picture: &mut RgbImage, turn: u32) {
    rectangle(picture, 0, 0, WIDTH, 300, Rgb([236, 234, 228]));
    rectangle(picture, 0, 300, WIDTH, 180, Rgb([139, 90, 43]));
    let mug = 60 + (turn * 90) % 480;
    rectangle(picture, mug, 200, 90, 110, Rgb([200, 24, 24]));
    rectangle(picture, mug + 90, 225, 24, 50, Rgb([160, 20, 20]));
}

/// A blue door beside a fridge.
fn side(picture: &mut RgbImage) {
    rectangle(picture, 60, 40, 180, 440, Rgb([30, 64, 160]));
    rectangle(picture, 330, 20, 240, 460, Rgb([245, 245, 248]));
    rectangle(picture, 540, 200, 12, 90, Rgb([90, 90, 96]));
}

/// The black stove from above; its ring glows orange on odd turns.
fn overhead(picture: &mut RgbImage, turn: u32) {
    rectangle(picture, 80, 40, 480, 400, Rgb([24, 24, 26]));
    let glow = if turn % 2 == 1 { Rgb([255, 120, 16]) } else { Rgb([60, 60, 64]) };
    for (x, y) in [(220, 150), (420, 150), (220, 330), (420, 330)] {
        disc(picture, x, y, 62, if (x, y) == (220, 330) { glow } else { Rgb([60, 60, 64]) });
    }
}

fn rectangle(picture: &mut RgbImage, left: u32, top: u32, width: u32, height: u32, colour: Rgb<u8>) {
    for y in top..(top + height).min(HEIGHT) {
        for x in left..(left + width).min(WIDTH) {
            picture.put_pixel(x, y, colour);
        }
    }
}

fn disc(picture: &mut RgbImage, centre_x: u32, centre_y: u32, radius: u32, colour: Rgb<u8>) {
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let inside = x.abs_diff(centre_x).pow(2) + y.abs_diff(centre_y).pow(2) <= radius * radius;
        if inside {
            *pixel = colour;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mug_moves_and_the_door_does_not() {
        assert_ne!(frame("front", 0), frame("front", 1));
        assert_eq!(frame("side", 0), frame("side", 1));
        let picture = image::load_from_memory(&frame("overhead", 1)).unwrap();
        assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
    }
}
