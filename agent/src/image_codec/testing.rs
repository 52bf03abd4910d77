//! Pictures for tests, made from arithmetic.

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, Rgb, RgbImage};

/// A smooth gradient with a bright disc: something that JPEG neither loves nor hates.
pub(crate) fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (i64::from(x) - i64::from(width / 2), i64::from(y) - i64::from(height / 2));
        let disc = dx * dx + dy * dy < (i64::from(width.min(height)) / 4).pow(2);
        let shade = |side: u32, at: u32| (u64::from(at) * 255 / u64::from(side.max(1))) as u8;
        if disc { Rgb([250, 240, 60]) } else { Rgb([shade(width, x), shade(height, y), 90]) }
    })
}

pub(crate) fn jpeg(width: u32, height: u32) -> Bytes {
    let mut bytes = Vec::new();
    picture(width, height).write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
    bytes.into()
}

pub(crate) fn png(image: impl Into<DynamicImage>) -> Bytes {
    let mut bytes = Vec::new();
    image.into().write_with_encoder(PngEncoder::new(&mut bytes)).unwrap();
    bytes.into()
}
