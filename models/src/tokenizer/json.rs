//! A `tokenizer.json` beside the model file, for tokenizers whose kind the metadata does not describe well enough.

use super::metadata::{self, Kind, Vocab};
use super::{byte_level, sentencepiece};
use candle_core::quantized::gguf_file::Content;
use std::path::{Path, PathBuf};
use tokenizers::{DecoderWrapper, Tokenizer};

/// `<stem>.tokenizer.json`, else `tokenizer.json`, in the folder of `model`.
pub(crate) fn beside(model: &Path) -> Option<PathBuf> {
    let folder = model.parent()?;
    let own = model.file_stem().map(|stem| format!("{}.tokenizer.json", stem.to_string_lossy()));
    let names = own.into_iter().chain(["tokenizer.json".to_owned()]);
    names.map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The tokenizer, told to leave special tokens in a text alone, and its vocabulary.
pub(crate) fn load(file: &Path, content: &Content) -> Result<(Tokenizer, Vocab), String> {
    let mut tokenizer = Tokenizer::from_file(file).map_err(|error| error.to_string())?;
    tokenizer.set_encode_special_tokens(true);
    let tokens = metadata::by_id(tokenizer.get_vocab(true))?;
    let mut kinds = vec![Kind::Normal; tokens.len()];
    for (id, added) in tokenizer.get_added_tokens_decoder() {
        let kind = if added.special { Kind::Control } else { Kind::UserDefined };
        if let Some(slot) = kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }
    for (kind, text) in kinds.iter_mut().zip(&tokens) {
        if *kind == Kind::Normal && super::pieces::byte_token(text).is_some() {
            *kind = Kind::Byte;
        }
    }
    Ok((tokenizer, Vocab::from_parts(tokens, kinds, content)?))
}

/// How the tokens spell bytes: as the byte-level alphabet, or with a mark for the space.
pub(crate) fn bytes_of(tokenizer: &Tokenizer) -> fn(&str, &mut Vec<u8>) {
    match tokenizer.get_decoder() {
        Some(decoder) if is_byte_level(decoder) => byte_level::bytes_of,
        _ => sentencepiece::bytes_of,
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(steps) => steps.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}
