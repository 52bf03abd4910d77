//! The `llama` kind: SentencePiece's BPE over token scores, with bytes for what the vocabulary cannot spell.
//!
//! A text starts as single characters. Of all neighbouring pairs that together are a token, the one with the highest
//! score joins first, the leftmost among equals, until none is left.

use super::metadata::{Kind, Vocab};
use super::pieces::byte_token;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// Stands for a space inside tokens.
const SPACE: char = '\u{2581}';

pub(crate) struct SentencePiece {
    /// Ordinary tokens only: no join may spell a control token.
    tokens: HashMap<String, (u32, f32)>,
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    add_space_prefix: bool,
}

/// A stretch of the text that is one token or one character, in a list linked by index.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 once it has been joined to the symbol before it.
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that could join.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl SentencePiece {
    pub(crate) fn new(vocab: &Vocab) -> Result<SentencePiece, String> {
        let ordinary = vocab.of(|index| vocab.kinds[index] == Kind::Normal);
        let scored = |(id, text): (u32, String)| (text, (id, vocab.scores[id as usize]));
        let mut bytes = vec![None; 256];
        for (id, text) in vocab.of(|index| vocab.kinds[index] == Kind::Byte) {
            let byte =
                byte_token(&text).ok_or_else(|| format!("{text:?} is marked as a byte token and names no byte"))?;
            bytes[usize::from(byte)] = Some(id);
        }
        let unknown =
            vocab.unknown.or_else(|| vocab.kinds.iter().position(|&kind| kind == Kind::Unknown).map(|id| id as u32));
        if unknown.is_none() && bytes.contains(&None) {
            return Err("the vocabulary has neither all 256 byte tokens nor an unknown token".into());
        }
        let tokens = ordinary.into_iter().map(scored).collect();
        Ok(SentencePiece { tokens, bytes, unknown, add_space_prefix: vocab.add_space_prefix })
    }

    /// Appends the ids of `text`, which stands at the beginning of a text or after a special token.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let prefix = if self.add_space_prefix { " " } else { "" };
        let text = format!("{prefix}{text}").replace(' ', SPACE.encode_utf8(&mut [0; 4]));
        let mut symbols = characters(&text);
        let mut pairs = BinaryHeap::new();
        for left in 0..symbols.len() {
            pairs.extend(self.pair(&text, &symbols, Some(left)));
        }
        while let Some(pair) = pairs.pop() {
            if join(&mut symbols, &pair) {
                pairs.extend(self.pair(&text, &symbols, symbols[pair.left].previous));
                pairs.extend(self.pair(&text, &symbols, Some(pair.left)));
            }
        }
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            self.push(&text[symbol.start..symbol.start + symbol.len], ids);
        }
    }

    /// The symbol at `left` with its right neighbour, if the two are a token.
    fn pair(&self, text: &str, symbols: &[Symbol], left: Option<usize>) -> Option<Pair> {
        let left = left?;
        let right = symbols[left].next?;
        let len = symbols[left].len + symbols[right].len;
        let (_, score) = self.tokens.get(&text[symbols[left].start..symbols[left].start + len])?;
        Some(Pair { score: *score, left, right, len })
    }

    fn push(&self, piece: &str, ids: &mut Vec<u32>) {
        if let Some((id, _)) = self.tokens.get(piece) {
            ids.push(*id);
            return;
        }
        for byte in piece.bytes() {
            ids.extend(self.bytes[usize::from(byte)].or(self.unknown));
        }
    }
}

fn characters(text: &str) -> Vec<Symbol> {
    let count = text.chars().count();
    let symbol = |(index, (start, character)): (usize, (usize, char))| Symbol {
        start,
        len: character.len_utf8(),
        previous: index.checked_sub(1),
        next: (index + 1 < count).then_some(index + 1),
    };
    text.char_indices().enumerate().map(symbol).collect()
}

/// Joins the pair unless one of its sides has changed since it was found.
fn join(symbols: &mut [Symbol], pair: &Pair) -> bool {
    let (left, right) = (symbols[pair.left], symbols[pair.right]);
    if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
        return false;
    }
    symbols[pair.left].len = pair.len;
    symbols[pair.left].next = right.next;
    symbols[pair.right].len = 0;
    if let Some(next) = right.next {
        symbols[next].previous = Some(pair.left);
    }
    true
}

/// Appends the bytes of an ordinary token.
pub(crate) fn bytes_of(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(text.replace(SPACE, " ").as_bytes());
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}
