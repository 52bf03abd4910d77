//! The model architectures, one file each.

mod gemma3;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;

use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};

type Load = fn(&Gguf, &Dimensions, usize) -> Result<Decoder, ModelError>;

/// The values of `general.architecture` that are known. Each loads a decoder for sequences of at most so many tokens.
const ARCHITECTURES: [(&str, Load); 5] = [
    ("llama", llama::load),
    ("qwen2", qwen2::load),
    ("qwen3", qwen3::load),
    ("gemma3", gemma3::load),
    ("phi3", phi3::load),
];

/// The loader for the file's architecture.
pub(crate) fn loader(gguf: &Gguf) -> Result<Load, ModelError> {
    let name = gguf.architecture()?;
    let known = ARCHITECTURES.iter().find(|(known, _)| *known == name);
    known.map(|(_, load)| *load).ok_or_else(|| ModelError::Architecture(name.to_owned()))
}
