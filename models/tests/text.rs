//! The text side of the crate: tokenizers, chat templates, sampling, the text stream,
//! the registry.

#[path = "text/chat.rs"]
mod chat;
#[path = "text/hub.rs"]
mod hub;
#[path = "text/prepare.rs"]
mod prepare;
#[path = "text/registry.rs"]
mod registry;
#[path = "text/sampling.rs"]
mod sampling;
#[path = "text/stream.rs"]
mod stream;
#[path = "text/tokenizer.rs"]
mod tokenizer;
#[path = "text/world.rs"]
mod world;
