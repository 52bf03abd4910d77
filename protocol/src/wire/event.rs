//! `ACCEPTED`, `TEXT`, `DONE`, `ERROR`: what comes back on a turn's stream.

use super::codec::{CodecError, Reader, fits, put_bytes, put_no_extensions, put_varint};
use super::{Accepted, Done, ErrorCode, MAX_ERROR_BYTES, MAX_TEXT_FRAME_BYTES, Vision, WireError};
use crate::limits::MAX_NAME_BYTES;
use crate::record::{FinishReason, Usage};

/// Cuts `text` into pieces that fit a `TEXT` frame each, never within a character.
pub fn text_frames(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(text.floor_char_boundary(MAX_TEXT_FRAME_BYTES));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

impl Accepted {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        fits("model", self.model.len(), MAX_NAME_BYTES)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.model.as_bytes());
        out.push(self.vision as u8);
        put_no_extensions(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let model = reader.string("model", MAX_NAME_BYTES)?;
        let vision = match reader.byte("vision")? {
            0 => Vision::None,
            1 => Vision::Measured,
            2 => Vision::Native,
            other => return Err(CodecError::invalid("vision", format!("{other} is unknown"))),
        };
        reader.extensions()?;
        Ok(Self { model, vision })
    }
}

impl Done {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        if self.cost_usd.is_finite() && self.cost_usd >= 0.0 {
            Ok(())
        } else {
            Err(CodecError::invalid("cost_usd", "must be a finite number and at least 0"))
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.finish_reason as u8);
        put_varint(out, u64::from(self.usage.prompt_tokens));
        put_varint(out, u64::from(self.usage.completion_tokens));
        out.extend(self.cost_usd.to_be_bytes());
        put_varint(out, u64::from(self.dropped_messages));
        put_varint(out, u64::from(self.queue_ms));
        out.push(u8::from(self.usage_estimated));
        put_no_extensions(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let finish_reason = match reader.byte("finish reason")? {
            0 => FinishReason::Stop,
            1 => FinishReason::Length,
            other => return Err(CodecError::invalid("finish reason", format!("{other} is unknown"))),
        };
        let done = Self {
            finish_reason,
            usage: Usage {
                prompt_tokens: reader.u32("prompt_tokens")?,
                completion_tokens: reader.u32("completion_tokens")?,
            },
            cost_usd: reader.f64("cost_usd")?,
            dropped_messages: reader.u32("dropped_messages")?,
            queue_ms: reader.u32("queue_ms")?,
            usage_estimated: reader.flag("usage_estimated")?,
        };
        reader.extensions()?;
        done.check()?;
        Ok(done)
    }
}

/// The codes in the order of their numbers, from 0.
const ERROR_CODES: [ErrorCode; 10] = [
    ErrorCode::Internal,
    ErrorCode::BadRequest,
    ErrorCode::Unauthorized,
    ErrorCode::UnknownModel,
    ErrorCode::NoVision,
    ErrorCode::ContextFull,
    ErrorCode::Overloaded,
    ErrorCode::DeadlineExceeded,
    ErrorCode::Draining,
    ErrorCode::BackendFailed,
];

impl ErrorCode {
    pub fn number(self) -> u64 {
        ERROR_CODES.iter().position(|code| *code == self).unwrap_or(0) as u64
    }

    /// A code that this version does not know counts as `Internal`: its message still reaches a person.
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|n| ERROR_CODES.get(n).copied()).unwrap_or(ErrorCode::Internal)
    }
}

impl WireError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// A message beyond the limit is cut: half an explanation is better than none.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.code.number());
        let message = &self.message[..self.message.floor_char_boundary(MAX_ERROR_BYTES)];
        put_bytes(out, message.as_bytes());
        match self.retry_after_ms {
            None => out.push(0),
            Some(wait) => {
                out.push(1);
                put_varint(out, u64::from(wait));
            }
        }
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let code = ErrorCode::from_number(reader.varint("error code")?);
        let message = reader.string("error message", MAX_ERROR_BYTES)?;
        let waits = reader.flag("retry flag")?;
        let retry_after_ms = waits.then(|| reader.u32("retry_after_ms")).transpose()?;
        Ok(Self { code, message, retry_after_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_number_and_unknown_ones_are_internal() {
        for code in ERROR_CODES {
            assert_eq!(ErrorCode::from_number(code.number()), code);
        }
        assert_eq!(ErrorCode::from_number(99), ErrorCode::Internal);
        assert_eq!(ErrorCode::from_number(u64::MAX), ErrorCode::Internal);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = "ä".repeat(MAX_TEXT_FRAME_BYTES);
        let pieces: Vec<&str> = text_frames(&text).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_TEXT_FRAME_BYTES));
        assert_eq!(pieces.concat(), text);
        assert_eq!(text_frames("").count(), 0);
    }
}
