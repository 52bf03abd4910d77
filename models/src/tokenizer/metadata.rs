//! The tokenizer keys of a GGUF file, read into one checked vocabulary. No other file spells these keys.

use candle_core::quantized::gguf_file::{Content, Value};
use std::collections::{BTreeSet, HashMap};

/// The largest vocabulary read: four times the largest in use (Gemma 3, 262,144).
pub(crate) const MAX_VOCAB: usize = 1 << 20;

/// What a token is for, as llama.cpp's `token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// Texts of tokens that end an answer, whichever id they have: a file names one or two ids, and a model trained for
/// chat may end with either.
const END_TEXTS: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|eot|>",
    "<EOT>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
];

#[derive(Debug, Default)]
pub(crate) struct Vocab {
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    /// One per token for the `llama` kind, else empty.
    pub(crate) scores: Vec<f32>,
    pub(crate) merges: Vec<(String, String)>,
    pub(crate) pre: String,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) ends: BTreeSet<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    pub(crate) add_space_prefix: bool,
    /// Phi 3's control tokens swallow the white space after them.
    strips_right: bool,
    template: String,
}

/// `gpt2`, `llama`, or whatever the file says.
pub(crate) fn kind_name(content: &Content) -> Option<&str> {
    string(content, "tokenizer.ggml.model")
}

/// How a `gpt2` text is split before the merges; files older than the key mean `default`.
pub(crate) fn pre(content: &Content) -> &str {
    string(content, "tokenizer.ggml.pre").unwrap_or("default")
}

pub(crate) fn chat_template(content: &Content) -> Option<&str> {
    string(content, "tokenizer.chat_template").filter(|template| !template.trim().is_empty())
}

impl Vocab {
    /// Reads and checks the vocabulary; the error names the key.
    pub(crate) fn read(content: &Content) -> Result<Vocab, String> {
        let tokens = strings(content, "tokenizer.ggml.tokens")?
            .ok_or("the metadata holds no tokenizer.ggml.tokens; the file is no complete chat model")?;
        check_size(tokens.len())?;
        let llama = kind_name(content) == Some("llama");
        let mut vocab = Vocab {
            kinds: kinds(content, tokens.len())?,
            scores: if llama { scores(content, tokens.len())? } else { Vec::new() },
            merges: merges(content)?,
            pre: pre(content).to_owned(),
            bos: token_id(content, "tokenizer.ggml.bos_token_id", tokens.len())?.or(llama.then_some(1)),
            eos: token_id(content, "tokenizer.ggml.eos_token_id", tokens.len())?.or(llama.then_some(2)),
            unknown: token_id(content, "tokenizer.ggml.unknown_token_id", tokens.len())?,
            add_eos: flag(content, "tokenizer.ggml.add_eos_token").unwrap_or(false),
            add_space_prefix: flag(content, "tokenizer.ggml.add_space_prefix").unwrap_or(llama),
            template: chat_template(content).unwrap_or_default().to_owned(),
            strips_right: is_phi3(content),
            tokens,
            ..Vocab::default()
        };
        vocab.bos = vocab.bos.filter(|&id| (id as usize) < vocab.tokens.len());
        vocab.eos = vocab.eos.filter(|&id| (id as usize) < vocab.tokens.len());
        vocab.add_bos = flag(content, "tokenizer.ggml.add_bos_token").unwrap_or(llama || vocab.is_llama3());
        vocab.find_ends(content)?;
        Ok(vocab)
    }

    /// A vocabulary that comes from elsewhere, with the ends and the template's markers that the metadata adds.
    pub(crate) fn from_parts(tokens: Vec<String>, kinds: Vec<Kind>, content: &Content) -> Result<Vocab, String> {
        check_size(tokens.len())?;
        let count = tokens.len();
        let mut vocab = Vocab {
            bos: token_id(content, "tokenizer.ggml.bos_token_id", count)?,
            eos: token_id(content, "tokenizer.ggml.eos_token_id", count)?,
            add_bos: flag(content, "tokenizer.ggml.add_bos_token").unwrap_or(false),
            add_eos: flag(content, "tokenizer.ggml.add_eos_token").unwrap_or(false),
            template: chat_template(content).unwrap_or_default().to_owned(),
            strips_right: is_phi3(content),
            tokens,
            kinds,
            ..Vocab::default()
        };
        vocab.find_ends(content)?;
        Ok(vocab)
    }

    /// The tokens that `wanted` picks by index, with their ids; empty texts never.
    pub(crate) fn of(&self, wanted: impl Fn(usize) -> bool) -> Vec<(u32, String)> {
        let picked = (0..self.tokens.len()).filter(|&index| wanted(index) && !self.tokens[index].is_empty());
        picked.map(|index| (index as u32, self.tokens[index].clone())).collect()
    }

    /// Control tokens, and user-defined ones that the chat template itself writes. A run of white space is no marker.
    pub(crate) fn is_marker(&self, index: usize) -> bool {
        let text = &self.tokens[index];
        match self.kinds[index] {
            Kind::Control => true,
            Kind::UserDefined => !text.trim().is_empty() && self.template.contains(text.as_str()),
            _ => false,
        }
    }

    pub(crate) fn strips_right(&self, id: u32) -> bool {
        let text = self.tokens[id as usize].as_str();
        self.strips_right && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>")
    }

    pub(crate) fn is_llama3(&self) -> bool {
        matches!(self.pre.as_str(), "llama-bpe" | "llama3" | "llama-v3")
    }

    /// Ends are control tokens, whatever type the file gives them: text must never produce one.
    fn find_ends(&mut self, content: &Content) -> Result<(), String> {
        let mut ends: BTreeSet<u32> = self.eos.into_iter().collect();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            ends.extend(token_id(content, key, self.tokens.len())?);
        }
        let named = self.tokens.iter().enumerate().filter(|(_, text)| END_TEXTS.contains(&text.as_str()));
        ends.extend(named.map(|(index, _)| index as u32));
        for &id in ends.iter().chain(&self.bos) {
            self.kinds[id as usize] = Kind::Control;
        }
        self.ends = ends;
        Ok(())
    }
}

fn check_size(tokens: usize) -> Result<(), String> {
    match tokens {
        0 => Err("tokenizer.ggml.tokens is empty".into()),
        count if count > MAX_VOCAB => {
            Err(format!("{count} tokens in the vocabulary, and at most {MAX_VOCAB} are read"))
        }
        _ => Ok(()),
    }
}

/// llama.cpp tells Phi 3 by its name, because the GGUF does not carry the tokenizer's stripping rule.
fn is_phi3(content: &Content) -> bool {
    let name = string(content, "general.name").unwrap_or_default().to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

fn kinds(content: &Content, tokens: usize) -> Result<Vec<Kind>, String> {
    let key = "tokenizer.ggml.token_type";
    let Some(values) = array(content, key)? else { return Ok(vec![Kind::Normal; tokens]) };
    check_count(key, values.len(), tokens)?;
    let kind = |value: &Value| match integer(value) {
        Some(2) => Kind::Unknown,
        Some(3) => Kind::Control,
        Some(4) => Kind::UserDefined,
        Some(5) => Kind::Unused,
        Some(6) => Kind::Byte,
        _ => Kind::Normal,
    };
    Ok(values.iter().map(kind).collect())
}

fn scores(content: &Content, tokens: usize) -> Result<Vec<f32>, String> {
    let key = "tokenizer.ggml.scores";
    let values = array(content, key)?.ok_or("the metadata holds no tokenizer.ggml.scores")?;
    check_count(key, values.len(), tokens)?;
    let score = |value: &Value| value.to_f32().map_err(|_| format!("{key} holds something that is no f32"));
    values.iter().map(score).collect()
}

fn merges(content: &Content) -> Result<Vec<(String, String)>, String> {
    let key = "tokenizer.ggml.merges";
    let split = |merge: String| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
        None => Err(format!("{key}: the merge {merge:?} is not two tokens with a space between")),
    };
    strings(content, key)?.unwrap_or_default().into_iter().map(split).collect()
}

fn check_count(key: &str, found: usize, tokens: usize) -> Result<(), String> {
    if found == tokens {
        return Ok(());
    }
    Err(format!("{key} has {found} entries for {tokens} tokens"))
}

/// An id outside the vocabulary is an error: it would end no answer, or index past a table.
fn token_id(content: &Content, key: &str, tokens: usize) -> Result<Option<u32>, String> {
    let Some(value) = content.metadata.get(key) else { return Ok(None) };
    let id = integer(value).ok_or_else(|| format!("{key} is no integer"))?;
    match u32::try_from(id) {
        Ok(id) if (id as usize) < tokens => Ok(Some(id)),
        // Converters write -1 (as u32 too) where there is no such token.
        _ if id == -1 || id == i64::from(u32::MAX) => Ok(None),
        _ => Err(format!("{key} is {id}, and the vocabulary has {tokens} tokens")),
    }
}

fn string<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    content.metadata.get(key).and_then(|value| value.to_string().ok()).map(String::as_str)
}

fn flag(content: &Content, key: &str) -> Option<bool> {
    content.metadata.get(key).and_then(|value| value.to_bool().ok())
}

fn array<'a>(content: &'a Content, key: &str) -> Result<Option<&'a [Value]>, String> {
    match content.metadata.get(key) {
        None => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(_) => Err(format!("{key} is not a list")),
    }
}

fn strings(content: &Content, key: &str) -> Result<Option<Vec<String>>, String> {
    let Some(values) = array(content, key)? else { return Ok(None) };
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{key} holds something that is no text")),
    };
    values.iter().map(text).collect::<Result<_, _>>().map(Some)
}

fn integer(value: &Value) -> Option<i64> {
    Some(match *value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::I64(v) => v,
        Value::U64(v) => i64::try_from(v).ok()?,
        _ => return None,
    })
}

/// Text of each token by id; used where a vocabulary comes as a map.
pub(crate) fn by_id(map: HashMap<String, u32>) -> Result<Vec<String>, String> {
    let count = map.values().copied().max().map_or(0, |id| id as usize + 1);
    check_size(count)?;
    let mut tokens = vec![String::new(); count];
    for (text, id) in map {
        tokens[id as usize] = text;
    }
    Ok(tokens)
}
