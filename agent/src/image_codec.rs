//! Pictures under limits: checked from the header before decoding, downscaled and re-encoded before they travel.
//!
//! [`probe`] is quick and allocates nothing. [`prepare`] is heavy (tens of milliseconds for a camera frame, about a
//! second at the limit), so callers run it where blocking is allowed.

mod encode;
mod header;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use encode::{EncodeOptions, EncodeOptionsError, EncodeSlot, Encoded, predict_bytes, prepare, scaled, upright};
pub use header::probe;

use tether_protocol::limits::{MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS};
use tether_protocol::wire::ImageFormat;

/// What the header tells. `width` and `height` are in pixels as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    pub format: ImageFormat,
    pub width: u32,
    pub height: u32,
}

/// What is wrong with a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("the image has {given} bytes, at most {MAX_IMAGE_BYTES} are allowed")]
    TooManyBytes { given: usize },
    #[error("the image is neither JPEG nor PNG: it begins with {begins}")]
    WrongMagic { begins: String },
    #[error("the {} is cut short: {missing}", .format.as_str())]
    Truncated { format: ImageFormat, missing: &'static str },
    #[error("the image is {width} x {height} pixels, at most {MAX_IMAGE_PIXELS} pixels in all are allowed")]
    TooManyPixels { width: u32, height: u32 },
    #[error("the image is {width} x {height} pixels: nothing to see")]
    NoPixels { width: u32, height: u32 },
    #[error("the {} is damaged: {problem}", .format.as_str())]
    Damaged { format: ImageFormat, problem: String },
    #[error("the image could not be re-encoded: {problem}")]
    Encode { problem: String },
}

/// The pixel limits; an image that passes may be decoded.
fn check_size(width: u32, height: u32) -> Result<(), ImageError> {
    match u64::from(width) * u64::from(height) {
        0 => Err(ImageError::NoPixels { width, height }),
        pixels if pixels > MAX_IMAGE_PIXELS => Err(ImageError::TooManyPixels { width, height }),
        _ => Ok(()),
    }
}
