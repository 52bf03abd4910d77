//! Text to hashed features, one at a time, without allocating.
//!
//! A text gives its words, its pairs of neighbouring words, and the 3 to 5 letter pieces of each word (with its ends
//! marked), so that "recommend" and "recommendations" share most of what they are.

use crate::hashing::{hash, sign};

/// Rows of a model's weights. Some 7,000 different features stand in the training sentences; signs make a collision noise
/// rather than bias.
pub const BUCKETS: usize = 4_096;
/// A question tells its kind early; what follows is often quoted material. Bounds the time, too.
pub const MAX_BYTES: usize = 1_024;
/// Letters of a word that are looked at.
const MAX_LETTERS: usize = 24;

const WORD: u64 = 11;
const PAIR: u64 = 12;
const PIECE: u64 = 13;
const PIECES: std::ops::RangeInclusive<usize> = 3..=5;

/// Calls `each(bucket, sign)` for every feature and returns how many there were.
pub fn visit(text: &str, mut each: impl FnMut(usize, f32)) -> usize {
    let mut count = 0;
    let mut add = |feature: u64| {
        each(feature as usize % BUCKETS, sign(feature));
        count += 1;
    };
    let mut previous: Option<u64> = None;
    let mut word = Word::new();
    for part in beginning(text).split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
        word.read(part);
        let whole = hash(word.all(), WORD);
        add(whole);
        if let Some(previous) = previous {
            add(hash(&(previous ^ whole.rotate_left(17)).to_le_bytes(), PAIR));
        }
        for length in PIECES {
            word.pieces(length).for_each(|piece| add(hash(piece, PIECE)));
        }
        previous = Some(whole);
    }
    count
}

/// At most [`MAX_BYTES`], whole characters.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One lower-case word between two marks, in a buffer that is used again.
struct Word {
    bytes: [u8; 4 * (MAX_LETTERS + 2)],
    /// starts[n] is where the n-th letter begins; one more for the end.
    starts: [u8; MAX_LETTERS + 3],
    letters: usize,
}

impl Word {
    fn new() -> Self {
        Self { bytes: [0; 4 * (MAX_LETTERS + 2)], starts: [0; MAX_LETTERS + 3], letters: 0 }
    }

    fn read(&mut self, part: &str) {
        self.letters = 0;
        self.push('^');
        // Which number it is says little about the kind of a question.
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            self.push('0');
        } else {
            part.chars().flat_map(char::to_lowercase).take(MAX_LETTERS).for_each(|letter| self.push(letter));
        }
        self.push('$');
    }

    fn push(&mut self, letter: char) {
        let start = usize::from(self.starts[self.letters]);
        let end = start + letter.encode_utf8(&mut self.bytes[start..]).len();
        self.letters += 1;
        // At most 4 * 26 = 104 bytes.
        self.starts[self.letters] = end as u8;
    }

    fn all(&self) -> &[u8] {
        self.between(0, self.letters)
    }

    fn pieces(&self, length: usize) -> impl Iterator<Item = &[u8]> {
        (length..=self.letters).map(move |end| self.between(end - length, end))
    }

    fn between(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[usize::from(self.starts[start])..usize::from(self.starts[end])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<(usize, f32)> {
        let mut features = Vec::new();
        let count = visit(text, |bucket, sign| features.push((bucket, sign)));
        assert_eq!(count, features.len());
        features
    }

    #[test]
    fn case_punctuation_and_the_size_of_a_number_do_not_matter() {
        assert_eq!(all("Heat it to 400 degrees!"), all("heat, it to 7 DEGREES"));
        assert_ne!(all("heat it"), all("it heat"));
        assert_eq!(all(" \n?!"), []);
    }

    #[test]
    fn words_of_one_stem_share_most_pieces() {
        let shared = |a: &str, b: &str| all(a).iter().filter(|feature| all(b).contains(feature)).count();
        assert!(shared("recommend", "recommendations") > 15);
        assert!(shared("recommend", "kitchen") < 3);
    }

    #[test]
    fn what_is_beyond_the_limit_is_not_looked_at() {
        let text = "a ".repeat(MAX_BYTES / 2);
        assert_eq!(all(&text), all(&format!("{text}kitchen")));
        // The limit falls into the middle of a character.
        assert!(!all(&format!("{}\u{20ac}", "a".repeat(MAX_BYTES - 1))).is_empty());
    }

    proptest! {
        #[test]
        fn every_text_gives_features_within_the_buckets(text in "\\PC{0,200}") {
            prop_assert!(all(&text).iter().all(|&(bucket, sign)| bucket < BUCKETS && sign.abs() == 1.0));
        }
    }
}
