//! One loaded model: weights, tokenizer, template. Shared by all its caches.

use crate::chat::{ChatMessage, OnContextFull, Prepared};
use crate::error::ModelError;
use std::path::Path;

#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Context length in tokens; `None`: the model's own, at most 8,192.
    pub context_tokens: Option<usize>,
    /// Worker threads of the arithmetic; `None`: the physical cores.
    pub threads: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// From `general.name`, else the file's stem.
    pub name: String,
    pub architecture: String,
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
}

/// The keys and values of one token sequence.
pub struct Cache {}

/// A cheap copy of a cache's state, to return to.
pub struct Snapshot {}

impl Engine {
    /// Loads a GGUF file, its tokenizer (from the metadata or a `tokenizer.json` beside it) and its chat template.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Engine, ModelError> {
        let _ = options;
        Err(ModelError::File { path: path.to_owned(), problem: "not written yet".into() })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    pub fn new_cache(&self) -> Result<Cache, ModelError> {
        Ok(Cache {})
    }

    /// Appends `tokens` to the sequence and returns the logits after the last one.
    pub fn prefill(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let _ = (cache, tokens);
        unimplemented!("landing 1")
    }

    /// Appends one token and returns the logits after it.
    pub fn step(&self, cache: &mut Cache, token: u32) -> Result<Vec<f32>, ModelError> {
        self.prefill(cache, &[token])
    }

    /// Renders the chat template and tokenizes; leaves out the oldest messages (system messages stay) if told to.
    /// At least `reserve_tokens` of the context are kept free for the answer.
    pub fn prepare(
        &self,
        messages: &[ChatMessage],
        on_context_full: OnContextFull,
        reserve_tokens: usize,
    ) -> Result<Prepared, ModelError> {
        let _ = (messages, on_context_full, reserve_tokens);
        unimplemented!("landing 1")
    }
}

impl Cache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything after the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        let _ = len;
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {}
    }

    pub fn restore(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }
}
