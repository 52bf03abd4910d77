//! Frames: a type, a length, a payload. [`FrameBuffer`] turns a stream's bytes, however they are cut, into frames,
//! and holds each to the limit of its type before any of its payload is kept.

use super::codec::{CodecError, Reader, at_most, fits, get_varint, put_varint};
use super::control::{Hello, Welcome, get_reply, put_reply};
use super::{
    Accepted, Done, Feedback, FeedbackReply, ImageStart, MAX_CONTROL_BYTES, MAX_SKIPPED_FRAMES, MAX_TEXT_FRAME_BYTES,
    MAX_TURN_FRAME_BYTES, TurnEvent, TurnRequest, WireError,
};
use crate::id::TurnId;

/// The numbers of the frame types. Even: must be understood. Odd: may be skipped by who does not know it.
mod number {
    pub(super) const HELLO: u64 = 0x02;
    pub(super) const WELCOME: u64 = 0x04;
    pub(super) const PING: u64 = 0x06;
    pub(super) const PONG: u64 = 0x08;
    pub(super) const FEEDBACK: u64 = 0x0a;
    pub(super) const FEEDBACK_REPLY: u64 = 0x0c;
    pub(super) const PADDING: u64 = 0x0f;
    pub(super) const TURN: u64 = 0x10;
    pub(super) const IMAGE: u64 = 0x12;
    pub(super) const ACCEPTED: u64 = 0x20;
    pub(super) const TEXT: u64 = 0x22;
    pub(super) const DONE: u64 = 0x24;
    pub(super) const ERROR: u64 = 0x26;
}

/// Every frame of `tether/1`.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping(u32),
    Pong(u32),
    Feedback(Feedback),
    FeedbackReply(TurnId, FeedbackReply),
    /// So many bytes that mean nothing, before a [`Frame::Ping`] that is to tell the link's rate.
    Padding(u16),
    Turn(Box<TurnRequest>),
    Image(ImageStart),
    /// On a turn's stream; `Error` also on the control stream, where it refuses the connection.
    Event(TurnEvent),
}

/// Which of the five kinds of byte stream is read; tells the frames that may stand on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    ControlToServer,
    ControlToClient,
    TurnToServer,
    TurnToClient,
    /// One `IMAGE` frame, then the image's bytes.
    ImageToServer,
}

impl StreamKind {
    pub const ALL: [StreamKind; 5] = [
        StreamKind::ControlToServer,
        StreamKind::ControlToClient,
        StreamKind::TurnToServer,
        StreamKind::TurnToClient,
        StreamKind::ImageToServer,
    ];

    fn permits(self, frame_type: u64) -> bool {
        use number::*;
        match self {
            StreamKind::ControlToServer => matches!(frame_type, HELLO | PING | FEEDBACK | PADDING),
            StreamKind::ControlToClient => matches!(frame_type, WELCOME | PONG | FEEDBACK_REPLY | ERROR),
            StreamKind::TurnToServer => frame_type == TURN,
            StreamKind::TurnToClient => matches!(frame_type, ACCEPTED | TEXT | DONE | ERROR),
            StreamKind::ImageToServer => frame_type == IMAGE,
        }
    }
}

/// The largest payload of a type; `None` if the type is unknown.
fn payload_limit(frame_type: u64) -> Option<usize> {
    use number::*;
    match frame_type {
        TURN => Some(MAX_TURN_FRAME_BYTES),
        TEXT => Some(MAX_TEXT_FRAME_BYTES),
        HELLO | WELCOME | PING | PONG | FEEDBACK | FEEDBACK_REPLY | PADDING | IMAGE | ACCEPTED | DONE | ERROR => {
            Some(MAX_CONTROL_BYTES)
        }
        _ => None,
    }
}

impl Frame {
    /// The whole frame: type, length, payload.
    ///
    /// # Errors
    /// If a field is beyond its limit; nothing that a receiver would refuse is sent.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.check()?;
        let mut payload = Vec::new();
        let frame_type = self.put(&mut payload);
        fits("frame", payload.len(), payload_limit(frame_type).unwrap_or(MAX_CONTROL_BYTES))?;
        let mut frame = Vec::with_capacity(payload.len() + 8);
        put_varint(&mut frame, frame_type);
        put_varint(&mut frame, payload.len() as u64);
        frame.extend(payload);
        Ok(frame)
    }

    fn check(&self) -> Result<(), CodecError> {
        match self {
            Frame::Hello(hello) => hello.check(),
            Frame::Welcome(welcome) => welcome.check(),
            Frame::Feedback(feedback) => feedback.check(),
            Frame::Turn(request) => request.check(),
            Frame::Image(start) => start.check(),
            Frame::Event(TurnEvent::Accepted(accepted)) => accepted.check(),
            Frame::Event(TurnEvent::Done(done)) => done.check(),
            Frame::Event(TurnEvent::Text(_) | TurnEvent::Error(_))
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Padding(_)
            | Frame::FeedbackReply(..) => Ok(()),
        }
    }

    /// Writes the payload and tells the type.
    fn put(&self, out: &mut Vec<u8>) -> u64 {
        match self {
            Frame::Hello(hello) => (hello.put(out), number::HELLO),
            Frame::Welcome(welcome) => (welcome.put(out), number::WELCOME),
            Frame::Ping(count) => (put_varint(out, u64::from(*count)), number::PING),
            Frame::Pong(count) => (put_varint(out, u64::from(*count)), number::PONG),
            Frame::Feedback(feedback) => (feedback.put(out), number::FEEDBACK),
            Frame::FeedbackReply(turn_id, reply) => (put_reply(out, turn_id, *reply), number::FEEDBACK_REPLY),
            Frame::Padding(bytes) => (out.resize(out.len() + usize::from(*bytes), 0), number::PADDING),
            Frame::Turn(request) => (request.put(out), number::TURN),
            Frame::Image(start) => (start.put(out), number::IMAGE),
            Frame::Event(TurnEvent::Accepted(accepted)) => (accepted.put(out), number::ACCEPTED),
            Frame::Event(TurnEvent::Text(text)) => (out.extend(text.as_bytes()), number::TEXT),
            Frame::Event(TurnEvent::Done(done)) => (done.put(out), number::DONE),
            Frame::Event(TurnEvent::Error(error)) => (error.put(out), number::ERROR),
        }
        .1
    }

    /// # Errors
    /// If the payload is not exactly one message of this type within its limits.
    fn get(frame_type: u64, payload: &[u8]) -> Result<Self, CodecError> {
        if frame_type == number::PADDING {
            // At most MAX_CONTROL_BYTES, so that it fits.
            return Ok(Frame::Padding(payload.len() as u16));
        }
        let mut reader = Reader::new(payload);
        let frame = match frame_type {
            number::HELLO => Frame::Hello(Hello::get(&mut reader)?),
            number::WELCOME => Frame::Welcome(Welcome::get(&mut reader)?),
            number::PING => Frame::Ping(reader.u32("ping")?),
            number::PONG => Frame::Pong(reader.u32("pong")?),
            number::FEEDBACK => Frame::Feedback(Feedback::get(&mut reader)?),
            number::FEEDBACK_REPLY => {
                get_reply(&mut reader).map(|(turn_id, reply)| Frame::FeedbackReply(turn_id, reply))?
            }
            number::TURN => Frame::Turn(Box::new(TurnRequest::get(&mut reader)?)),
            number::IMAGE => Frame::Image(ImageStart::get(&mut reader)?),
            number::ACCEPTED => Frame::Event(TurnEvent::Accepted(Accepted::get(&mut reader)?)),
            number::TEXT => Frame::Event(TurnEvent::Text(reader.rest_as_string("text")?)),
            number::DONE => Frame::Event(TurnEvent::Done(Done::get(&mut reader)?)),
            number::ERROR => Frame::Event(TurnEvent::Error(WireError::get(&mut reader)?)),
            _ => return Err(CodecError::UnknownFrame { frame_type }),
        };
        reader.finish()?;
        Ok(frame)
    }
}

/// The bytes of one stream on their way to frames.
#[derive(Debug)]
pub struct FrameBuffer {
    kind: StreamKind,
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are already decoded.
    consumed: usize,
    skipped: usize,
}

struct RawFrame<'a> {
    frame_type: u64,
    payload: &'a [u8],
    /// Header and payload, bytes.
    total: usize,
}

impl FrameBuffer {
    pub fn new(kind: StreamKind) -> Self {
        Self { kind, bytes: Vec::new(), consumed: 0, skipped: 0 }
    }

    /// Adds what was read. Ask for frames until there is none before reading more, so that no more is ever held
    /// than one frame and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.consumed);
        self.consumed = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame, or `None` if bytes are missing.
    ///
    /// # Errors
    /// The stream is not `tether/1`; nothing after an error can be trusted.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CodecError> {
        loop {
            let Some(RawFrame { frame_type, payload, total }) = self.peek()? else { return Ok(None) };
            let known = payload_limit(frame_type).is_some();
            let frame = known.then(|| Frame::get(frame_type, payload)).transpose()?;
            self.consumed += total;
            match frame {
                Some(frame) => return Ok(Some(frame)),
                None => self.count_skipped()?,
            }
        }
    }

    /// The frame at the front, once it is complete.
    fn peek(&self) -> Result<Option<RawFrame<'_>>, CodecError> {
        let bytes = &self.bytes[self.consumed..];
        let Some((frame_type, type_length)) = get_varint(bytes)? else { return Ok(None) };
        let limit = match payload_limit(frame_type) {
            Some(limit) if self.kind.permits(frame_type) => limit,
            Some(_) => return Err(CodecError::MisplacedFrame { frame_type }),
            None if frame_type % 2 == 1 => MAX_CONTROL_BYTES,
            None => return Err(CodecError::UnknownFrame { frame_type }),
        };
        let Some((length, length_length)) = get_varint(&bytes[type_length..])? else { return Ok(None) };
        at_most("frame", length, limit as u64)?;
        let start = type_length + length_length;
        let total = start + length as usize;
        Ok(bytes.get(start..total).map(|payload| RawFrame { frame_type, payload, total }))
    }

    fn count_skipped(&mut self) -> Result<(), CodecError> {
        self.skipped += 1;
        fits("unknown frames", self.skipped, MAX_SKIPPED_FRAMES)
    }

    /// Whether the stream may end here: not within a frame.
    pub fn is_empty(&self) -> bool {
        self.consumed == self.bytes.len()
    }

    /// What follows the frames: the first bytes of an image.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.consumed)
    }
}
