//! The bytes of every token, in one buffer.

use super::metadata::{Kind, Vocab};

pub(crate) struct Pieces {
    bytes: Vec<u8>,
    /// `ends[id]` is where the token's bytes end; they begin where those of the token before end.
    ends: Vec<usize>,
}

impl Pieces {
    /// `bytes_of` turns the text of an ordinary token into bytes. Control and unknown tokens have none, user-defined
    /// ones stand for their text, byte tokens for their byte.
    pub(crate) fn new(vocab: &Vocab, bytes_of: impl Fn(&str, &mut Vec<u8>)) -> Pieces {
        let mut pieces = Pieces { bytes: Vec::new(), ends: Vec::with_capacity(vocab.tokens.len()) };
        for (text, kind) in vocab.tokens.iter().zip(&vocab.kinds) {
            match kind {
                Kind::Control | Kind::Unknown | Kind::Unused => {}
                Kind::UserDefined => pieces.bytes.extend_from_slice(text.as_bytes()),
                Kind::Byte => pieces.bytes.extend(byte_token(text)),
                Kind::Normal => bytes_of(text, &mut pieces.bytes),
            }
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// `<0x0A>` is the byte 10.
pub(crate) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}
