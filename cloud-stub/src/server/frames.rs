//! Frames off and onto QUIC streams.

use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tether_protocol::wire::{CodecError, Frame, FrameBuffer, StreamKind};

/// One read from a stream.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the stream ended within a frame")]
    Cut,
    #[error("a second greeting")]
    Greeted,
}

/// The frames of one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream, kind: StreamKind) -> Self {
        Self { stream, buffer: FrameBuffer::new(kind) }
    }

    /// The next frame, or `None` at the stream's end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => self.buffer.push(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Cut),
            }
        }
    }

    /// What follows the frames: the bytes already read, and the stream.
    pub(super) fn into_rest(self) -> (Vec<u8>, RecvStream) {
        (self.buffer.into_rest(), self.stream)
    }
}

pub(super) async fn write(stream: &mut SendStream, frame: &Frame) -> Result<(), FrameError> {
    Ok(stream.write_all(&frame.encode()?).await?)
}
