//! Golden descriptions of drawn images, and properties.

use super::*;
use image::{DynamicImage, ImageFormat as Encoding, Rgb, RgbImage};
use proptest::prelude::*;
use std::io::Cursor;
use tether_protocol::limits::MAX_IMAGE_PIXELS;
use tether_protocol::wire::ImageFormat;

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image.clone()).write_to(&mut bytes, Encoding::Png).unwrap();
    bytes.into_inner()
}

/// A grey table with a red square whose upper left corner is given.
fn table(x: u32, y: u32) -> RgbImage {
    RgbImage::from_fn(320, 240, |column, row| {
        let inside = (x..x + 80).contains(&column) && (y..y + 80).contains(&row);
        if inside { Rgb([210, 20, 30]) } else { Rgb([120, 120, 120]) }
    })
}

fn front() -> ViewName {
    ViewName::new("front").unwrap()
}

#[test]
fn golden_description_with_motion() {
    let before = measure(&png(&table(0, 0)), ImageFormat::Png).unwrap();
    let after = measure(&png(&table(240, 160)), ImageFormat::Png).unwrap();
    assert_eq!(
        describe(&front(), &before, None),
        "[Image of view front, measured: 320x240 pixels; colours grey 91 %, red 9 %; medium bright; sharp.]"
    );
    let seen = (after.thumbnail.changes_since(&before.thumbnail), Duration::from_millis(2_140));
    assert_eq!(
        describe(&front(), &after, Some(&seen)),
        "[Image of view front, measured: 320x240 pixels; colours grey 91 %, red 9 %; medium bright; sharp. \
         Since the frame 2.1 s before: 17 % of the image changed, in several places.]"
    );
}

#[test]
fn a_thing_that_moves_a_little_is_found_where_it_is() {
    let before = measure(&png(&table(220, 10)), ImageFormat::Png).unwrap();
    let after = measure(&png(&table(200, 10)), ImageFormat::Png).unwrap();
    let seen = (after.thumbnail.changes_since(&before.thumbnail), Duration::from_millis(90));
    let said = describe(&front(), &after, Some(&seen));
    assert!(
        said.ends_with("Since the frame 0.1 s before: 4 % of the image changed, around the upper right.]"),
        "{said}"
    );
}

#[test]
fn blur_is_told_from_sharp_and_both_from_nothing() {
    let sharpness = |image: &RgbImage| measure(&png(image), ImageFormat::Png).unwrap().sharpness;
    let blurred = |sigma: f32| image::imageops::blur(&table(100, 80), sigma);
    assert_eq!(sharpness(&table(100, 80)), Sharpness::Sharp);
    assert_eq!(sharpness(&blurred(2.0)), Sharpness::Soft);
    assert_eq!(sharpness(&blurred(8.0)), Sharpness::Blurred);
    assert_eq!(sharpness(&RgbImage::from_pixel(64, 64, Rgb([90, 90, 92]))), Sharpness::Featureless);
}

#[test]
fn brightness_has_its_word() {
    for (luma, word) in [(5, "very dark"), (60, "dark"), (128, "medium bright"), (200, "bright"), (250, "very bright")]
    {
        let image = measure(&png(&RgbImage::from_pixel(8, 8, Rgb([luma; 3]))), ImageFormat::Png).unwrap();
        assert_eq!(image.brightness.as_str(), word, "{luma}");
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let good = png(&table(0, 0));
    assert_eq!(measure(&good, ImageFormat::Jpeg), Err(VisionError::Format("JPEG")));
    assert_eq!(measure(b"", ImageFormat::Png), Err(VisionError::Format("PNG")));
    assert!(matches!(measure(&good[..good.len() / 2], ImageFormat::Png), Err(VisionError::Decode(_))));
}

/// A PNG header that claims a size, without the pixels: refused before anything is allocated.
#[test]
fn a_bomb_is_refused_by_its_header() {
    let mut bomb = png(&RgbImage::new(1, 1));
    bomb[16..20].copy_from_slice(&10_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&5_000u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = measure(&bomb, ImageFormat::Png).unwrap_err();
    assert_eq!(error, VisionError::TooManyPixels { width: 10_000, height: 5_000 });
    assert!(error.to_string().contains(&MAX_IMAGE_PIXELS.to_string()));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_small_image_is_measured(width in 1u32..40, height in 1u32..40, seed in any::<u32>()) {
        let noise = |x: u32, y: u32| (x * 7919 + y * 104_729).wrapping_mul(seed | 1);
        let image = RgbImage::from_fn(width, height, |x, y| Rgb(noise(x, y).to_le_bytes()[..3].try_into().unwrap()));
        let measured = measure(&png(&image), ImageFormat::Png).unwrap();
        prop_assert_eq!((measured.width, measured.height), (width, height));
        prop_assert!(measured.colours.iter().map(|colour| colour.1).sum::<u32>() <= 102);
        let motion = measured.thumbnail.changes_since(&measured.thumbnail);
        prop_assert_eq!((motion.changed_percent, motion.place), (0, None));
        prop_assert!(describe(&front(), &measured, None).len() < 200);
    }

    #[test]
    fn broken_files_are_errors(cut in 0usize..400, flip in 0usize..400) {
        let good = png(&table(10, 10));
        let mut bad = good[..cut.min(good.len() - 1)].to_vec();
        prop_assert!(measure(&bad, ImageFormat::Png).is_err());
        bad = good.clone();
        let at = flip % bad.len();
        bad[at] ^= 0x55;
        let _ = measure(&bad, ImageFormat::Png);
    }
}
