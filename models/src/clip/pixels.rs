//! From a picture to what CLIP's vision tower takes, as the published preprocessing does it.

use crate::error::ModelError;
use candle_core::{Device, Tensor};
use image::RgbImage;
use image::imageops::{FilterType, crop_imm, resize};

/// Mean and standard deviation of the colours that CLIP was trained on, red, green, blue.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// A picture that is so much longer than wide would be scaled to a ribbon of many gigabytes.
const MAX_ASPECT: u32 = 64;

/// [3, side, side]: shorter side scaled to `side` (bicubic), middle square, colours normalised.
pub(super) fn tensor(image: &RgbImage, side: usize) -> Result<Tensor, ModelError> {
    let square = square(image, u32::try_from(side).unwrap_or(u32::MAX))?;
    let values = (0..3).flat_map(|channel| {
        square.pixels().map(move |pixel| (f32::from(pixel[channel]) / 255.0 - MEAN[channel]) / DEVIATION[channel])
    });
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((3, side, side))?)
}

fn square(image: &RgbImage, side: u32) -> Result<RgbImage, ModelError> {
    let (width, height) = image.dimensions();
    let (short, long) = (width.min(height), width.max(height));
    if short == 0 || long / short > MAX_ASPECT {
        let problem = format!("{width} x {height} pixels: no side may be more than {MAX_ASPECT} times the other");
        return Err(ModelError::Parameter { parameter: "image", problem });
    }
    // The longer side is cut down to whole pixels, as in torchvision.
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(short)) as u32;
    let (width, height) = (scaled(width), scaled(height));
    let scaled = resize(image, width, height, FilterType::CatmullRom);
    Ok(crop_imm(&scaled, (width - side) / 2, (height - side) / 2, side, side).to_image())
}
