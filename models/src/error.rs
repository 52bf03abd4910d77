//! The one error type of this crate.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("model file {path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("architecture {0:?} is not supported; supported: llama, qwen2, qwen3, gemma3, phi3")]
    Architecture(String),
    #[error("the prompt needs {prompt_tokens} tokens and the model's context holds {context_tokens}")]
    ContextFull { prompt_tokens: usize, context_tokens: usize },
    #[error("chat template: {0}")]
    Template(String),
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    #[error("the model computed no usable scores for the next token: {0}")]
    Logits(String),
    #[error("{parameter}: {problem}")]
    Parameter { parameter: &'static str, problem: String },
    #[error("the model's queue is full ({0} turns wait)")]
    QueueFull(usize),
    /// The caller wanted no more.
    #[error("cancelled")]
    Cancelled,
    #[error("the model's thread stopped: {0}")]
    Stopped(String),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
