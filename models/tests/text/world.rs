//! Vocabularies and golden files for the tests of the text side.

use candle_core::quantized::gguf_file::{Content, Value, VersionedMagic};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tether_models::Tokenizer;

pub(crate) const NORMAL: i32 = 1;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;

pub(crate) fn golden(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// The metadata of the real model, or `None` with a word about it.
pub(crate) fn real_metadata() -> Option<(Content, PathBuf)> {
    let Some(path) = tether_models::testing::real_model() else {
        eprintln!("SKIPPED: no real model; `make model` fetches it, or set TETHER_TEST_MODEL");
        return None;
    };
    let content = Content::read(&mut std::fs::File::open(&path).unwrap()).unwrap();
    Some((content, path))
}

pub(crate) fn content(entries: Vec<(&str, Value)>) -> Content {
    let metadata: HashMap<String, Value> = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Content { magic: VersionedMagic::GgufV3, metadata, tensor_infos: HashMap::new(), tensor_data_offset: 0 }
}

pub(crate) fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(values.into_iter().map(text).collect())
}

pub(crate) fn ids_of(golden: &Json) -> Vec<Vec<u32>> {
    serde_json::from_value(golden.clone()).unwrap()
}

/// A `gpt2` vocabulary of all 256 bytes and the given special tokens, ids from 256 on. The first is the beginning,
/// the second the end of a sequence.
pub(crate) fn bytes_vocabulary(specials: &[(&str, i32)], template: &str) -> Content {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    let alphabet: Vec<String> = (0..256u32)
        .map(|byte| if printable(byte) { byte } else { others.next().unwrap() })
        .map(|code| char::from_u32(code).unwrap().to_string())
        .collect();
    let tokens = alphabet.iter().map(String::as_str).chain(specials.iter().map(|(text, _)| *text));
    let types = std::iter::repeat_n(NORMAL, 256).chain(specials.iter().map(|(_, kind)| *kind));
    content(vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(types.map(Value::I32).collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(256)),
        ("tokenizer.ggml.eos_token_id", Value::U32(257)),
        ("tokenizer.chat_template", text(template)),
    ])
}

pub(crate) fn tokenizer(content: &Content) -> Tokenizer {
    Tokenizer::from_gguf(content, Path::new("test.gguf")).unwrap()
}
