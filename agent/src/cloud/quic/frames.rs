//! Frames off a QUIC stream, counted.

use crate::cloud::ByteCount;
use quinn::{ReadError, RecvStream};
use std::sync::Arc;
use tether_protocol::wire::{CodecError, Frame, FrameBuffer, StreamKind};

/// One read from a stream.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the gateway sent something that is not tether/1: {0}")]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the gateway's stream ended within a frame")]
    Cut,
}

/// The frames of one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    pub(super) stream: RecvStream,
    buffer: FrameBuffer,
    bytes: Arc<ByteCount>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream, kind: StreamKind, bytes: Arc<ByteCount>) -> Self {
        Self { stream, buffer: FrameBuffer::new(kind), bytes }
    }

    /// The next frame, or `None` at the stream's end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => {
                    self.bytes.add_downlink(chunk.bytes.len() as u64);
                    self.buffer.push(&chunk.bytes);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Cut),
            }
        }
    }
}
