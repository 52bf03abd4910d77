//! One image, measured.

use super::colour::Colour;
use super::motion::Thumbnail;
use image::{DynamicImage, GrayImage, ImageReader, Limits, RgbImage, imageops};
use std::io::Cursor;
use tether_protocol::limits::MAX_IMAGE_PIXELS;
use tether_protocol::wire::ImageFormat;

/// Side of the copy whose pixels are counted by colour, and of the one whose edges are measured.
const COLOUR_SIDE: u32 = 64;
const EDGE_SIDE: u32 = 512;
/// Colours named at most, and the share from which one is worth naming.
const MAX_COLOURS: usize = 3;
const MIN_PERCENT: u32 = 5;
/// Bytes that decoding may take: the largest legal image with 16 bits a channel.
const MAX_DECODE_BYTES: u64 = MAX_IMAGE_PIXELS * 8;

/// What can be told of an image without recognising anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub width: u32,
    pub height: u32,
    /// The commonest colours with their share in percent, largest first; never empty.
    pub colours: Vec<(Colour, u32)>,
    pub brightness: Brightness,
    pub sharpness: Sharpness,
    pub thumbnail: Thumbnail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brightness {
    VeryDark,
    Dark,
    Medium,
    Bright,
    VeryBright,
}

impl Brightness {
    fn of(mean_luma: f32) -> Self {
        match mean_luma {
            luma if luma < 35.0 => Self::VeryDark,
            luma if luma < 85.0 => Self::Dark,
            luma if luma < 170.0 => Self::Medium,
            luma if luma < 220.0 => Self::Bright,
            _ => Self::VeryBright,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::VeryDark => "very dark",
            Self::Dark => "dark",
            Self::Medium => "medium bright",
            Self::Bright => "bright",
            Self::VeryBright => "very bright",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharpness {
    Sharp,
    Soft,
    Blurred,
    /// Too little contrast to tell: a lens cap, a wall.
    Featureless,
}

impl Sharpness {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sharp => "sharp",
            Self::Soft => "slightly blurred",
            Self::Blurred => "blurred",
            Self::Featureless => "without detail",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisionError {
    #[error("it is not the {0} that was announced")]
    Format(&'static str),
    #[error("it has {width}x{height} pixels, at most {MAX_IMAGE_PIXELS} are allowed")]
    TooManyPixels { width: u32, height: u32 },
    #[error("it cannot be decoded: {0}")]
    Decode(String),
}

/// Decodes under limits and measures. Takes tens of milliseconds for a camera image.
pub fn measure(bytes: &[u8], format: ImageFormat) -> Result<Measurement, VisionError> {
    let image = decode(bytes, format)?;
    let (width, height) = (image.width(), image.height());
    let luma = shrink_luma(&image);
    Ok(Measurement {
        width,
        height,
        colours: colours(&imageops::thumbnail(&image.to_rgb8(), COLOUR_SIDE, COLOUR_SIDE)),
        brightness: Brightness::of(mean(&luma)),
        sharpness: sharpness(&luma),
        thumbnail: Thumbnail::of(&luma),
    })
}

fn decode(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, VisionError> {
    let (format, name) = match format {
        ImageFormat::Jpeg => (image::ImageFormat::Jpeg, "JPEG"),
        ImageFormat::Png => (image::ImageFormat::Png, "PNG"),
    };
    if image::guess_format(bytes).ok() != Some(format) {
        return Err(VisionError::Format(name));
    }
    let problem = |error: image::ImageError| VisionError::Decode(error.to_string());
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(problem)?;
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
        return Err(VisionError::TooManyPixels { width, height });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    reader.decode().map_err(problem)
}

/// A grey copy of at most [`EDGE_SIDE`] a side, in the image's own proportions.
fn shrink_luma(image: &DynamicImage) -> GrayImage {
    let longest = image.width().max(image.height());
    let luma = image.to_luma8();
    if longest <= EDGE_SIDE {
        return luma;
    }
    let side = |pixels: u32| (u64::from(pixels) * u64::from(EDGE_SIDE) / u64::from(longest)).max(1) as u32;
    imageops::thumbnail(&luma, side(image.width()), side(image.height()))
}

fn colours(image: &RgbImage) -> Vec<(Colour, u32)> {
    let mut counts = [0u32; Colour::ALL.len()];
    for pixel in image.pixels() {
        counts[Colour::of(pixel.0) as usize] += 1;
    }
    let all = image.width() * image.height();
    let mut shares: Vec<(Colour, u32)> =
        Colour::ALL.into_iter().map(|colour| (colour, (counts[colour as usize] * 100 + all / 2) / all)).collect();
    shares.sort_by_key(|&(_, percent)| std::cmp::Reverse(percent));
    let commonest = shares[0];
    let mut named: Vec<_> = shares.into_iter().take(MAX_COLOURS).filter(|share| share.1 >= MIN_PERCENT).collect();
    if named.is_empty() {
        named.push(commonest);
    }
    named
}

fn mean(luma: &GrayImage) -> f32 {
    let sum: u64 = luma.as_raw().iter().map(|&value| u64::from(value)).sum();
    sum as f32 / luma.as_raw().len().max(1) as f32
}

/// How steep the steepest edges are for the image's contrast. A step between neighbours that spans the whole
/// contrast is 1; a blur of sigma pixels leaves 0.4 / sigma of it.
fn sharpness(luma: &GrayImage) -> Sharpness {
    const FEATURELESS_CONTRAST: usize = 12;
    let mut levels = [0usize; 256];
    luma.as_raw().iter().for_each(|&value| levels[usize::from(value)] += 1);
    let contrast = percentile(&levels, 0.99) - percentile(&levels, 0.01);
    if contrast < FEATURELESS_CONTRAST {
        return Sharpness::Featureless;
    }
    let mut steps = [0usize; 256];
    let (width, height) = luma.dimensions();
    for (y, row) in (0..height).map(|y| (y as usize, &luma.as_raw()[(y * width) as usize..((y + 1) * width) as usize]))
    {
        row.windows(2).for_each(|pair| steps[usize::from(pair[0].abs_diff(pair[1]))] += 1);
        if y > 0 {
            let above = &luma.as_raw()[(y - 1) * width as usize..y * width as usize];
            row.iter().zip(above).for_each(|(a, b)| steps[usize::from(a.abs_diff(*b))] += 1);
        }
    }
    match percentile(&steps, 0.999) as f32 / contrast as f32 {
        steepness if steepness >= 0.3 => Sharpness::Sharp,
        steepness if steepness >= 0.13 => Sharpness::Soft,
        _ => Sharpness::Blurred,
    }
}

/// The level below which this share of the counted values lies.
fn percentile(counts: &[usize; 256], share: f64) -> usize {
    let wanted = (counts.iter().sum::<usize>() as f64 * share).ceil() as usize;
    let mut seen = 0;
    counts
        .iter()
        .position(|&count| {
            seen += count;
            seen >= wanted
        })
        .unwrap_or(255)
}
