//! The project's own training sentences: a small grammar, expanded with a seed.

use anyhow::{Context, bail, ensure};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

const GRAMMAR: &str = include_str!("phrases.txt");
/// Sentences drawn from one line, at most: enough to fill its slots in many ways.
const DRAWS: usize = 24;

/// A sentence, and which line of the grammar it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrase {
    pub text: String,
    pub task: String,
    pub line: usize,
}

/// The whole file, for the card's hash.
pub(super) fn source() -> &'static str {
    GRAMMAR
}

/// Expands every line; the same seed gives the same sentences, each once.
pub(super) fn expand(seed: u64) -> anyhow::Result<Vec<Phrase>> {
    expand_grammar(GRAMMAR, seed)
}

fn expand_grammar(grammar: &str, seed: u64) -> anyhow::Result<Vec<Phrase>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut words, mut phrases) = (BTreeMap::new(), Vec::new());
    for (number, line) in (1..).zip(grammar.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((task, sentence)) = line.split_once(": ")
            && task.starts_with(char::is_uppercase)
        {
            let mut drawn = BTreeSet::new();
            for _ in 0..DRAWS {
                let text = draw(sentence, &words, &mut random).with_context(|| format!("phrases.txt:{number}"))?;
                drawn.insert(text);
            }
            phrases.extend(drawn.into_iter().map(|text| Phrase { text, task: task.to_owned(), line: number }));
        } else if let Some((name, choices)) = line.split_once('=') {
            let choices = choices.split('|').map(|choice| choice.trim().to_owned()).collect();
            words.insert(name.trim().to_owned(), choices);
        } else {
            bail!("phrases.txt:{number}: neither `name = a | b` nor `Category: sentence`");
        }
    }
    Ok(phrases)
}

/// One sentence: each `{name}` and each `(a|b)` replaced by one of its choices, outermost last.
fn draw(sentence: &str, words: &BTreeMap<String, Vec<String>>, random: &mut impl Rng) -> anyhow::Result<String> {
    let mut text = sentence.to_owned();
    while let Some(start) = text.find('(') {
        let end = text[start..].find(')').context("a bracket is not closed")? + start;
        let choices: Vec<&str> = text[start + 1..end].split('|').collect();
        let chosen = (*choices.choose(random).context("no choice")?).to_owned();
        text.replace_range(start..=end, &chosen);
    }
    while let Some(start) = text.find('{') {
        let end = text[start..].find('}').context("a brace is not closed")? + start;
        let name = &text[start + 1..end];
        let chosen = words.get(name).and_then(|choices| choices.choose(random));
        let chosen = chosen.with_context(|| format!("no words for {{{name}}}"))?.clone();
        text.replace_range(start..=end, &chosen);
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(!text.contains(['(', ')', '{', '}', '|']), "{text:?} is not complete");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_expands_the_same_way_for_the_same_seed() {
        let phrases = expand(1).unwrap();
        assert_eq!(phrases, expand(1).unwrap());
        assert_ne!(phrases, expand(2).unwrap());
        let tasks: BTreeSet<&str> = phrases.iter().map(|phrase| phrase.task.as_str()).collect();
        assert_eq!(
            tasks.into_iter().collect::<Vec<_>>(),
            ["Assistive System", "Message Editing", "Query", "Recommendation"]
        );
        assert!(phrases.len() > 1_000, "{}", phrases.len());
    }

    #[test]
    fn a_fault_in_the_grammar_names_its_line() {
        for (grammar, word) in [("Query: {x}", "{x}"), ("Query: (a", "bracket"), ("what is this", "neither")] {
            let error = format!("{:#}", expand_grammar(grammar, 1).unwrap_err());
            assert!(error.contains("phrases.txt:1") && error.contains(word), "{error}");
        }
    }
}
