//! From a prompt's text to numbers. An encoder never sees a benchmark's name or a label.

use crate::hashing::{hash, sign};
use std::collections::HashMap;

/// What the router sees of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFeatures {
    /// The encoder's output; its length is [`Encoder::width`], its Euclidean norm about 1.
    pub values: Vec<f32>,
    /// Tokens of the whole prompt, as counted or estimated by the caller.
    pub prompt_tokens: u32,
}

/// Text in, a vector of fixed width out.
pub trait Encoder: Send + Sync {
    /// Recorded with the learned state: heads learned on one encoder's vectors mean nothing on another's.
    fn name(&self) -> &str;

    fn width(&self) -> usize;

    /// `values` has `width()` finite numbers.
    fn encode(&self, text: &str) -> Vec<f32>;

    fn features(&self, text: &str, prompt_tokens: u32) -> RequestFeatures {
        RequestFeatures { values: self.encode(text), prompt_tokens }
    }
}

/// Words, word pairs and the shape of the characters, hashed with signs into a fixed number of buckets (a count
/// sketch), beside five numbers about length and make-up. Needs no download and costs tens of microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct HashedEncoder;

/// Buckets plus the five shape features plus the heads' bias make 128, a multiple of every vector unit's lanes.
const BUCKETS: usize = 122;
const SHAPES: usize = 5;
/// Words looked at: a prompt's first 400 tell its kind, and the time stays bounded.
const MAX_WORDS: usize = 400;
/// Bytes whose shape is looked at.
const MAX_SHAPE_BYTES: usize = 1_500;
/// How much each family counts; found on other orders of the data than those the targets are measured on.
const WORD_WEIGHT: f32 = 0.3;
const PAIR_WEIGHT: f32 = 0.2;
const SHAPE_GRAM_WEIGHT: f32 = 0.8;
const SHAPE_WEIGHT: f32 = 0.2;
/// Bytes in a window over the characters' shapes.
const SHAPE_GRAM: usize = 4;

impl Encoder for HashedEncoder {
    fn name(&self) -> &str {
        "hashed-1"
    }

    fn width(&self) -> usize {
        BUCKETS + SHAPES
    }

    fn encode(&self, text: &str) -> Vec<f32> {
        let mut values = vec![0.0; BUCKETS];
        let words = words(text);
        let singles = words.iter().map(|word| hash(word.as_bytes(), 1));
        add_family(&mut values, singles, WORD_WEIGHT);
        let pairs = words.windows(2).map(|pair| hash(pair.join(" ").as_bytes(), 2));
        add_family(&mut values, pairs, PAIR_WEIGHT);
        let shapes: Vec<u8> = text.bytes().take(MAX_SHAPE_BYTES).map(shape).collect();
        let grams = shapes.windows(SHAPE_GRAM).map(|gram| hash(gram, 3));
        add_family(&mut values, grams, SHAPE_GRAM_WEIGHT);
        values.extend(shape_features(text));
        values
    }
}

/// Lower-case words; a number is one word, whatever its digits, since its size says little about difficulty.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(MAX_WORDS);
    words.map(|word| if is_number(word) { "0".to_owned() } else { word.to_lowercase() }).collect()
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A character's class; punctuation and line ends stay, because they carry a prompt's template.
fn shape(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => b'0',
        b'A'..=b'Z' => b'A',
        b'a'..=b'z' => b'a',
        other => other,
    }
}

/// Adds one family of n-grams, scaled to `weight` whatever the prompt's length.
fn add_family(values: &mut [f32], grams: impl Iterator<Item = u64>, weight: f32) {
    let mut counts: HashMap<u64, f32> = HashMap::new();
    grams.for_each(|gram| *counts.entry(gram).or_default() += 1.0);
    let mut family = vec![0.0f32; values.len()];
    // The order of a hash map differs from run to run; sums of floats must not.
    let mut counts: Vec<(u64, f32)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(gram, _)| gram);
    for (gram, count) in counts {
        family[gram as usize % values.len()] += sign(gram) * (1.0 + count.ln());
    }
    let norm = family.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        values.iter_mut().zip(&family).for_each(|(value, part)| *value += weight * part / norm);
    }
}

/// Length, its square, and the shares of digits, line ends and capitals, each brought to the order of one.
fn shape_features(text: &str) -> [f32; SHAPES] {
    let count = |wanted: fn(char) -> bool| text.chars().filter(|&c| wanted(c)).count() as f32;
    let characters = count(|_| true).max(1.0);
    // e^5.5 is about 245 characters, a common prompt.
    let length = (characters.ln() - 5.5).clamp(-4.0, 8.0);
    let features = [
        length,
        (length * length - 1.0) * 0.5,
        10.0 * count(|c| c.is_ascii_digit()) / characters,
        0.5 * count(|c| c == '\n').ln_1p(),
        10.0 * count(char::is_uppercase) / characters,
    ];
    features.map(|feature| SHAPE_WEIGHT * feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn prompts_of_one_kind_are_nearer_than_prompts_of_two() {
        let one = HashedEncoder.encode("Tom has 3 apples and buys 14 more. How many apples does Tom have?");
        let two = HashedEncoder.encode("Ann has 7 pens and loses 2 of them. How many pens does Ann have?");
        let other = HashedEncoder.encode("Write a python function to reverse a linked list.\n\ndef reverse(head):");
        assert!(cosine(&one, &two) > cosine(&one, &other) + 0.1);
    }

    #[test]
    fn nothing_but_bytes_is_also_a_prompt() {
        assert_eq!(HashedEncoder.encode("").len(), HashedEncoder.width());
        assert_eq!(HashedEncoder.encode("x"), HashedEncoder.encode("x"));
    }

    proptest! {
        #[test]
        fn every_text_gives_finite_numbers_of_bounded_size(text in "\\PC{0,300}") {
            let values = HashedEncoder.encode(&text);
            prop_assert_eq!(values.len(), HashedEncoder.width());
            prop_assert!(values.iter().all(|value| value.is_finite() && value.abs() < 10.0));
        }
    }
}
