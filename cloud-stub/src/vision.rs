//! Vision by measurement, for models that cannot see: each image becomes a short description computed from its
//! pixels, which takes the image's place in the prompt. It names what can be measured (size, colours, brightness,
//! sharpness, what changed since the frame before) and never claims to recognise anything.
//!
//! Everything here is pure; the callers decode off the async threads.

mod colour;
mod measure;
mod motion;

pub use colour::Colour;
pub use measure::{Brightness, Measurement, Sharpness, VisionError, measure};
pub use motion::{FrameKey, Motion, MotionMemory, Place, Thumbnail};

use std::time::Duration;
use tether_protocol::ViewName;
use tether_protocol::wire::{Part, TurnRequest};

/// The sentence that stands in the prompt where the image stood.
pub fn describe(view: &ViewName, image: &Measurement, motion: Option<&(Motion, Duration)>) -> String {
    let colours: Vec<String> =
        image.colours.iter().map(|(colour, percent)| format!("{} {percent} %", colour.as_str())).collect();
    let motion = motion.map_or(String::new(), |(motion, age)| {
        format!(" Since the frame {:.1} s before: {}.", age.as_secs_f64(), motion_words(motion))
    });
    format!(
        "[Image of view {view}, measured: {}x{} pixels; colours {}; {}; {}.{motion}]",
        image.width,
        image.height,
        colours.join(", "),
        image.brightness.as_str(),
        image.sharpness.as_str(),
    )
}

fn motion_words(motion: &Motion) -> String {
    let light = match motion.brighter_by {
        shift if shift >= motion::NOTABLE_SHIFT => ", and it became brighter",
        shift if shift <= -motion::NOTABLE_SHIFT => ", and it became darker",
        _ => "",
    };
    match motion.place {
        None => format!("nothing moved{light}"),
        Some(Place::Everywhere) => format!("almost everything changed{light}"),
        Some(place) => format!("{} % of the image changed, {}{light}", motion.changed_percent, place.as_str()),
    }
}

/// The turn with its images replaced by their descriptions, in the order of `turn.images`.
pub fn with_descriptions(turn: &TurnRequest, descriptions: &[String]) -> TurnRequest {
    let mut described = turn.clone();
    described.images.clear();
    for part in described.messages.iter_mut().flat_map(|message| &mut message.parts) {
        if let Part::Image(index) = part {
            *part = Part::Text(descriptions.get(usize::from(*index)).cloned().unwrap_or_default());
        }
    }
    described
}

#[cfg(test)]
mod tests;
