//! Keeps the text of messages from becoming control tokens; see the page of [`crate::chat`].

use super::{ChatMessage, ChatTemplate};
use crate::error::ModelError;
use crate::tokenizer::Tokenizer;
use std::collections::BTreeSet;

/// Characters that nobody's text means anything by: the private-use areas.
const CANDIDATES: [std::ops::RangeInclusive<u32>; 2] = [0xE000..=0xF8FF, 0xF_0000..=0xF_FFFD];

pub(super) struct Shield {
    character: char,
    first: BTreeSet<char>,
    last: BTreeSet<char>,
    /// Markers that an assistant's own text may hold, such as `<think>`: templates look for them in it.
    writable: Vec<String>,
}

impl Shield {
    /// Chooses a character that occurs neither in the messages nor in the template.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[ChatMessage],
    ) -> Result<Shield, ModelError> {
        let texts = messages.iter().map(|message| message.content.as_str()).chain([template.source()]);
        let used: BTreeSet<char> = texts.flat_map(str::chars).filter(|&c| u32::from(c) >= 0xE000).collect();
        let mut free = CANDIDATES.into_iter().flatten().filter_map(char::from_u32).filter(|c| !used.contains(c));
        let character = free.next().ok_or_else(|| {
            ModelError::Tokenizer("the messages use every private-use character of Unicode; remove some".into())
        })?;
        let markers = tokenizer.marker_texts();
        Ok(Shield {
            character,
            first: markers.iter().filter_map(|text| text.chars().next()).collect(),
            last: markers.iter().filter_map(|text| text.chars().next_back()).collect(),
            writable: markers.iter().filter(|text| tokenizer.is_writable(text)).cloned().collect(),
        })
    }

    pub(super) fn character(&self) -> char {
        self.character
    }

    /// The message with shields in its text.
    pub(super) fn apply(&self, message: &ChatMessage) -> ChatMessage {
        let writable: &[String] = if message.role == "assistant" { &self.writable } else { &[] };
        ChatMessage { role: message.role.clone(), content: self.cover(&message.content, writable) }
    }

    fn cover(&self, text: &str, writable: &[String]) -> String {
        let mut covered = String::with_capacity(text.len() + text.len() / 8);
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if let Some(marker) = writable.iter().find(|marker| rest.starts_with(marker.as_str())) {
                covered.push_str(marker);
                rest = &rest[marker.len()..];
                continue;
            }
            if self.last.contains(&character) {
                covered.push(self.character);
            }
            covered.push(character);
            if self.first.contains(&character) {
                covered.push(self.character);
            }
            rest = &rest[character.len_utf8()..];
        }
        covered
    }
}
