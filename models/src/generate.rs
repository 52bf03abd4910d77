//! One answer as a pull-based machine: prefill a chunk, or decode a token, then return to the caller.

use crate::sampling::SamplingOptions;

/// Prompt tokens processed at a time; cancellation takes effect within one chunk.
pub const PREFILL_CHUNK_TOKENS: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    pub sampling: SamplingOptions,
    pub max_tokens: usize,
    pub stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    Stop,
    Length,
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    pub finish: Finish,
    pub prompt_tokens: usize,
    /// Prompt tokens that were found in the cache and not computed again.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    pub queue_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
}
