//! The frames of the control stream: a greeting, a liveness probe, ratings.

use super::codec::{CodecError, Reader, at_most, fits, put_bytes, put_no_extensions, put_varint};
use super::request::get_turn_id;
use super::{Feedback, FeedbackReply, MAX_TOKEN_BYTES};
use crate::id::TurnId;
use crate::limits::MAX_NAME_BYTES;
use std::fmt;

/// A bearer token. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// # Errors
    /// If it is empty or longer than [`MAX_TOKEN_BYTES`].
    pub fn new(token: impl Into<String>) -> Result<Self, CodecError> {
        let token = token.into();
        if token.is_empty() {
            return Err(CodecError::invalid("token", "is empty"));
        }
        fits("token", token.len(), MAX_TOKEN_BYTES)?;
        Ok(Self(token))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The client's software and version, for the gateway's log: `tether/0.1.0`.
    pub software: String,
    /// Absent where the client's certificate says who it is.
    pub token: Option<Token>,
}

impl Hello {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        fits("software", self.software.len(), MAX_NAME_BYTES)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.software.as_bytes());
        match &self.token {
            None => out.push(0),
            Some(token) => {
                out.push(1);
                put_bytes(out, token.as_str().as_bytes());
            }
        }
        put_no_extensions(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let software = reader.string("software", MAX_NAME_BYTES)?;
        let token = match reader.byte("credential")? {
            0 => None,
            1 => Some(Token::new(reader.string("token", MAX_TOKEN_BYTES)?)?),
            other => return Err(CodecError::invalid("credential", format!("kind {other} is unknown"))),
        };
        reader.extensions()?;
        Ok(Self { software, token })
    }
}

/// The answer to an accepted [`Hello`]; a refused one gets an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The gateway's software and version.
    pub software: String,
    /// The name under which the gateway knows this client.
    pub client: String,
    /// Bytes of one turn, request and images together, that the gateway takes.
    pub max_turn_bytes: u64,
}

/// No gateway needs to say more than this; it keeps the number within a varint.
const MAX_ANNOUNCED_BYTES: u64 = 1 << 40;

impl Welcome {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        fits("software", self.software.len(), MAX_NAME_BYTES)?;
        fits("client", self.client.len(), MAX_NAME_BYTES)?;
        at_most("max_turn_bytes", self.max_turn_bytes, MAX_ANNOUNCED_BYTES)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.software.as_bytes());
        put_bytes(out, self.client.as_bytes());
        put_varint(out, self.max_turn_bytes);
        put_no_extensions(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let software = reader.string("software", MAX_NAME_BYTES)?;
        let client = reader.string("client", MAX_NAME_BYTES)?;
        let max_turn_bytes = reader.number("max_turn_bytes", MAX_ANNOUNCED_BYTES)?;
        reader.extensions()?;
        Ok(Self { software, client, max_turn_bytes })
    }
}

impl Feedback {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        if (0.0..=1.0).contains(&self.rating) {
            Ok(())
        } else {
            Err(CodecError::invalid("rating", format!("{} is not within 0 and 1", self.rating)))
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.turn_id.as_str().as_bytes());
        out.extend(self.rating.to_be_bytes());
        put_no_extensions(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let feedback = Self { turn_id: get_turn_id(reader)?, rating: reader.f32("rating")? };
        reader.extensions()?;
        feedback.check()?;
        Ok(feedback)
    }
}

pub(super) fn put_reply(out: &mut Vec<u8>, turn_id: &TurnId, reply: FeedbackReply) {
    put_bytes(out, turn_id.as_str().as_bytes());
    out.push(reply as u8);
}

pub(super) fn get_reply(reader: &mut Reader<'_>) -> Result<(TurnId, FeedbackReply), CodecError> {
    let turn_id = get_turn_id(reader)?;
    let reply = match reader.byte("feedback reply")? {
        0 => FeedbackReply::Recorded,
        1 => FeedbackReply::Unsupported,
        2 => FeedbackReply::UnknownTurn,
        other => return Err(CodecError::invalid("feedback reply", format!("{other} is unknown"))),
    };
    Ok((turn_id, reply))
}
