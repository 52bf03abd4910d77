//! One loaded model: weights, tokenizer, template. Shared by all its caches.

use crate::arch;
use crate::cache::Cache;
use crate::chat::{self, ChatMessage, ChatTemplate, OnContextFull, Prepared};
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf, Repack};
use crate::kernels::{InstructionSet, Kernels, Pool};
use crate::layers::{Compute, Scratch};
use crate::threads;
use crate::tokenizer::Tokenizer;
use crate::worker::Cancel;
use candle_core::Device;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Context length when the options name none: a longer one costs memory only as it fills, but time from the start.
const DEFAULT_CONTEXT_TOKENS: usize = 8192;

#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Context length in tokens; `None`: the model's own, at most 8,192.
    pub context_tokens: Option<usize>,
    /// Threads of the arithmetic; `None`: see [`crate::threads::default`]. Where candle computes, it
    /// has one pool in a process, so a program also gives this to [`crate::threads::apply`] before it
    /// loads its first model.
    pub threads: Option<usize>,
    pub requantize: Requantize,
    pub arithmetic: Arithmetic,
}

/// What multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// Our kernels with the best instruction set of an x86-64 processor; candle elsewhere, and for kinds that ours do
    /// not know.
    #[default]
    Auto,
    /// candle; norms, gates and attention are still ours.
    Candle,
    /// Our kernels with these instructions.
    Kernels(InstructionSet),
    /// Our kernels on weights dequantised to f32: what the others are judged by. Takes four bytes a weight.
    Reference,
}

/// Whether weights that candle multiplies are re-quantised when loaded. Our kernels run them as the file holds them.
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
    /// Bytes of the matrices that each token is multiplied with, as they are held in memory.
    pub token_bytes: u64,
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
    kernels: Kernels,
    pool: Pool,
    /// Of passes that ended; as many as ever ran at once.
    scratch: Mutex<Vec<Scratch>>,
}

impl Engine {
    /// Loads a GGUF file, its tokenizer (from the metadata or a `tokenizer.json` beside it) and its chat template.
    ///
    /// # Errors
    /// [`ModelError::File`] names the path and what is wrong with it; [`ModelError::Architecture`] if the model is of a
    /// kind that this crate does not know; [`ModelError::Parameter`] for options that the model cannot meet.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Engine, ModelError> {
        let device = device()?;
        let (kernels, repack) = kernels(options.arithmetic, &device)?;
        let gguf = Gguf::open(path, device, options.requantize == Requantize::Auto, repack)?;
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
            token_bytes: gguf.token_bytes(),
            vocab_size: dims.vocab,
            context_tokens,
            has_chat_template: !template.is_fallback(),
        };
        let threads = options.threads.unwrap_or_else(threads::default);
        let pool = Pool::new(threads).map_err(|error| ModelError::Parameter {
            parameter: "threads",
            problem: format!("the system starts no {threads} threads: {error}"),
        })?;
        let (decoder, tokenizer, scratch) = (decoder?, tokenizer?, Mutex::default());
        Ok(Engine { info, dims, decoder, tokenizer, template, kernels, pool, scratch })
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
        let mut logits = Vec::new();
        self.prefill_into(cache, tokens, cancel, &mut logits)?;
        Ok(logits)
    }

    /// As [`prefill_until`](Self::prefill_until), into memory that is used again.
    pub fn prefill_into(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
        cancel: &Cancel,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.run(cache, tokens, cancel, 1, logits)
    }

    /// Appends `tokens` and returns the logits after each of them, `[tokens, vocab_size]`; the bits of
    /// [`step`](Self::step). Ends as [`prefill_until`](Self::prefill_until).
    pub fn prefill_all(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<Vec<f32>, ModelError> {
        let mut logits = Vec::new();
        self.run(cache, tokens, cancel, tokens.len(), &mut logits)?;
        Ok(logits)
    }

    /// Appends `tokens` without computing logits: for all chunks of a prompt but the last.
    pub fn extend(&self, cache: &mut Cache, tokens: &[u32]) -> Result<(), ModelError> {
        self.extend_until(cache, tokens, &Cancel::default())
    }

    /// As [`extend`](Self::extend), with the end of [`prefill_until`](Self::prefill_until).
    pub fn extend_until(&self, cache: &mut Cache, tokens: &[u32], cancel: &Cancel) -> Result<(), ModelError> {
        self.run(cache, tokens, cancel, 0, &mut Vec::new())
    }

    /// Appends one token and returns the logits after it.
    pub fn step(&self, cache: &mut Cache, token: u32) -> Result<Vec<f32>, ModelError> {
        self.prefill(cache, &[token])
    }

    /// From the next pass on, computes with at most so many threads, and at most with as many as it was loaded for.
    pub fn limit_threads(&self, threads: usize) {
        self.pool.limit(threads);
    }

    /// Appends `tokens`, and writes the logits after the last `count` of them to `logits`.
    fn run(
        &self,
        cache: &mut Cache,
        tokens: &[u32],
        cancel: &Cancel,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.check(cache, tokens)?;
        let start = cache.len();
        let compute = Compute { kernels: self.kernels, pass: self.pool.pass() };
        let mut scratch = self.idle_scratch().pop().unwrap_or_default();
        let forward = self.decoder.forward(&compute, cache.layers_mut(), start, tokens, cancel, &mut scratch);
        let written = forward.and_then(|()| match count {
            0 => Ok(()),
            count => self.decoder.logits(&compute, &mut scratch, count, logits),
        });
        self.idle_scratch().push(scratch);
        written?;
        cache.commit(tokens.len());
        Ok(())
    }

    fn idle_scratch(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, cache: &Cache, tokens: &[u32]) -> Result<(), ModelError> {
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
        let (prompt_tokens, context_tokens) = (cache.len() + tokens.len(), self.info.context_tokens);
        match prompt_tokens > context_tokens {
            true => Err(ModelError::ContextFull { prompt_tokens, context_tokens }),
            false => Ok(()),
        }
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

/// The kernels, and how weights are repacked for them.
fn kernels(arithmetic: Arithmetic, device: &Device) -> Result<(Kernels, Repack), ModelError> {
    let best = InstructionSet::available()[0];
    let (set, repack) = match arithmetic {
        Arithmetic::Auto if cfg!(target_arch = "x86_64") && device.is_cpu() => (best, Repack::AsStored),
        Arithmetic::Auto | Arithmetic::Candle => (best, Repack::No),
        Arithmetic::Kernels(set) => (set, Repack::AsStored),
        Arithmetic::Reference => (best, Repack::Dequantised),
    };
    let kernels = Kernels::of(set).ok_or_else(|| ModelError::Parameter {
        parameter: "arithmetic",
        problem: format!("this processor has no {set:?}"),
    })?;
    Ok((kernels, repack))
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
