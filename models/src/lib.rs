//! Tokens in, tokens out. GGUF models through candle, their tokenizers and chat templates, sampling, and the thread
//! that a model runs on. Nothing here knows requests, networks or policies.

mod arch;
mod cache;
pub mod chat;
pub mod clip;
mod decoder;
pub mod engine;
pub mod error;
pub mod generate;
mod gguf;
mod kernels;
mod layers;
pub mod registry;
pub mod sampling;
pub mod sentence;
mod sequence;
mod slots;
mod speculation;
pub mod testing;
pub mod text;
pub mod threads;
pub mod tokenizer;
pub mod worker;

pub use cache::{Cache, Snapshot};
pub use chat::{ChatMessage, ChatTemplate, OnContextFull, Prepared};
pub use engine::{Arithmetic, Engine, LoadOptions, ModelInfo, Requantize};
pub use error::ModelError;
pub use generate::{Advance, Finish, GenerateOptions, Generated, Generation};
pub use gguf::check_file;
pub use kernels::InstructionSet;
pub use sampling::{Sampler, SamplingOptions};
pub use sentence::SentenceEncoder;
pub use sequence::Sequence;
pub use slots::{DiskOptions, DiskStats, SlotOptions, SlotStats, fingerprint, forget_on_disk};
pub use text::TextStream;
pub use tokenizer::Tokenizer;
pub use worker::{Cancel, Event, Job, Worker, WorkerOptions, WorkerStats};
