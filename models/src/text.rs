//! Token bytes become text as they arrive: whole characters only, and nothing of a stop string.

use crate::error::ModelError;

/// Stop strings of one answer, and the bytes of each.
pub const MAX_STOP_STRINGS: usize = 16;
pub const MAX_STOP_BYTES: usize = 1024;

/// Turns the bytes of tokens into text that may be shown. Text that could be the beginning of a stop string is held
/// back until it is known not to be one.
#[derive(Debug, Clone)]
pub struct TextStream {
    stop: Vec<String>,
    /// Bytes of an unfinished character.
    bytes: Vec<u8>,
    /// Text that a stop string may begin in.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// # Errors
    /// [`ModelError::Parameter`] named `stop` for an empty or overlong string, or too many of them.
    pub fn new(stop: &[String]) -> Result<TextStream, ModelError> {
        let refuse = |problem: String| Err(ModelError::Parameter { parameter: "stop", problem });
        if stop.len() > MAX_STOP_STRINGS {
            return refuse(format!("{} stop strings, and at most {MAX_STOP_STRINGS} are watched for", stop.len()));
        }
        if stop.iter().any(String::is_empty) {
            return refuse("a stop string is empty".into());
        }
        if let Some(long) = stop.iter().find(|text| text.len() > MAX_STOP_BYTES) {
            return refuse(format!("a stop string has {} bytes, and may have {MAX_STOP_BYTES}", long.len()));
        }
        Ok(TextStream { stop: stop.to_vec(), bytes: Vec::new(), held: String::new(), stopped: false })
    }

    /// Takes the bytes of the next token and returns the text that may now be shown, often none. Once
    /// [`Self::is_stopped`], everything is ignored.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if let Some(start) = self.earliest_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let rest = self.held.split_off(self.shown());
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was met; it and what follows are never shown.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end of the answer; an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        text
    }

    /// Moves every whole character from `bytes` to `held`; what can never become one turns into U+FFFD.
    fn take_characters(&mut self) {
        loop {
            let (valid, invalid) = match std::str::from_utf8(&self.bytes) {
                Ok(_) => (self.bytes.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.held.push_str(&String::from_utf8_lossy(&self.bytes[..valid]));
            self.bytes.drain(..valid + invalid.unwrap_or(0));
            match invalid {
                Some(0) | None => return,
                Some(_) => self.held.push(char::REPLACEMENT_CHARACTER),
            }
        }
    }

    /// Where the stop string begins that is complete first, so that the answer does not depend on how the text was cut
    /// into tokens; the longest of several that end together.
    fn earliest_stop(&self) -> Option<usize> {
        let found = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        self.stop.iter().filter_map(found).min().map(|(_, start)| start)
    }

    /// Bytes of `held` that no stop string can begin in.
    fn shown(&self) -> usize {
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let earliest = self.held.len().saturating_sub(longest.saturating_sub(1));
        let could_begin = |&start: &usize| {
            self.held.is_char_boundary(start) && self.stop.iter().any(|stop| stop.starts_with(&self.held[start..]))
        };
        (earliest..self.held.len()).find(could_begin).unwrap_or(self.held.len())
    }
}
