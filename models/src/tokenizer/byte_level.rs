//! The `gpt2` kind: byte-level BPE. The tokenizers crate does the work; this file tells it how each family of models
//! splits a text before the merges, which the GGUF names in `tokenizer.ggml.pre`.

use super::metadata::{Kind, Vocab};
use std::collections::HashMap;
use std::sync::LazyLock;
use tokenizers::models::bpe::{self, BPE};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{PreTokenizerWrapper, Tokenizer};

/// GPT-2's own: contractions, letters, numbers and signs each with one space before, then white space.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// Llama 3: numbers in groups of three, line ends by themselves.
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: as Llama 3, digits one by one.
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o and Phi 4: words end where a capital begins.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Expressions applied in turn, each to what the one before left whole; `None` for a rule that is not known here.
fn expressions(pre: &str) -> Option<&'static [&'static str]> {
    Some(match pre {
        "default" => &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        "llama-bpe" | "llama3" | "llama-v3" | "dbrx" | "smaug-bpe" => &[LLAMA3],
        "qwen2" | "deepseek-r1-qwen" | "megrez" | "stablelm2" | "hunyuan" => &[QWEN2],
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => &[r"\p{N}", GPT2],
        "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jina-es" | "jina-de" | "roberta-bpe" => &[GPT2],
        "gpt-4o" | "llama4" => &[GPT4O],
        _ => return None,
    })
}

pub(crate) fn is_known(pre: &str) -> bool {
    expressions(pre).is_some()
}

pub(crate) fn build(vocab: &Vocab) -> Result<Tokenizer, String> {
    // Only ordinary tokens may come out of merges; a control token that merges could spell must not.
    let ordinary = vocab.of(|index| vocab.kinds[index] == Kind::Normal);
    let ordinary: bpe::Vocab = ordinary.into_iter().map(|(id, text)| (text, id)).collect();
    // A merge whose parts or result are no token can never apply; the library would refuse the whole list for it.
    let known = |left: &str, right: &str| {
        [left, right].into_iter().all(|part| ordinary.contains_key(part))
            && ordinary.contains_key(&format!("{left}{right}"))
    };
    let merges = vocab.merges.iter().filter(|(left, right)| known(left, right)).cloned().collect();
    let model = BPE::builder()
        .vocab_and_merges(ordinary, merges)
        .ignore_merges(vocab.is_llama3())
        .build()
        .map_err(|error| format!("tokenizer.ggml.merges: {error}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(&vocab.pre)?));
    Ok(tokenizer)
}

fn pre_tokenizer(pre: &str) -> Result<PreTokenizerWrapper, String> {
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    let unknown = || format!("tokenizer.ggml.pre is {pre:?}, a rule that is not known here");
    for expression in expressions(pre).ok_or_else(unknown)? {
        let pattern = SplitPattern::Regex((*expression).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|error| error.to_string())?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    Ok(Sequence::new(steps).into())
}

/// Byte-level tokens write each byte as one printable character: printable Latin-1 bytes as themselves, the others in
/// order from U+0100.
static BYTE_OF: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    (0..=255u8)
        .map(|byte| match printable(byte) {
            true => (char::from(byte), byte),
            false => (others.next().and_then(char::from_u32).expect("256 values follow U+0100"), byte),
        })
        .collect()
});

/// Appends the bytes of a token; characters outside the alphabet stand for themselves.
pub(crate) fn bytes_of(text: &str, bytes: &mut Vec<u8>) {
    for character in text.chars() {
        match BYTE_OF.get(&character) {
            Some(&byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}
