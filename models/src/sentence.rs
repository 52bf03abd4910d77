//! A sentence as a vector: a BERT encoder, the mean over its tokens' last layer, scaled to length 1
//! (Sentence-BERT, arXiv 1908.10084, section 3). The weights meant are all-MiniLM-L6-v2's.

use crate::error::ModelError;
use crate::registry::{Registry, RegistryError};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};
use std::path::{Path, PathBuf};
use tokenizers::{Tokenizer, TruncationParams};

/// The names of its two files in the registry.
pub const WEIGHTS: &str = "all-minilm-l6-v2";
pub const TOKENIZER: &str = "all-minilm-l6-v2.tokenizer";

/// Tokens of a text that are read: what the model was trained on, and what its own tokenizer file says.
pub const MAX_TOKENS: usize = 128;
/// Bytes looked at: 128 tokens of any language lie within, and the time for a long text stays bounded.
const MAX_BYTES: usize = 16 * 1024;

/// The shape of a BERT encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub vocab: usize,
    /// Numbers in a vector.
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
    pub positions: usize,
}

/// all-MiniLM-L6-v2, 22.7 million weights.
pub const MINILM: Shape = Shape { vocab: 30_522, width: 384, layers: 6, heads: 12, inner: 1_536, positions: 512 };

/// `Send + Sync`; embedding borrows it. Runs on the calling thread and candle's pool.
pub struct SentenceEncoder {
    model: BertModel,
    tokenizer: Tokenizer,
    width: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum SentenceError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl SentenceEncoder {
    /// all-MiniLM-L6-v2 as pulled by `tether models pull`.
    ///
    /// # Errors
    /// Names the command that fetches what is missing, or the file that is not what the registry means.
    pub fn from_registry(registry: &Registry) -> Result<Self, SentenceError> {
        let mut quiet = |_| std::ops::ControlFlow::Continue(());
        let weights = registry.verify(WEIGHTS, &mut quiet)?;
        let tokenizer = registry.verify(TOKENIZER, &mut quiet)?;
        Ok(Self::open(&weights, &tokenizer, MINILM)?)
    }

    /// `weights` is a safetensors file with BERT's names, `tokenizer` a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::File`] names the file and what is wrong with it.
    pub fn open(weights: &Path, tokenizer: &Path, shape: Shape) -> Result<Self, ModelError> {
        let bytes = std::fs::read(weights).map_err(file(weights))?;
        let tensors = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).map_err(file(weights))?;
        let model = BertModel::load(tensors, &shape.config()).map_err(file(weights))?;
        let mut read = Tokenizer::from_file(tokenizer).map_err(file(tokenizer))?;
        let truncation =
            TruncationParams { max_length: MAX_TOKENS.min(shape.positions), ..TruncationParams::default() };
        read.with_truncation(Some(truncation)).map_err(file(tokenizer))?;
        read.with_padding(None);
        if read.get_vocab_size(true) > shape.vocab {
            return Err(file(tokenizer)(format!("it knows more tokens than the model's {}", shape.vocab)));
        }
        Ok(Self { model, tokenizer: read, width: shape.width })
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The text's vector, of length 1.
    ///
    /// # Errors
    /// What the tokenizer or candle refuse; for a text of any content, neither does.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, ModelError> {
        let text = &text[..text.floor_char_boundary(MAX_BYTES)];
        let encoded =
            self.tokenizer.encode(text, true).map_err(|problem| ModelError::Tokenizer(problem.to_string()))?;
        // [1, tokens]
        let ids = Tensor::new(encoded.get_ids(), &Device::Cpu)?.unsqueeze(0)?;
        let types = ids.zeros_like()?;
        // [1, tokens, width]
        let hidden = self.model.forward(&ids, &types, None)?;
        let mean = hidden.mean(1)?.squeeze(0)?;
        let length = mean.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?.max(1e-12);
        Ok((mean / f64::from(length))?.to_vec1()?)
    }
}

impl Shape {
    fn config(self) -> Config {
        Config {
            vocab_size: self.vocab,
            hidden_size: self.width,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: self.inner,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.0,
            max_position_embeddings: self.positions,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            position_embedding_type: PositionEmbeddingType::Absolute,
            use_cache: false,
            classifier_dropout: None,
            model_type: Some("bert".to_owned()),
        }
    }
}

fn file<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> ModelError + use<E> {
    let path: PathBuf = path.to_owned();
    move |problem| ModelError::File { path: path.clone(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests;
