//! Tokens in, tokens out. GGUF models through candle, their tokenizers and chat templates, sampling, and the thread
//! that a model runs on. Nothing here knows requests, networks or policies.

pub mod chat;
pub mod engine;
pub mod error;
pub mod generate;
pub mod registry;
pub mod sampling;
pub mod text;
pub mod tokenizer;
pub mod worker;

pub use chat::{ChatMessage, ChatTemplate, OnContextFull, Prepared};
pub use engine::{Cache, Engine, LoadOptions, ModelInfo, Snapshot};
pub use error::ModelError;
pub use generate::{Finish, GenerateOptions, Generated};
pub use sampling::{Sampler, SamplingOptions};
pub use text::TextStream;
pub use tokenizer::Tokenizer;
pub use worker::{Cancel, Event, Job, Worker, WorkerOptions};
