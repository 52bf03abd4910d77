//! What is printed: answers to standard output, everything about them to standard error; colours only where a person
//! reads (a terminal, `NO_COLOR` unset).

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Standard output, with styles stripped where they do not belong.
pub(crate) fn stdout() -> AutoStream<io::StdoutLock<'static>> {
    AutoStream::auto(io::stdout().lock())
}

/// A line for people, on standard error. If nobody can read it, nothing is lost.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(AutoStream::auto(io::stderr().lock()), "{line}");
}

/// One JSON value, on a line of its own.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The words of a model as they arrive. A terminal is never handed control characters that a model, or a page it
/// quotes, has written.
pub(crate) struct Words {
    terminal: bool,
    ends_line: bool,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), ends_line: true }
    }

    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        let Some(last) = text.chars().last() else { return Ok(()) };
        self.ends_line = last == '\n';
        let mut out = io::stdout().lock();
        if self.terminal {
            out.write_all(harmless(text).as_bytes())?
        } else {
            out.write_all(text.as_bytes())?
        }
        out.flush()
    }

    /// Ends the last line if the model did not.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ends_line, true) { Ok(()) } else { io::stdout().lock().write_all(b"\n") }
    }
}

fn harmless(text: &str) -> String {
    let keep = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if keep(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}c\r\n\té"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\n\té");
    }
}
