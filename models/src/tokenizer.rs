//! Text to token ids and back, from a GGUF file's own metadata or from a `tokenizer.json` beside the file.
//!
//! Two kinds of token never come out of ordinary text, whoever wrote it: control tokens, and the user-defined tokens
//! that the file's own chat template writes (`<think>`, `<tool_call>`). Both are called *markers* here. Only
//! [`Tokenizer::encode_rendered`], which the chat template's output goes through, recognises them.

mod byte_level;
mod json;
mod matcher;
mod metadata;
mod pieces;
mod sentencepiece;

use crate::error::ModelError;
use candle_core::quantized::gguf_file::Content;
use matcher::Matcher;
use metadata::{Kind, Vocab};
use pieces::Pieces;
use sentencepiece::SentencePiece;
use std::collections::BTreeSet;
use std::path::Path;

/// The longest text encoded at once, in bytes: twice the longest request. It also bounds the work that a hostile text
/// can cause in the splitting expressions.
pub const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;

/// A model's tokenizer. `Send + Sync`; encoding and decoding borrow it.
pub struct Tokenizer {
    encoder: Encoder,
    pieces: Pieces,
    /// Control tokens, and what the chat template writes.
    markers: Matcher,
    /// Tokens that stand for their literal text wherever it occurs, such as a run of spaces.
    literals: Matcher,
    bos: Option<Special>,
    eos: Option<Special>,
    ends: BTreeSet<u32>,
    add_bos: bool,
    add_eos: bool,
}

#[derive(Debug, Clone)]
struct Special {
    id: u32,
    text: String,
}

enum Encoder {
    /// Splitting, byte alphabet and merges by the tokenizers crate.
    Library(Box<tokenizers::Tokenizer>),
    SentencePiece(SentencePiece),
}

impl Tokenizer {
    /// Builds the tokenizer described by the metadata of the GGUF file at `path`; where the metadata holds none that is
    /// known, reads `<stem>.tokenizer.json` or `tokenizer.json` beside the file.
    ///
    /// # Errors
    /// [`ModelError::File`] names the file and what is missing or wrong in it.
    pub fn from_gguf(content: &Content, path: &Path) -> Result<Tokenizer, ModelError> {
        let broken = |problem: String| ModelError::File { path: path.to_owned(), problem };
        match metadata::kind_name(content) {
            Some("llama") => Vocab::read(content).and_then(Self::sentencepiece).map_err(broken),
            Some("gpt2") if byte_level::is_known(metadata::pre(content)) => {
                Vocab::read(content).and_then(Self::byte_level).map_err(broken)
            }
            _ => {
                let file = json::beside(path).ok_or_else(|| broken(unknown_kind(content)))?;
                Self::library(&file, content).map_err(|problem| ModelError::File { path: file, problem })
            }
        }
    }

    fn byte_level(vocab: Vocab) -> Result<Tokenizer, String> {
        let encoder = Encoder::Library(Box::new(byte_level::build(&vocab)?));
        let pieces = Pieces::new(&vocab, byte_level::bytes_of);
        Self::assemble(encoder, pieces, vocab)
    }

    fn sentencepiece(vocab: Vocab) -> Result<Tokenizer, String> {
        let encoder = Encoder::SentencePiece(SentencePiece::new(&vocab)?);
        let pieces = Pieces::new(&vocab, sentencepiece::bytes_of);
        Self::assemble(encoder, pieces, vocab)
    }

    fn library(file: &Path, content: &Content) -> Result<Tokenizer, String> {
        let (tokenizer, vocab) = json::load(file, content)?;
        let pieces = Pieces::new(&vocab, json::bytes_of(&tokenizer));
        Self::assemble(Encoder::Library(Box::new(tokenizer)), pieces, vocab)
    }

    fn assemble(encoder: Encoder, pieces: Pieces, vocab: Vocab) -> Result<Tokenizer, String> {
        let special = |id: Option<u32>| id.map(|id| Special { id, text: vocab.tokens[id as usize].clone() });
        let markers = Matcher::new(vocab.of(|token| vocab.is_marker(token)), |id| vocab.strips_right(id))?;
        let literals =
            Matcher::new(vocab.of(|token| vocab.kinds[token] == Kind::UserDefined && !vocab.is_marker(token)), |_| {
                false
            })?;
        Ok(Tokenizer {
            encoder,
            pieces,
            markers,
            literals,
            bos: special(vocab.bos),
            eos: special(vocab.eos),
            ends: vocab.ends.clone(),
            add_bos: vocab.add_bos,
            add_eos: vocab.add_eos,
        })
    }

    /// Encodes ordinary text: no marker comes out of it. With `add_special`, the tokens for the beginning and the end
    /// of a text are added where the model asks for them.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the text is longer than [`MAX_TEXT_BYTES`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        check_length(text)?;
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(self.bos.as_ref().filter(|_| add_special && self.add_bos).map(|bos| bos.id));
        self.encode_text(text, &mut ids)?;
        ids.extend(self.eos.as_ref().filter(|_| add_special && self.add_eos).map(|eos| eos.id));
        Ok(ids)
    }

    /// Encodes what a chat template rendered: markers are recognised, except where `shield` stands inside them, and
    /// every `shield` is left out. Adds the beginning-of-sequence token where the model asks for it and the template
    /// has not written it.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the text is longer than [`MAX_TEXT_BYTES`].
    pub fn encode_rendered(&self, rendered: &str, shield: Option<char>) -> Result<Vec<u32>, ModelError> {
        check_length(rendered)?;
        let mut ids = Vec::with_capacity(rendered.len() / 3 + 2);
        for part in self.markers.split(rendered) {
            match part {
                matcher::Part::Token(id) => ids.push(id),
                matcher::Part::Text(text) => match shield {
                    Some(shield) => self.encode_text(&text.replace(shield, ""), &mut ids)?,
                    None => self.encode_text(text, &mut ids)?,
                },
            }
        }
        if let Some(bos) = self.bos.as_ref().filter(|bos| self.add_bos && ids.first() != Some(&bos.id)) {
            ids.insert(0, bos.id);
        }
        Ok(ids)
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), ModelError> {
        for part in self.literals.split(text) {
            match part {
                matcher::Part::Token(id) => ids.push(id),
                matcher::Part::Text(text) => self.encode_piece(text, ids)?,
            }
        }
        Ok(())
    }

    fn encode_piece(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), ModelError> {
        match &self.encoder {
            Encoder::SentencePiece(encoder) => encoder.encode(text, ids),
            Encoder::Library(encoder) => {
                let encoding = encoder.encode_fast(text, false);
                let encoding = encoding.map_err(|error| ModelError::Tokenizer(error.to_string()))?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }

    /// The bytes that a token stands for; none for a control token or an id outside the vocabulary. A character may
    /// lie across several tokens.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// The text of `ids`, with U+FFFD for bytes that are no UTF-8.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether this token ends an answer. A model may have several such tokens.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Every token that ends an answer, ascending.
    pub fn end_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The text of the beginning-of-sequence token, empty if there is none.
    pub fn bos_text(&self) -> &str {
        self.bos.as_ref().map_or("", |bos| &bos.text)
    }

    /// The text of the end-of-sequence token, empty if there is none.
    pub fn eos_text(&self) -> &str {
        self.eos.as_ref().map_or("", |eos| &eos.text)
    }

    /// The text of each marker.
    pub(crate) fn marker_texts(&self) -> &[String] {
        self.markers.texts()
    }

    /// Whether the text of a marker is one that a model may write into its own answer, such as `<think>`.
    pub(crate) fn is_writable(&self, marker: &str) -> bool {
        self.markers.id_of(marker).is_some_and(|id| !self.token_bytes(id).is_empty())
    }
}

fn unknown_kind(content: &Content) -> String {
    let found = match metadata::kind_name(content) {
        None => "its metadata holds no tokenizer".to_owned(),
        Some("gpt2") => {
            format!("its tokenizer splits text by the rule {:?}, which is not known here", metadata::pre(content))
        }
        Some(other) => format!("its tokenizer is of the kind {other:?}; known are gpt2 and llama"),
    };
    format!("{found}. The model's tokenizer.json, put beside the file, would serve")
}

fn check_length(text: &str) -> Result<(), ModelError> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(ModelError::Tokenizer(format!(
        "the text has {} bytes and at most {MAX_TEXT_BYTES} are encoded at once",
        text.len()
    )))
}

/// The source of the chat template in the metadata, if there is one.
pub(crate) fn chat_template_source(content: &Content) -> Option<&str> {
    metadata::chat_template(content)
}
