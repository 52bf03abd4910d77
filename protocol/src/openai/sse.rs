//! Server-sent events, split anywhere: lines end in LF, CR or CRLF, comments and unknown fields are skipped.

use crate::limits::MAX_SSE_EVENT_BYTES;

/// One event: the `data` lines joined by newlines, and the `event` name if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    pub event: Option<String>,
    pub data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    #[error("a server-sent event is larger than {MAX_SSE_EVENT_BYTES} bytes")]
    TooLarge,
    #[error("a server-sent event is not UTF-8")]
    NotUtf8,
}

/// Holds at most one unfinished event, so its memory is bounded by [`MAX_SSE_EVENT_BYTES`].
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    event: Option<String>,
    /// The last byte was a CR: a LF that follows belongs to the same line end.
    after_cr: bool,
    begun: bool,
}

impl SseParser {
    /// The events completed by these bytes. An error ends the stream: the parser must not be used after it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, SseError> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ if self.line.len() + self.data.len() >= MAX_SSE_EVENT_BYTES => return Err(SseError::TooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// The last event of a server that closes without the final empty line.
    pub fn finish(mut self) -> Result<Option<SseEvent>, SseError> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        Ok(self.dispatch())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, SseError> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| SseError::NotUtf8)?;
        // A byte order mark may stand before the first line only.
        let line = if self.begun { line.as_str() } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.add_data(value),
            "event" => self.event = Some(value.to_owned()),
            // A comment has an empty field name; `id` and `retry` mean nothing to an answer.
            _ => {}
        }
        Ok(None)
    }

    fn add_data(&mut self, value: &str) {
        if self.has_data {
            self.data.push('\n');
        }
        self.has_data = true;
        self.data.push_str(value);
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = self.event.take();
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then_some(SseEvent { event, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<SseEvent>, SseError> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            events.extend(parser.push(piece)?);
        }
        events.extend(parser.finish()?);
        Ok(events)
    }

    fn data(text: &str) -> SseEvent {
        SseEvent { event: None, data: text.into() }
    }

    #[test]
    fn every_line_end_comments_and_unknown_fields() {
        let bytes =
            "\u{feff}: hello\r\n\r\ndata: a\r\rid: 7\ndata:b\ndata:  c\n\nevent: error\ndata\n\nretry: 5\n\ndata: é";
        let error = SseEvent { event: Some("error".into()), data: String::new() };
        assert_eq!(parse(&[bytes.as_bytes()]).unwrap(), [data("a"), data("b\n c"), error, data("é")]);
    }

    #[test]
    fn a_split_at_any_byte_changes_nothing() {
        let bytes =
            "data: héllo\r\n\r\n: ping\r\n\r\nevent: x\r\ndata: 1\r\ndata: 2\r\n\r\ndata: [DONE]\n\n".as_bytes();
        let whole = parse(&[bytes]).unwrap();
        assert_eq!(whole.len(), 3);
        for at in 0..=bytes.len() {
            assert_eq!(parse(&[&bytes[..at], &bytes[at..]]).unwrap(), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(&single).unwrap(), whole);
    }

    #[test]
    fn the_limit_holds_for_one_line_and_for_many() {
        let line = |bytes: usize| [b"data:".as_slice(), &vec![b'x'; bytes - 5], b"\n\n"].concat();
        assert_eq!(parse(&[&line(MAX_SSE_EVENT_BYTES)]).unwrap()[0].data.len(), MAX_SSE_EVENT_BYTES - 5);
        assert_eq!(parse(&[&line(MAX_SSE_EVENT_BYTES + 1)]), Err(SseError::TooLarge));
        let many = "data: 0123456789abcdef\n".repeat(MAX_SSE_EVENT_BYTES / 16 + 2);
        assert_eq!(parse(&[many.as_bytes()]), Err(SseError::TooLarge));
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_alike(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..200), at in 0usize..200) {
            let at = at.min(bytes.len());
            prop_assert_eq!(parse(&[&bytes]), parse(&[&bytes[..at], &bytes[at..]]));
        }

        #[test]
        fn written_events_come_back(texts in proptest::collection::vec("[^\r\n]{0,40}(\n[^\r\n]{0,40}){0,2}", 1..5)) {
            let write = |text: &String| text.split('\n').map(|line| format!("data: {line}\n")).collect::<String>() + "\n";
            let bytes: String = texts.iter().map(write).collect();
            let read: Vec<String> = parse(&[bytes.as_bytes()]).unwrap().into_iter().map(|event| event.data).collect();
            prop_assert_eq!(read, texts);
        }
    }
}
