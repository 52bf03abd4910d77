//! Tokens in, tokens out. GGUF models through candle, their tokenizers and chat templates, sampling, and the thread
//! that a model runs on. Nothing here knows requests, networks or policies.

pub mod chat;
pub mod engine;
pub mod error;
pub mod generate;
pub mod registry;
pub mod sampling;
pub mod worker;

pub use chat::{ChatMessage, OnContextFull, Prepared};
pub use engine::{Cache, Engine, LoadOptions, ModelInfo, Snapshot};
pub use error::ModelError;
pub use generate::{Finish, GenerateOptions, Generated};
pub use sampling::SamplingOptions;
pub use worker::{Cancel, Event, Job, Worker, WorkerOptions};
