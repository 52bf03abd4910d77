//! RFC 4180, with `\n` for people's tools; what is unknown is empty.

use super::columns::{COLUMNS, Cell};
use super::{ExportError, Exported};
use std::io::Write;

pub(super) fn header(out: &mut impl Write) -> Result<(), ExportError> {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    Ok(writeln!(out, "{}", names.join(","))?)
}

pub(super) fn row(out: &mut impl Write, turn: &Exported) -> Result<(), ExportError> {
    for (at, (_, _, make)) in COLUMNS.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        match make(turn) {
            Cell::Text(None) | Cell::Int(None) | Cell::Float(None) => {}
            Cell::Text(Some(text)) => out.write_all(quoted(&text).as_bytes())?,
            Cell::Int(Some(value)) => write!(out, "{value}")?,
            Cell::Float(Some(value)) => write!(out, "{value}")?,
            Cell::Bool(value) => write!(out, "{value}")?,
        }
    }
    Ok(out.write_all(b"\n")?)
}

/// An empty text is quoted, so that it differs from an unknown one.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([',', '"', '\n', '\r']) && text.trim() == text;
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_what_needs_quotes_has_them() {
        assert_eq!(
            ["plain", "", "a,b", "say \"hi\"", "two\nlines"].map(quoted),
            ["plain", "\"\"", "\"a,b\"", "\"say \"\"hi\"\"\"", "\"two\nlines\"",]
        );
    }
}
