//! A request body that counts its bytes as they are handed to the connection, and ends with an error before there are more than
//! may be.

use crate::cloud::ByteCount;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Small enough that a body cut off half-way is counted about right.
const PIECE_BYTES: usize = 16 * 1_024;

#[derive(Debug, thiserror::Error)]
#[error("the request may have no more bytes")]
pub(super) struct OverLimit;

pub(super) struct CountedBody {
    left: Bytes,
    count: Arc<ByteCount>,
}

impl CountedBody {
    pub(super) fn new(body: Vec<u8>, count: Arc<ByteCount>) -> Self {
        Self { left: body.into(), count }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = OverLimit;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OverLimit>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let at = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(at);
        if !self.count.take_uplink(piece.len() as u64) {
            return Poll::Ready(Some(Err(OverLimit)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    /// Exact, so that a content-length is sent: some servers take no chunked requests.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
