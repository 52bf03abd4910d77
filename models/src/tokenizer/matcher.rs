//! Finds the tokens that are recognised by their literal text, the longest first.

use aho_corasick::{AhoCorasick, MatchKind};

/// A set of literal texts with their token ids.
pub(crate) struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
    texts: Vec<String>,
    strips_right: Vec<bool>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Token(u32),
    /// Never empty.
    Text(&'a str),
}

impl Matcher {
    /// A token for which `strips_right` holds swallows the white space after it.
    pub(crate) fn new(tokens: Vec<(u32, String)>, strips_right: impl Fn(u32) -> bool) -> Result<Matcher, String> {
        let (ids, texts): (Vec<u32>, Vec<String>) = tokens.into_iter().unzip();
        let build = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        let automaton = match texts.is_empty() {
            true => None,
            false => Some(build().map_err(|error| format!("the special tokens cannot be matched: {error}"))?),
        };
        let strips_right = ids.iter().map(|&id| strips_right(id)).collect();
        Ok(Matcher { automaton, ids, texts, strips_right })
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        self.texts.iter().position(|own| own == text).map(|index| self.ids[index])
    }

    /// The tokens found in `text`, and the text between them, in order.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut from = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            push_text(&mut parts, text.get(from..found.start()));
            let index = found.pattern().as_usize();
            parts.push(Part::Token(self.ids[index]));
            from = found.end();
            if self.strips_right[index] {
                from = text.len() - text[from..].trim_start().len();
            }
        }
        push_text(&mut parts, text.get(from..));
        parts
    }
}

fn push_text<'a>(parts: &mut Vec<Part<'a>>, text: Option<&'a str>) {
    parts.extend(text.filter(|text| !text.is_empty()).map(Part::Text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(tokens: &[&str]) -> Matcher {
        let tokens = tokens.iter().enumerate().map(|(id, text)| (id as u32, (*text).to_owned())).collect();
        Matcher::new(tokens, |id| id == 2).expect("small automaton")
    }

    #[test]
    fn the_longest_token_wins_and_the_rest_is_text() {
        let parts = matcher(&["<a>", "<a><b>"]).split("x<a><b>y<a>");
        assert_eq!(parts, [Part::Text("x"), Part::Token(1), Part::Text("y"), Part::Token(0)]);
    }

    #[test]
    fn a_stripping_token_swallows_the_white_space_after_it() {
        let parts = matcher(&["<a>", "<b>", "<c>"]).split("<c> \n<c>\t x<a> y");
        assert_eq!(parts, [Part::Token(2), Part::Token(2), Part::Text("x"), Part::Token(0), Part::Text(" y")]);
    }

    #[test]
    fn an_empty_set_leaves_the_text_whole() {
        assert_eq!(matcher(&[]).split("<a>"), [Part::Text("<a>")]);
        assert_eq!(matcher(&["<a>"]).split(""), []);
    }
}
