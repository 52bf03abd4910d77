//! TMO's association (the similarity of question and view, about .2 for CLIP) estimated without looking at a view.

use super::linear::{Linear, LoadError, MAX_OUTPUTS, WriteError};

const KIND: &str = "tether-text-association";
/// Learned by `tether-lab tmo train-association`; its card is `artifacts/association.json`.
const BUILT_IN: &[u8] = include_bytes!("../../artifacts/association.safetensors");

/// A ridge regression with one output for each of M4A1's views: first-person, side, overhead.
#[derive(Debug, Clone, PartialEq)]
pub struct TextAssociation(Linear);

impl TextAssociation {
    pub fn new(linear: Linear) -> Self {
        Self(linear)
    }

    /// The one in this program.
    pub fn built_in() -> Result<Self, LoadError> {
        Self::read(BUILT_IN)
    }

    pub fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        Ok(Self(Linear::read(KIND, bytes)?.0))
    }

    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        self.0.write(KIND, &[])
    }

    /// `None` for a text without words.
    pub fn estimate(&self, text: &str) -> Option<Estimate> {
        Some(Estimate { outputs: self.0.apply(text)?, known: self.0.outputs().len() })
    }
}

/// How much each camera matters to one question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    outputs: [f32; MAX_OUTPUTS],
    known: usize,
}

impl Estimate {
    /// The first cameras take the places of the data set's views, as the default settings name them; each further one
    /// gets the mean. In 0..1.
    pub fn camera(&self, place: usize) -> f64 {
        let known = &self.outputs[..self.known];
        let mean = known.iter().sum::<f32>() / self.known as f32;
        f64::from(known.get(place).copied().unwrap_or(mean).clamp(0.0, 1.0))
    }
}
