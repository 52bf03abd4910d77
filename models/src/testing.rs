//! For tests and benchmarks, of this crate and of those that use it: tiny random models as real GGUF files, the place of
//! the real one, the memory's speed. Not meant for programs.

mod clip;
mod memory;
mod vocabulary;

pub use clip::write_tiny_clip;

use crate::error::ModelError;
use crate::registry::{Places, Registry, RegistryError};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

pub use memory::read_rate;

/// The default model's name in the registry.
const REAL_MODEL: &str = "smollm2-135m-instruct";

const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 128;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// The real SmolLM2 model: `TETHER_TEST_MODEL`, else where `make model` puts it. `None`, and a line on standard
/// error, if there is none, so that a test can be skipped and seen to be.
pub fn real_model() -> Option<PathBuf> {
    let path = match std::env::var_os("TETHER_TEST_MODEL").map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(format!("no model at {}", path.display())),
        None => real_model_in(Places::from_env()).map_err(|error| error.to_string()),
    };
    path.inspect_err(|why| eprintln!("SKIPPED: {why}; run `make model` or set TETHER_TEST_MODEL")).ok()
}

/// Where `tether models pull` has put it, or would put it.
fn real_model_in(places: Places) -> Result<PathBuf, RegistryError> {
    Registry::open(places)?.resolve(REAL_MODEL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TinyArchitecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
}

/// Which kind of tokenizer the file carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TinyTokenizer {
    /// `gpt2`: byte-level, with merges.
    ByteLevel,
    /// `llama`: tokens with scores, and byte tokens.
    SentencePiece,
}

/// A random model of two layers (Gemma 3: six, so that one of them is global), 64 wide, with about 300 tokens and a
/// ChatML template. The same values give the same file.
///
/// The llama architecture draws only printable characters and never the end of a turn when it decodes greedily, so an
/// answer has as many tokens as it may.
#[derive(Debug, Clone)]
pub struct TinyModel {
    pub architecture: TinyArchitecture,
    pub tokenizer: TinyTokenizer,
    pub seed: u64,
    pub context_tokens: usize,
    /// Sliding window of the architectures that have one (Gemma 3, Phi 3).
    pub window: usize,
    /// How the matrices are stored; widths are multiples of 64.
    pub dtype: GgmlDType,
    /// Rotary factors: of Llama 3 (`rope_freqs`), or of Phi 3's "longrope".
    pub rope_factors: bool,
}

impl TinyModel {
    pub fn new(architecture: TinyArchitecture) -> TinyModel {
        TinyModel {
            architecture,
            tokenizer: TinyTokenizer::ByteLevel,
            seed: 1,
            context_tokens: 2048,
            window: 8,
            dtype: GgmlDType::Q8_0,
            rope_factors: false,
        }
    }

    /// Writes the model to `path` as a GGUF file.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let fail = |error: std::io::Error| ModelError::File { path: path.to_owned(), problem: error.to_string() };
        let (metadata, tensors) = (self.metadata(), self.tensors()?);
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = BufWriter::new(File::create(path).map_err(fail)?);
        gguf_file::write(&mut file, &metadata, &tensors)?;
        std::io::Write::flush(&mut file).map_err(fail)
    }

    fn name(&self) -> &'static str {
        match self.architecture {
            TinyArchitecture::Llama => "llama",
            TinyArchitecture::Qwen2 => "qwen2",
            TinyArchitecture::Qwen3 => "qwen3",
            TinyArchitecture::Gemma3 => "gemma3",
            TinyArchitecture::Phi3 => "phi3",
        }
    }

    fn layers(&self) -> usize {
        if self.architecture == TinyArchitecture::Gemma3 { 6 } else { 2 }
    }

    /// Wider than `HIDDEN / HEADS` where the architecture allows it.
    fn head_dim(&self) -> usize {
        match self.architecture {
            TinyArchitecture::Qwen3 | TinyArchitecture::Gemma3 => 32,
            _ => HIDDEN / HEADS,
        }
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let number = |number: usize| Value::U32(number as u32);
        let mut entries = vec![
            ("block_count", number(self.layers())),
            ("context_length", number(self.context_tokens)),
            ("embedding_length", number(HIDDEN)),
            ("feed_forward_length", number(FEED_FORWARD)),
            ("attention.head_count", number(HEADS)),
            ("attention.head_count_kv", number(KV_HEADS)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("attention.key_length", number(self.head_dim())),
            ("attention.value_length", number(self.head_dim())),
            ("rope.dimension_count", number(self.head_dim())),
            ("rope.freq_base", Value::F32(10_000.0)),
        ];
        if matches!(self.architecture, TinyArchitecture::Gemma3 | TinyArchitecture::Phi3) {
            entries.push(("attention.sliding_window", number(self.window)));
        }
        if self.architecture == TinyArchitecture::Phi3 && self.rope_factors {
            entries.push(("rope.scaling.original_context_length", number(self.context_tokens / 4)));
            entries.push(("rope.scaling.attn_factor", Value::F32(1.19)));
        }
        let entries = entries.into_iter().map(|(key, value)| (format!("{}.{key}", self.name()), value));
        let general = [("general.architecture", self.name()), ("general.name", "tiny")];
        let general = general.map(|(key, value)| (key.to_owned(), Value::String(value.to_owned())));
        general.into_iter().chain(entries).chain(vocabulary::metadata(self.tokenizer)).collect()
    }

    fn tensors(&self) -> Result<Vec<(String, QTensor)>, ModelError> {
        let mut weights = Weights { random: ChaCha8Rng::seed_from_u64(self.seed), tensors: Vec::new() };
        let vocab = vocabulary::size(self.tokenizer);
        weights.matrix("token_embd.weight", vocab, HIDDEN, self.dtype)?;
        weights.norm("output_norm.weight", HIDDEN)?;
        match self.architecture {
            TinyArchitecture::Llama => weights.printable_head(self.tokenizer, self.dtype)?,
            TinyArchitecture::Phi3 => weights.matrix("output.weight", vocab, HIDDEN, self.dtype)?,
            // The others tie the head to the embedding.
            _ => {}
        }
        for layer in 0..self.layers() {
            self.layer(&mut weights, &format!("blk.{layer}"))?;
        }
        if self.rope_factors {
            let (half, name) = (self.head_dim() / 2, self.architecture);
            let names: &[&str] = match name {
                TinyArchitecture::Phi3 => &["rope_factors_long.weight", "rope_factors_short.weight"],
                _ => &["rope_freqs.weight"],
            };
            for (index, name) in names.iter().enumerate() {
                let factors = (0..half).map(|i| 1.0 + (i * (index + 1)) as f32 / 4.0).collect();
                weights.push(name, Tensor::from_vec(factors, half, &Device::Cpu)?, GgmlDType::F32)?;
            }
        }
        Ok(weights.tensors)
    }

    fn layer(&self, weights: &mut Weights, block: &str) -> Result<(), ModelError> {
        let name = |suffix: &str| format!("{block}.{suffix}.weight");
        let (query, kv) = (HEADS * self.head_dim(), KV_HEADS * self.head_dim());
        weights.norm(&name("attn_norm"), HIDDEN)?;
        weights.norm(&name("ffn_norm"), HIDDEN)?;
        if self.architecture == TinyArchitecture::Phi3 {
            weights.matrix(&name("attn_qkv"), query + 2 * kv, HIDDEN, self.dtype)?;
            weights.matrix(&name("ffn_up"), 2 * FEED_FORWARD, HIDDEN, self.dtype)?;
        } else {
            for (part, rows) in [("attn_q", query), ("attn_k", kv), ("attn_v", kv)] {
                weights.matrix(&name(part), rows, HIDDEN, self.dtype)?;
                if self.architecture == TinyArchitecture::Qwen2 {
                    weights.bias(&format!("{block}.{part}.bias"), rows)?;
                }
            }
            weights.matrix(&name("ffn_gate"), FEED_FORWARD, HIDDEN, self.dtype)?;
            weights.matrix(&name("ffn_up"), FEED_FORWARD, HIDDEN, self.dtype)?;
        }
        if matches!(self.architecture, TinyArchitecture::Qwen3 | TinyArchitecture::Gemma3) {
            weights.norm(&name("attn_q_norm"), self.head_dim())?;
            weights.norm(&name("attn_k_norm"), self.head_dim())?;
        }
        if self.architecture == TinyArchitecture::Gemma3 {
            weights.norm(&name("post_attention_norm"), HIDDEN)?;
            weights.norm(&name("post_ffw_norm"), HIDDEN)?;
        }
        weights.matrix(&name("attn_output"), HIDDEN, query, self.dtype)?;
        weights.matrix(&name("ffn_down"), HIDDEN, FEED_FORWARD, self.dtype)
    }
}

struct Weights {
    random: ChaCha8Rng,
    tensors: Vec<(String, QTensor)>,
}

impl Weights {
    fn push(&mut self, name: &str, tensor: Tensor, dtype: GgmlDType) -> Result<(), ModelError> {
        self.tensors.push((name.to_owned(), QTensor::quantize(&tensor, dtype)?));
        Ok(())
    }

    fn uniform(&mut self, count: usize, middle: f32, spread: f32) -> Vec<f32> {
        (0..count).map(|_| middle + self.random.random_range(-spread..spread)).collect()
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize, dtype: GgmlDType) -> Result<(), ModelError> {
        let values = self.uniform(rows * columns, 0.0, (3.0 / columns as f32).sqrt());
        self.push(name, Tensor::from_vec(values, (rows, columns), &Device::Cpu)?, dtype)
    }

    fn norm(&mut self, name: &str, len: usize) -> Result<(), ModelError> {
        let values = self.uniform(len, 1.0, 0.3);
        self.push(name, Tensor::from_vec(values, len, &Device::Cpu)?, GgmlDType::F32)
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<(), ModelError> {
        let values = self.uniform(len, 0.0, 0.5);
        self.push(name, Tensor::from_vec(values, len, &Device::Cpu)?, GgmlDType::F32)
    }

    /// Rows of zeros give tokens that are not printable the logit 0, which the greatest of a hundred random ones beats.
    fn printable_head(&mut self, tokenizer: TinyTokenizer, dtype: GgmlDType) -> Result<(), ModelError> {
        let printable = vocabulary::printable(tokenizer);
        let mut values = self.uniform(printable.len() * HIDDEN, 0.0, 1.0);
        for (row, _) in values.chunks_exact_mut(HIDDEN).zip(&printable).filter(|(_, printable)| !**printable) {
            row.fill(0.0);
        }
        self.push("output.weight", Tensor::from_vec(values, (printable.len(), HIDDEN), &Device::Cpu)?, dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_model_is_looked_for_where_models_are_pulled_to() {
        let folder = tempfile::tempdir().unwrap();
        // As `TETHER_MODELS_DIR` says it.
        let places = Places { folder: folder.path().into(), also: Vec::new(), files: Vec::new(), ..Places::from_env() };
        assert!(matches!(real_model_in(places.clone()), Err(RegistryError::NotInstalled { .. })));
        let registry = Registry::open(places.clone()).unwrap();
        let file = folder.path().join(&registry.find(REAL_MODEL).unwrap().file);
        std::fs::write(&file, "").unwrap();
        assert_eq!(real_model_in(places).unwrap(), file);
    }
}
