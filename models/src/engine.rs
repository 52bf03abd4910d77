//! One loaded model: weights, tokenizer, template. Shared by all its caches.

use crate::arch;
use crate::cache::Cache;
use crate::chat::{self, ChatMessage, ChatTemplate, OnContextFull, Prepared};
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::tokenizer::Tokenizer;
use crate::worker::Cancel;
use candle_core::Device;
use std::path::Path;

/// Context length when the options name none: a longer one costs memory only as it fills, but time from the start.
const DEFAULT_CONTEXT_TOKENS: usize = 8192;

#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Context length in tokens; `None`: the model's own, at most 8,192.
    pub context_tokens: Option<usize>,
    /// Threads of the arithmetic; `None`: candle's choice. Candle has one pool in a process, so a program gives this
    /// to [`threads::apply`](crate::threads::apply) before it loads its first model.
    pub threads: Option<usize>,
    pub requantize: Requantize,
}

/// Whether weights are re-quantised when loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requantize {
    /// The kinds that multiply faster as Q8_0 become Q8_0, which takes more memory and loses almost nothing.
    #[default]
    Auto,
    /// Weights run as the file holds them.
    Never,
}

#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// From `general.name`, else the file's stem.
    pub name: String,
    pub architecture: String,
    /// What most weights run as, e.g. `Q4_K`, or `Q4_1 as Q8_0` if they were re-quantised.
    pub quantization: String,
    pub parameter_count: u64,
    pub file_bytes: u64,
    pub vocab_size: usize,
    pub context_tokens: usize,
    pub has_chat_template: bool,
}

/// A loaded model. `Send + Sync`; forward passes borrow it and a [`Cache`].
pub struct Engine {
    info: ModelInfo,
    dims: Dimensions,
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Engine {
    /// Loads a GGUF file, its tokenizer (from the metadata or a `tokenizer.json` beside it) and its chat template.
    ///
    /// # Errors
    /// [`ModelError::File`] names the path and what is wrong with it; [`ModelError::Architecture`] if the model is of a
    /// kind that this crate does not know; [`ModelError::Parameter`] for options that the model cannot meet.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Engine, ModelError> {
        let gguf = Gguf::open(path, device()?, options.requantize == Requantize::Auto)?;
        let load = arch::loader(&gguf)?;
        let dims = gguf.dimensions()?;
        let context_tokens = context_tokens(dims.context, options.context_tokens)?;
        let (decoder, tokenizer) =
            rayon::join(|| load(&gguf, &dims, context_tokens), || Tokenizer::from_gguf(gguf.content(), path));
        let template = ChatTemplate::from_metadata(gguf.content())?;
        let info = ModelInfo {
            name: name(&gguf),
            architecture: gguf.architecture()?.to_owned(),
            quantization: quantization(&gguf),
            parameter_count: gguf.parameter_count(),
            file_bytes: gguf.file_bytes(),
            vocab_size: dims.vocab,
            context_tokens,
            has_chat_template: !template.is_fallback(),
        };
        Ok(Engine { info, dims, decoder: decoder?, tokenizer: tokenizer?, template })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// An empty cache. Its memory grows with the tokens.
    pub fn new_cache(&self) -> Result<Cache, ModelError> {
        Ok(Cache::new(self.dims.layers, self.dims.kv_heads, self.dims.head_dim))
    }

    /// Appends `tokens` to the sequence and returns the logits after the last one, `[vocab_size]`.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] if they do not fit, [`ModelError::Parameter`] for no tokens, an id out of range or
    /// another model's cache. The cache is then as before.
    pub fn prefill(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.prefill_until(cache, tokens, &Cancel::default())
    }

    /// As [`prefill`](Self::prefill), but ends with [`ModelError::Cancelled`] within a layer of `cancel`; the cache
    /// then holds what it held before.
    pub fn prefill_until(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<Vec<f32>, ModelError> {
        self.decoder.logits(&self.forward(cache, tokens, cancel)?)
    }

    /// Appends `tokens` and returns the logits after each of them, `[tokens, vocab_size]`; the bits of
    /// [`step`](Self::step). Ends as [`prefill_until`](Self::prefill_until).
    pub fn prefill_all(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<Vec<f32>, ModelError> {
        let x = self.forward(cache, tokens, cancel)?;
        let width = x.len() / tokens.len();
        let mut logits = Vec::with_capacity(tokens.len() * self.dims.vocab);
        for row in x.chunks_exact(width) {
            logits.extend(self.decoder.logits(row)?);
        }
        Ok(logits)
    }

    /// Appends `tokens` without computing logits: for all chunks of a prompt but the last.
    pub fn extend(&self, cache: &mut Cache, tokens: &[u32]) -> Result<(), ModelError> {
        self.extend_until(cache, tokens, &Cancel::default())
    }

    /// As [`extend`](Self::extend), with the end of [`prefill_until`](Self::prefill_until).
    pub fn extend_until(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<(), ModelError> {
        self.forward(cache, tokens, cancel).map(drop)
    }

    /// Appends one token and returns the logits after it.
    pub fn step(&self, cache: &mut Cache, token: u32) -> Result<Vec<f32>, ModelError> {
        self.prefill(cache, &[token])
    }

    fn forward(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<Vec<f32>, ModelError> {
        let parameter = |problem: String| ModelError::Parameter { parameter: "tokens", problem };
        if tokens.is_empty() {
            return Err(parameter("at least one is needed".into()));
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.dims.vocab) {
            return Err(parameter(format!("id {id} is not below the vocabulary's {}", self.dims.vocab)));
        }
        if !cache.fits(self.dims.layers, self.dims.kv_heads, self.dims.head_dim) {
            return Err(ModelError::Parameter { parameter: "cache", problem: "made by another model".into() });
        }
        let (start, context_tokens) = (cache.len(), self.info.context_tokens);
        if start + tokens.len() > context_tokens {
            return Err(ModelError::ContextFull { prompt_tokens: start + tokens.len(), context_tokens });
        }
        let x = self.decoder.forward(cache.layers_mut(), start, tokens, cancel)?;
        cache.commit(tokens.len());
        Ok(x)
    }

    /// Renders the chat template and tokenizes; leaves out the oldest messages (system messages stay) if told to.
    /// At least `reserve_tokens` of the context are kept free for the answer.
    pub fn prepare(
        &self,
        messages: &[ChatMessage],
        on_context_full: OnContextFull,
        reserve_tokens: usize,
    ) -> Result<Prepared, ModelError> {
        let context_tokens = self.info.context_tokens;
        chat::prepare(&self.tokenizer, &self.template, context_tokens, messages, on_context_full, reserve_tokens)
    }
}

/// Where matrices are multiplied: the CPU, or the first CUDA device if the crate was built for it.
fn device() -> Result<Device, ModelError> {
    #[cfg(feature = "cuda")]
    return Ok(Device::cuda_if_available(0)?);
    #[cfg(not(feature = "cuda"))]
    Ok(Device::Cpu)
}

fn context_tokens(trained: usize, wanted: Option<usize>) -> Result<usize, ModelError> {
    match wanted {
        None => Ok(trained.min(DEFAULT_CONTEXT_TOKENS)),
        Some(tokens) if (1..=trained).contains(&tokens) => Ok(tokens),
        Some(tokens) => Err(ModelError::Parameter {
            parameter: "context_tokens",
            problem: format!("{tokens} is not between 1 and the model's {trained}"),
        }),
    }
}

fn name(gguf: &Gguf) -> String {
    let stem = || gguf.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    gguf.name().map(str::to_owned).or_else(stem).unwrap_or_default()
}

fn quantization(gguf: &Gguf) -> String {
    let (stored, running) = (gguf.stored_quantization(), gguf.running_quantization());
    match stored == running {
        true => format!("{stored:?}"),
        false => format!("{stored:?} as {running:?}"),
    }
}
