//! The text stream: whole characters, stop strings, whatever the tokens are.

use proptest::prelude::*;
use tether_models::text::{MAX_STOP_BYTES, MAX_STOP_STRINGS};
use tether_models::{ModelError, TextStream};

fn stream(stop: &[&str]) -> TextStream {
    TextStream::new(&stop.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn pushed(stop: &[&str], pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = stream(stop);
    let mut shown: Vec<String> = pieces.iter().map(|piece| stream.push(piece)).collect();
    shown.push(stream.finish());
    shown
}

#[test]
fn a_character_waits_for_its_last_byte() {
    assert_eq!(pushed(&[], &[b"a\xf0\x9f", b"\x99", b"\x82b"]), ["a", "", "🙂b", ""]);
    assert_eq!(pushed(&[], &[b"\xf0\x9f"]), ["", "\u{fffd}"], "an unfinished character at the end");
    assert_eq!(pushed(&[], &[b"\xffa", b"\xc3", b"("]), ["\u{fffd}a", "", "\u{fffd}(", ""], "bytes that are no UTF-8");
}

#[test]
fn a_stop_string_is_found_across_tokens_and_never_shown() {
    assert_eq!(pushed(&["END"], &[b"one E", b"N", b"D two", b"three"]), ["one ", "", "", "", ""]);
    assert_eq!(pushed(&["END"], &[b"one E", b"N", b"C two"]), ["one ", "", "ENC two", ""]);
    assert_eq!(pushed(&["END"], &[b"one EN"]), ["one ", "EN"], "held text is given back at the end");
    assert_eq!(pushed(&["aab"], &[b"aa", b"ab", b"x"]), ["", "a", "", ""]);
    assert_eq!(pushed(&["🙂!"], &[b"\xf0\x9f\x99", b"\x82", b"!"]), ["", "", "", ""]);
}

#[test]
fn the_stop_string_that_is_complete_first_wins() {
    assert_eq!(pushed(&["abc", "b"], &[b"xabc"])[0], "xa");
    assert_eq!(pushed(&["abc", "b"], &[b"x", b"a", b"b", b"c"]).concat(), "xa");
    assert_eq!(pushed(&["bc", "abc"], &[b"xabc"])[0], "x");
}

#[test]
fn stop_strings_have_limits() {
    let refused = |stop: Vec<String>| match TextStream::new(&stop) {
        Err(ModelError::Parameter { parameter: "stop", .. }) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    };
    assert!(refused(vec![String::new()]));
    assert!(!refused(vec!["x".repeat(MAX_STOP_BYTES); MAX_STOP_STRINGS]));
    assert!(refused(vec!["x".repeat(MAX_STOP_BYTES + 1)]));
    assert!(refused(vec!["x".into(); MAX_STOP_STRINGS + 1]));
}

/// The whole text up to the stop string that is complete first.
fn expected(text: &str, stop: &[String]) -> String {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    for end in ends {
        let complete = stop.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(length) = complete.map(String::len).max() {
            return text[..end - length].to_owned();
        }
    }
    text.to_owned()
}

proptest! {
    #[test]
    fn the_text_does_not_depend_on_how_it_was_cut(
        text in "[abcé🙂]{0,40}",
        stop in proptest::collection::vec("[abcé🙂]{1,4}", 0..4),
        cuts in proptest::collection::vec(0usize..120, 0..30),
    ) {
        let mut stream = TextStream::new(&stop).unwrap();
        let mut shown = String::new();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        for range in cuts.windows(2) {
            shown += &stream.push(&text.as_bytes()[range[0]..range[1]]);
            prop_assert!(expected(&text, &stop).starts_with(&shown));
        }
        prop_assert_eq!(stream.is_stopped(), expected(&text, &stop) != text || stop.iter().any(|stop| text.ends_with(stop.as_str())));
        shown += &stream.finish();
        prop_assert_eq!(shown, expected(&text, &stop));
    }

    #[test]
    fn any_bytes_become_the_text_that_the_standard_library_makes_of_them(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..20),
    ) {
        let mut stream = stream(&[]);
        let mut shown: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        shown += &stream.finish();
        let whole = pieces.concat();
        prop_assert_eq!(shown, String::from_utf8_lossy(&whole));
    }
}
