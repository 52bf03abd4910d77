//! Pictures at and beyond every limit.

use super::testing::{jpeg, picture, png};
use super::*;
use crate::views::Frame;
use bytes::Bytes;
use image::{ImageReader, Rgba, RgbaImage};
use proptest::prelude::*;
use std::io::Cursor;
use std::sync::Arc;

fn frame(bytes: Bytes) -> Frame {
    Frame::new("front", bytes, 0).unwrap()
}

/// The signature and the header chunk of a PNG, and nothing behind them: what a bomb announces.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &size, &[8, 2, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// The same JPEG with an EXIF segment: orientation 6 (turn right), and a text that must not travel.
fn with_exif(bytes: &[u8]) -> Bytes {
    let tiff = [
        &b"Exif\0\0II*\0\x08\0\0\0\x02\0"[..],
        &[0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0],
        &[0x0e, 0x01, 2, 0, 12, 0, 0, 0, 38, 0, 0, 0],
        &b"\0\0\0\0GPS-SECRET!\0"[..],
    ]
    .concat();
    let length = (tiff.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xFF, 0xE1], &length, &tiff, &bytes[2..]].concat().into()
}

fn decoded(encoded: &Encoded) -> image::RgbImage {
    ImageReader::with_format(Cursor::new(&encoded.bytes), image::ImageFormat::Jpeg).decode().unwrap().into_rgb8()
}

#[test]
fn both_formats_are_recognised_by_their_bytes() {
    let info = |format, width, height| ImageInfo { format, width, height };
    assert_eq!(probe(&jpeg(64, 48)).unwrap(), info(ImageFormat::Jpeg, 64, 48));
    assert_eq!(probe(&png(picture(64, 48))).unwrap(), info(ImageFormat::Png, 64, 48));
}

#[test]
fn a_bomb_is_refused_from_its_header_alone() {
    // 50 megapixels in 33 bytes.
    assert_eq!(probe(&png_header(10_000, 5_000)), Err(ImageError::TooManyPixels { width: 10_000, height: 5_000 }));
    assert!(matches!(probe(&png_header(u32::MAX, u32::MAX)), Err(ImageError::TooManyPixels { .. })));
    assert!(matches!(probe(&png_header(0, 5)), Err(ImageError::NoPixels { .. })));
    let bomb = png(image::GrayImage::new(10_000, 5_000));
    assert!(bomb.len() < 1_000_000, "a real one, well compressed: {}", bomb.len());
    assert!(matches!(Frame::new("front", bomb, 0), Err(ImageError::TooManyPixels { .. })));
}

#[test]
fn the_pixel_limit_holds_exactly() {
    let wide = (MAX_IMAGE_PIXELS / 4_000) as u32;
    assert!(matches!(probe(&png_header(wide, 4_000)), Err(ImageError::Truncated { .. })), "the size alone is legal");
    assert!(matches!(probe(&png_header(wide + 1, 4_000)), Err(ImageError::TooManyPixels { .. })));
}

#[test]
fn the_byte_limit_holds_exactly() {
    // What stands behind the end of a JPEG is padding, as some cameras add it.
    let padded = |bytes: usize| {
        let mut picture = jpeg(16, 16).to_vec();
        picture.resize(bytes, 0);
        picture
    };
    assert!(probe(&padded(MAX_IMAGE_BYTES)).is_ok());
    assert_eq!(probe(&padded(MAX_IMAGE_BYTES + 1)), Err(ImageError::TooManyBytes { given: MAX_IMAGE_BYTES + 1 }));
}

#[test]
fn a_wrong_magic_number_is_named() {
    let error = probe(b"GIF89a..").unwrap_err();
    assert_eq!(error.to_string(), "the image is neither JPEG nor PNG: it begins with 47 49 46 38 39 61 2e 2e");
    assert!(probe(b"").unwrap_err().to_string().contains("no bytes"));
}

#[test]
fn every_truncation_is_an_error() {
    for whole in [jpeg(40, 30), with_exif(&jpeg(40, 30)), png(picture(20, 10))] {
        for length in 0..whole.len() {
            let error = probe(&whole[..length]).expect_err("cut short");
            let named = matches!(error, ImageError::Truncated { .. } | ImageError::WrongMagic { .. });
            assert!(named, "{length} of {}: {error}", whole.len());
        }
    }
}

#[test]
fn damage_behind_the_header_is_an_error_of_decoding() {
    let mut bytes = png(picture(64, 48)).to_vec();
    let data = bytes.windows(4).position(|four| four == b"IDAT").unwrap() + 4;
    bytes[data..data + 8].fill(0xA5);
    let error = prepare(&frame(bytes.into()), &EncodeOptions::default()).unwrap_err();
    assert!(matches!(error, ImageError::Damaged { format: ImageFormat::Png, .. }), "{error}");
}

#[test]
fn what_travels_is_scaled_upright_and_without_metadata() {
    let bytes = with_exif(&jpeg(400, 200));
    assert!(bytes.windows(10).any(|ten| ten == b"GPS-SECRET"));
    let encoded = prepare(&frame(bytes), &EncodeOptions { max_side_px: 100, jpeg_quality: 80 }).unwrap();
    assert_eq!((encoded.width, encoded.height), (50, 100), "turned by a quarter");
    assert_eq!(probe(&encoded.bytes).unwrap().height, 100);
    assert!(!encoded.bytes.windows(3).any(|three| three == b"GPS" || three == b"Exi"));
    // Left is dark in the red channel before; after turning right that side is on top.
    let pixels = decoded(&encoded);
    assert!(pixels.get_pixel(2, 2).0[0] < 60 && pixels.get_pixel(2, 97).0[0] > 190);
}

#[test]
fn transparency_becomes_white() {
    let mut image = RgbaImage::from_pixel(32, 32, Rgba([255, 0, 0, 255]));
    for y in 0..16 {
        for x in 0..32 {
            image.put_pixel(x, y, Rgba([0, 0, 0, 0]));
        }
    }
    let pixels = decoded(&prepare(&frame(png(image)), &EncodeOptions::default()).unwrap());
    assert!(pixels.get_pixel(16, 4).0.iter().all(|channel| *channel > 245));
    let [red, green, _] = pixels.get_pixel(16, 28).0;
    assert!(red > 245 && green < 12);
}

#[test]
fn every_pixel_type_of_png_can_travel() {
    let image = image::DynamicImage::ImageRgb8(picture(300, 200));
    let options = EncodeOptions { max_side_px: 96, ..EncodeOptions::default() };
    for image in [
        image.to_luma8().into(),
        image.to_luma_alpha8().into(),
        image.to_rgba8().into(),
        image.to_luma16().into(),
        image.to_luma_alpha16().into(),
        image.to_rgb16().into(),
        image::DynamicImage::ImageRgba16(image.to_rgba16()),
    ] {
        let kind = image.color();
        let encoded = prepare(&frame(png(image)), &options).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!((encoded.width, encoded.height), (96, 64), "{kind:?}");
    }
}

#[test]
fn a_frame_is_encoded_once_however_many_ask() {
    let frame = Arc::new(frame(jpeg(320, 240)));
    let options = EncodeOptions::default();
    let bytes: Vec<Bytes> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| prepare(&frame, &options).unwrap().bytes)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // The very same buffer, not an equal one.
    assert!(bytes.iter().all(|other| other.as_ptr() == bytes[0].as_ptr()));
    // Another form is kept beside it, and no more than a few are.
    let other = |jpeg_quality| EncodeOptions { jpeg_quality, ..options };
    assert!(prepare(&frame, &other(30)).unwrap().bytes.len() < bytes[0].len());
    assert!(frame.encoded(&other(30)).is_some() && frame.encoded(&options).is_some());
    (40..50).for_each(|quality| assert!(prepare(&frame, &other(quality)).is_ok()));
    assert_eq!(frame.encoded(&other(49)), None);
}

#[test]
fn the_prediction_is_of_the_right_order() {
    for quality in [50, 80, 95] {
        let options = EncodeOptions { jpeg_quality: quality, ..EncodeOptions::default() };
        let sent = prepare(&frame(jpeg(640, 480)), &options).unwrap().bytes.len() as f64;
        let ratio = predict_bytes(640, 480, &options) as f64 / sent;
        assert!((0.2..20.0).contains(&ratio), "quality {quality}: predicted {ratio:.1} times the {sent} bytes sent");
    }
}

#[test]
fn options_are_checked_at_their_limits() {
    let check = |max_side_px, jpeg_quality| EncodeOptions { max_side_px, jpeg_quality }.check();
    assert!(check(32, 1).is_ok() && check(4_096, 100).is_ok());
    assert!(check(31, 80).is_err() && check(4_097, 80).is_err() && check(768, 0).is_err() && check(768, 101).is_err());
}

proptest! {
    #[test]
    fn scaling_keeps_the_shape_and_the_limit(width in 1u32..70_000, height in 1u32..70_000, side in 32u32..=4_096) {
        let (w, h) = scaled(width, height, side);
        prop_assert!(w >= 1 && h >= 1 && w <= width && h <= height && w.max(h) == side.min(width.max(height)));
        let error = (f64::from(w) * f64::from(height) - f64::from(h) * f64::from(width)).abs();
        prop_assert!(w == 1 || h == 1 || error <= f64::from(width.max(height)));
    }

    #[test]
    fn hostile_bytes_never_panic(seed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), png_too: bool) {
        let mut bytes = if png_too { png(picture(12, 9)).to_vec() } else { with_exif(&jpeg(24, 16)).to_vec() };
        for (index, byte) in seed {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(frame) = Frame::new("front", bytes.into(), 0) {
            let _ = prepare(&frame, &EncodeOptions::default());
        }
    }
}
