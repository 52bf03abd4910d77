//! How much a question and a picture have to do with each other: CLIP (arXiv 2103.00020), two encoders into one space.
//!
//! A model is a folder as published for transformers: `config.json`, `model.safetensors`, `tokenizer.json`. The
//! transformer blocks are candle-transformers'; what goes in and what the files must be is here.

mod config;
mod pixels;

use crate::error::ModelError;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::clip::ClipModel;
use config::{Shapes, read_config};
use image::RgbImage;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The largest published CLIP takes 1.7 GB in single precision.
const MAX_WEIGHTS_BYTES: u64 = 4 << 30;
/// Characters of a text that are looked at: 77 tokens are at most some 400 letters of English, and the tokenizer's
/// time must not grow with a pasted book.
const MAX_TEXT_CHARS: usize = 2_000;

/// A loaded model. Its methods take tens to hundreds of milliseconds on a processor: call them where blocking is
/// allowed.
pub struct ImageText {
    model: ClipModel,
    tokenizer: Tokenizer,
    shapes: Shapes,
}

/// A direction in the common space: [D] numbers of Euclidean length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// The cosine of the angle between the two, in -1..=1; `None` if they are of different models.
    pub fn cosine(&self, other: &Embedding) -> Option<f32> {
        if self.0.len() != other.0.len() {
            return None;
        }
        let dot: f32 = self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum();
        Some(dot.clamp(-1.0, 1.0))
    }

    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

impl ImageText {
    /// Loads a folder.
    ///
    /// # Errors
    /// [`ModelError::File`] names the file that is missing, damaged or not of a CLIP that this can run.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let shapes = read_config(&folder.join("config.json"))?;
        let path = folder.join("model.safetensors");
        let fail = |problem: String| file(&path, problem);
        let length = std::fs::metadata(&path).map_err(|error| fail(error.to_string()))?.len();
        if length > MAX_WEIGHTS_BYTES {
            return Err(fail(format!("{length} bytes, at most {MAX_WEIGHTS_BYTES} are allowed")));
        }
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).map_err(|error| fail(error.to_string()))?;
        // candle would draw a missing one at random.
        if !tensors.contains_key("vision_model.embeddings.class_embedding") {
            return Err(fail("tensor \"vision_model.embeddings.class_embedding\" is missing: not a CLIP".into()));
        }
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = ClipModel::new(weights, &shapes.candle()).map_err(|error| fail(error.to_string()))?;
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| file(&path, error.to_string()))?;
        let loaded = Self { model, tokenizer, shapes };
        // Both towers once, so that a model that cannot run is refused here and not in the middle of a dialogue.
        loaded.text("a kitchen").map_err(|error| file(folder, error.to_string()))?;
        loaded.image(&RgbImage::new(2, 2)).map_err(|error| file(folder, error.to_string()))?;
        Ok(loaded)
    }

    /// The direction of a text; what is longer than the model's context is cut.
    ///
    /// # Errors
    /// The tokenizer marks no end of the text, or the arithmetic fails.
    pub fn text(&self, text: &str) -> Result<Embedding, ModelError> {
        let ids = self.tokens(text)?;
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        unit(&self.model.get_text_features(&ids)?)
    }

    /// The direction of a picture: shorter side scaled to the model's size, middle square cut out.
    ///
    /// # Errors
    /// The picture has no pixels, or the arithmetic fails.
    pub fn image(&self, image: &RgbImage) -> Result<Embedding, ModelError> {
        let pixels = pixels::tensor(image, self.shapes.image_size)?;
        unit(&self.model.get_image_features(&pixels.unsqueeze(0)?)?)
    }

    /// Begin, pieces of the text, end. The end is the greatest id: the text's direction is read off where it stands.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let text: String = text.chars().take(MAX_TEXT_CHARS).collect();
        let encoded = self.tokenizer.encode(text, true).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        let mut ids = encoded.get_ids().to_vec();
        let end = ids.last().copied().filter(|end| ids.iter().all(|id| id <= end));
        let end = end.ok_or_else(|| ModelError::Tokenizer("it marks no end of the text, as CLIP's does".into()))?;
        if let Some(wrong) = ids.iter().find(|id| **id as usize >= self.shapes.vocabulary) {
            let problem = format!("token {wrong}, the model knows {}", self.shapes.vocabulary);
            return Err(ModelError::Tokenizer(problem));
        }
        ids.truncate(self.shapes.context_tokens);
        if let Some(last) = ids.last_mut() {
            *last = end;
        }
        Ok(ids)
    }
}

/// [1, D] to unit length.
fn unit(features: &Tensor) -> Result<Embedding, ModelError> {
    let length = features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    let values: Vec<f32> = features.broadcast_div(&length)?.flatten_all()?.to_vec1()?;
    if values.iter().all(|value| value.is_finite()) {
        return Ok(Embedding(values));
    }
    Err(ModelError::Parameter { parameter: "weights", problem: "the embedding is not a number".into() })
}

fn file(path: &Path, problem: String) -> ModelError {
    ModelError::File { path: PathBuf::from(path), problem }
}
