//! Sensor readings as text: one line each, escaped, bounded.

/// The readings under `title`, one a line: `name (age): json`. A reading that would take the block beyond `max_bytes`
/// is left out, and the last line says how many were. Empty if there are no readings.
pub(super) fn block(title: &str, sensors: &[(String, String, u64)], max_bytes: usize) -> String {
    if sensors.is_empty() {
        return String::new();
    }
    let mut block = title.to_owned();
    let mut left_out = 0;
    for (name, json, age_ms) in sensors {
        let line = format!("\n{name} ({}): {}", age_text(*age_ms), escape(json));
        if block.len() + line.len() <= max_bytes {
            block.push_str(&line);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        block.push_str(&format!("\n({left_out} more left out)"));
    }
    block
}

/// `now`, `0.2 s ago`, `12 s ago`, `3 min ago`, `5 h ago`.
pub(super) fn age_text(age_ms: u64) -> String {
    match age_ms {
        0..100 => "now".into(),
        100..10_000 => format!("{}.{} s ago", age_ms / 1_000, age_ms % 1_000 / 100),
        10_000..120_000 => format!("{} s ago", age_ms / 1_000),
        120_000..7_200_000 => format!("{} min ago", age_ms / 60_000),
        _ => format!("{} h ago", age_ms / 3_600_000),
    }
}

/// The same JSON value, written so that no string in it can pass for a chat template's markup: `<` and `[` inside
/// strings, which begin every template's role marks (`<|im_start|>`, `<start_of_turn>`, `[INST]`), become `\u` escapes,
/// and so do characters that break lines or turn the reading direction. Line feeds are escapes in JSON already.
fn escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string && !escaped && (matches!(c, '<' | '[') || is_invisible(c)) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
            continue;
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && !escaped && c == '\\';
        out.push(c);
    }
    out
}

/// Controls, and the format characters of the basic plane that hide, break or reorder text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn reading(name: &str, json: &str) -> (String, String, u64) {
        (name.into(), json.into(), 0)
    }

    #[test]
    fn ages_are_short() {
        let ages = [0, 99, 100, 9_999, 10_000, 119_999, 120_000, 7_199_999, 7_200_000];
        let expected =
            ["now", "now", "0.1 s ago", "9.9 s ago", "10 s ago", "119 s ago", "2 min ago", "119 min ago", "2 h ago"];
        assert_eq!(ages.map(age_text), expected);
    }

    #[test]
    fn the_bound_holds_exactly_and_says_what_is_missing() {
        let sensors = [reading("a", "1"), reading("b", "\"long long long\""), reading("c", "3")];
        let whole = block("S:", &sensors, 1_000);
        assert_eq!(whole, "S:\na (now): 1\nb (now): \"long long long\"\nc (now): 3");
        assert_eq!(block("S:", &sensors, whole.len()), whole);
        assert_eq!(
            block("S:", &sensors, whole.len() - 1),
            "S:\na (now): 1\nb (now): \"long long long\"\n(1 more left out)"
        );
        assert_eq!(block("S:", &sensors, 25), "S:\na (now): 1\nc (now): 3\n(1 more left out)");
        assert_eq!(block("S:", &[], 25), "");
    }

    proptest! {
        #[test]
        fn a_string_cannot_fake_a_role(text in r#"(<\|im_start\|>|\[INST\]|</s>|\n|\\|"|\u{2028}|\u{202e}|é|a|<|\[){0,12}"#) {
            let json = serde_json::to_string(&serde_json::json!({ text.as_str(): [text.as_str(), 1] })).unwrap();
            let line = escape(&json);
            prop_assert!(!line.contains('<') && !line.contains("[I") && line.lines().count() == 1, "{}", line);
            let (before, after): (Value, Value) = (serde_json::from_str(&json).unwrap(), serde_json::from_str(&line).unwrap());
            prop_assert_eq!(before, after);
        }
    }
}
