//! `config.json` of a CLIP, checked.

use super::file;
use crate::error::ModelError;
use candle_transformers::models::clip::ClipConfig;
use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use serde::Deserialize;
use std::path::Path;

/// A config is some 5 KB.
const MAX_BYTES: u64 = 1024 * 1024;

/// As written; what is absent has the value that transformers gives it (the ViT-B/32 of the paper).
#[derive(Deserialize)]
struct Form {
    model_type: String,
    #[serde(default = "default_projection")]
    projection_dim: usize,
    #[serde(default)]
    text_config: TextForm,
    #[serde(default)]
    vision_config: VisionForm,
}

fn default_projection() -> usize {
    512
}

#[derive(Deserialize)]
#[serde(default)]
struct TextForm {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
}

impl Default for TextForm {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2_048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct VisionForm {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
}

impl Default for VisionForm {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3_072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
        }
    }
}

/// What was checked.
pub(super) struct Shapes {
    text: TextForm,
    vision: VisionForm,
    projection: usize,
    /// Side of the square that the model looks at, in pixels.
    pub image_size: usize,
    pub context_tokens: usize,
    pub vocabulary: usize,
}

pub(super) fn read_config(path: &Path) -> Result<Shapes, ModelError> {
    let fail = |problem: String| file(path, problem);
    let length = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > MAX_BYTES {
        return Err(fail(format!("{length} bytes, at most {MAX_BYTES} are allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let Form { model_type, projection_dim, text_config: text, vision_config: vision } =
        serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    if model_type != "clip" {
        return Err(fail(format!("model_type is {model_type:?}, expected \"clip\"")));
    }
    for (tower, activation) in [("text", &text.hidden_act), ("vision", &vision.hidden_act)] {
        if activation != "quick_gelu" {
            let problem = format!("{tower}_config.hidden_act is {activation:?}; only \"quick_gelu\" can be computed");
            return Err(fail(problem));
        }
    }
    let limits = [
        ("projection_dim", projection_dim, 4_096),
        ("text_config.vocab_size", text.vocab_size, 1_000_000),
        ("text_config.hidden_size", text.hidden_size, 8_192),
        ("text_config.intermediate_size", text.intermediate_size, 32_768),
        ("text_config.num_hidden_layers", text.num_hidden_layers, 96),
        ("text_config.num_attention_heads", text.num_attention_heads, 128),
        ("text_config.max_position_embeddings", text.max_position_embeddings, 1_024),
        ("vision_config.hidden_size", vision.hidden_size, 8_192),
        ("vision_config.intermediate_size", vision.intermediate_size, 32_768),
        ("vision_config.num_hidden_layers", vision.num_hidden_layers, 96),
        ("vision_config.num_attention_heads", vision.num_attention_heads, 128),
        ("vision_config.image_size", vision.image_size, 1_024),
        ("vision_config.patch_size", vision.patch_size, vision.image_size),
    ];
    for (field, given, limit) in limits {
        if given == 0 || given > limit {
            return Err(fail(format!("{field} is {given}; 1 to {limit} is allowed")));
        }
    }
    let divisible = [
        ("text_config.hidden_size", text.hidden_size, text.num_attention_heads),
        ("vision_config.hidden_size", vision.hidden_size, vision.num_attention_heads),
    ];
    if let Some((field, size, heads)) = divisible.into_iter().find(|(_, size, heads)| size % heads != 0) {
        return Err(fail(format!("{field} is {size}, not a multiple of its {heads} heads")));
    }
    if vision.num_channels != 3 {
        return Err(fail(format!("vision_config.num_channels is {}; pictures have 3", vision.num_channels)));
    }
    let (image_size, context_tokens) = (vision.image_size, text.max_position_embeddings);
    let vocabulary = text.vocab_size;
    Ok(Shapes { text, vision, projection: projection_dim, image_size, context_tokens, vocabulary })
}

impl Shapes {
    /// In candle's words.
    pub(super) fn candle(&self) -> ClipConfig {
        let Self { text, vision, projection, .. } = self;
        ClipConfig {
            text_config: ClipTextConfig {
                vocab_size: text.vocab_size,
                embed_dim: text.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: text.intermediate_size,
                max_position_embeddings: text.max_position_embeddings,
                pad_with: None,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                projection_dim: *projection,
            },
            vision_config: ClipVisionConfig {
                embed_dim: vision.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: vision.intermediate_size,
                num_hidden_layers: vision.num_hidden_layers,
                num_attention_heads: vision.num_attention_heads,
                projection_dim: *projection,
                num_channels: vision.num_channels,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
            },
            // ln(1 / 0.07), the paper's start; only its ranking over many texts would need it, a cosine does not.
            logit_scale_init_value: 2.6592,
            image_size: vision.image_size,
        }
    }
}
