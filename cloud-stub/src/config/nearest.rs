//! A mistyped key gets the nearest legal one beside it.

/// TOML's message with its line and column, and the nearest name where a key or value is unknown.
pub(super) fn explain(error: &toml::de::Error) -> String {
    let text = error.to_string();
    match suggestion(error.message()) {
        Some(name) => format!("{}\ndid you mean `{name}`?", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// Reads serde's own words: "unknown field `x`, expected one of `a`, `b`" (or `variant` for `field`).
fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    nearest(given, quoted)
}

/// The nearest of `names`, unless nothing is near.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    const NEAR: f64 = 0.7;
    let similarity = |name: &str| strsim::jaro_winkler(given, name);
    let best = names.max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) >= NEAR).then(|| best.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_key_is_suggested_and_a_far_one_is_not() {
        let message = "unknown field `qeue`, expected one of `name`, `queue`, `kind`";
        assert_eq!(suggestion(message).as_deref(), Some("queue"));
        assert_eq!(suggestion("unknown field `zzzz`, expected `name` or `kind`"), None);
        assert_eq!(suggestion("invalid type: string \"a\", expected `u32`"), None);
    }
}
