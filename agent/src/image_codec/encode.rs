//! Decode under limits, turn upright, downscale, encode as JPEG. Only pixels go through: EXIF, GPS and every other
//! piece of metadata stays behind.

use super::{ImageError, check_size};
use crate::views::Frame;
use bytes::Bytes;
use fast_image_resize::Resizer;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tether_policies::encoding::{Rung, ladder};
use tether_protocol::ViewName;
use tether_protocol::limits::MAX_IMAGE_PIXELS;
use tether_protocol::wire::{ImageFormat, ImageHeader};

/// What a decoder may allocate: the largest picture at 16 bits a channel, and as much again for its own tables.
const MAX_DECODE_BYTES: u64 = MAX_IMAGE_PIXELS * 8 * 2;

/// `[images]`: how pictures are encoded before they travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncodeOptions {
    /// The longer side is scaled down to this; smaller pictures keep their size. 32 to 4096. Vision models look at
    /// tiles of 336 to 768 pixels, so 768 loses little.
    pub max_side_px: u32,
    /// 1 to 100. At 80 artefacts are hard to see; the bytes about double from there to 95.
    pub jpeg_quality: u8,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { max_side_px: 768, jpeg_quality: 80 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeOptionsError {
    #[error("max_side_px is {0}: it must be 32 to 4096")]
    Side(u32),
    #[error("jpeg_quality is {0}: it must be 1 to 100")]
    Quality(u8),
}

impl EncodeOptions {
    /// These, and smaller ones for a slow link or few bytes; the largest first.
    pub fn ladder(&self) -> Vec<EncodeOptions> {
        let configured = Rung { max_side_px: self.max_side_px, jpeg_quality: self.jpeg_quality };
        let options = |Rung { max_side_px, jpeg_quality }| EncodeOptions { max_side_px, jpeg_quality };
        ladder(configured).into_iter().map(options).collect()
    }

    pub fn check(&self) -> Result<(), EncodeOptionsError> {
        if !(32..=4096).contains(&self.max_side_px) {
            return Err(EncodeOptionsError::Side(self.max_side_px));
        }
        if !(1..=100).contains(&self.jpeg_quality) {
            return Err(EncodeOptionsError::Quality(self.jpeg_quality));
        }
        Ok(())
    }
}

/// A picture as it travels: JPEG, upright, without metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Bytes,
    pub width: u32,
    pub height: u32,
}

impl Encoded {
    /// The announcement of this picture on the wire.
    pub fn header(&self, view: ViewName) -> ImageHeader {
        let byte_count = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        ImageHeader { view, format: ImageFormat::Jpeg, width: self.width, height: self.height, byte_count }
    }
}

/// Holds a frame's encoded forms, so that a frame which several turns send is encoded once in each.
#[derive(Debug, Default)]
pub struct EncodeSlot(Mutex<Vec<(EncodeOptions, Form)>>);

/// Whoever is first makes it, the others wait for it.
type Form = Arc<OnceLock<Result<Encoded, ImageError>>>;

/// Forms that are kept of one frame: a ladder's, and those of one before a reload.
const MAX_FORMS: usize = 8;

impl EncodeSlot {
    pub(crate) fn get(&self, options: &EncodeOptions) -> Option<Encoded> {
        self.form(options, false)?.get()?.clone().ok()
    }

    /// The place of this form; `None`: there is none, and none is to be made, or too many are.
    fn form(&self, options: &EncodeOptions, make: bool) -> Option<Form> {
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = forms.iter().find(|(made_with, _)| made_with == options).map(|(_, form)| form.clone());
        found.or_else(|| {
            (make && forms.len() < MAX_FORMS).then(|| {
                let form = Form::default();
                forms.push((*options, form.clone()));
                form
            })
        })
    }
}

/// The form of a frame that travels. Heavy: run it where blocking is allowed. Callers of the same frame wait for one
/// encoding.
pub fn prepare(frame: &Frame, options: &EncodeOptions) -> Result<Encoded, ImageError> {
    match frame.slot.form(options, true) {
        Some(form) => form.get_or_init(|| encode(frame, options)).clone(),
        None => encode(frame, options),
    }
}

/// Width and height after the longer side has been scaled down to `max_side_px`; never zero, never larger.
pub fn scaled(width: u32, height: u32, max_side_px: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= max_side_px {
        return (width, height);
    }
    let scale = |side: u32| {
        let exact = u64::from(side) * u64::from(max_side_px);
        ((exact + u64::from(longer) / 2) / u64::from(longer)).max(1) as u32
    };
    (scale(width), scale(height))
}

/// A guess at the encoded bytes before there is anything better: 0.25 bytes for each sent pixel at quality 80, 0.1
/// at 50, 0.4 at 95, which is the middle of what indoor camera pictures give without chroma subsampling. A plain wall
/// takes a fifth of it, foliage twice as much.
pub fn predict_bytes(width: u32, height: u32, options: &EncodeOptions) -> u64 {
    let (width, height) = scaled(width, height, options.max_side_px);
    let quality = f64::from(options.jpeg_quality) / 80.0;
    let bytes_per_pixel = 0.06 + 0.19 * quality.powi(3);
    (f64::from(width) * f64::from(height) * bytes_per_pixel) as u64 + HEADER_BYTES
}

/// Tables and headers of a baseline JPEG.
const HEADER_BYTES: u64 = 623;

fn encode(frame: &Frame, options: &EncodeOptions) -> Result<Encoded, ImageError> {
    let (image, orientation) = decode(frame)?;
    // Scaling first leaves the smaller picture to turn and to convert.
    let mut image = downscale(image, options.max_side_px)?;
    image.apply_orientation(orientation);
    let image = onto_white(image);
    let mut bytes = Vec::new();
    image
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, options.jpeg_quality))
        .map_err(|error| ImageError::Encode { problem: error.to_string() })?;
    Ok(Encoded { bytes: bytes.into(), width: image.width(), height: image.height() })
}

/// The picture's pixels at full size, turned upright. Heavy: run it where blocking is allowed.
pub fn upright(frame: &Frame) -> Result<RgbImage, ImageError> {
    let (mut image, orientation) = decode(frame)?;
    image.apply_orientation(orientation);
    Ok(onto_white(image))
}

fn decode(frame: &Frame) -> Result<(DynamicImage, image::metadata::Orientation), ImageError> {
    let damaged = |error: image::ImageError| ImageError::Damaged { format: frame.format, problem: error.to_string() };
    let format = match frame.format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Png => image::ImageFormat::Png,
    };
    let mut reader = ImageReader::with_format(Cursor::new(&frame.bytes[..]), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // The decoder may have found another size than `probe`; nothing has been allocated for it yet.
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    // Without a legible orientation the picture stays as it is.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(damaged)?, orientation))
}

fn downscale(image: DynamicImage, max_side_px: u32) -> Result<DynamicImage, ImageError> {
    let (width, height) = scaled(image.width(), image.height(), max_side_px);
    if (width, height) == (image.width(), image.height()) {
        return Ok(image);
    }
    let mut small = DynamicImage::new(width, height, image.color());
    let resized = Resizer::new().resize(&image, &mut small, None);
    resized.map_err(|error| ImageError::Encode { problem: error.to_string() })?;
    Ok(small)
}

/// JPEG has no transparency: what shows through is white.
fn onto_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0;
        let blend = |channel: u8| {
            let alpha = u32::from(alpha);
            ((u32::from(channel) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        image::Rgb([blend(r), blend(g), blend(b)])
    })
}
