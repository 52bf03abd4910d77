//! A streamed answer: bytes to events to chunks.

use super::{Client, ClientError};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use tether_protocol::api::{ChatChunk, ErrorBody};
use tether_protocol::openai::sse::{SseEvent, SseParser};
use tokio_util::task::AbortOnDropHandle;

/// The end of a good stream.
const DONE: &str = "[DONE]";

/// Chunks of one answer, in order. Dropping it closes the connection, and the daemon frees the model at once.
pub struct AnswerStream {
    client: Client,
    body: Incoming,
    parser: SseParser,
    waiting: VecDeque<SseEvent>,
    finished: bool,
    _connection: AbortOnDropHandle<()>,
}

impl AnswerStream {
    pub(super) fn new(client: Client, body: Incoming, connection: AbortOnDropHandle<()>) -> Self {
        let (parser, waiting) = (SseParser::default(), VecDeque::new());
        Self { client, body, parser, waiting, finished: false, _connection: connection }
    }

    /// The next chunk, or `None` after the end.
    ///
    /// # Errors
    /// What the daemon reported after the first token; a stream that ends without its end mark; anything that is not
    /// a chunk.
    pub async fn next(&mut self) -> Result<Option<ChatChunk>, ClientError> {
        while !self.finished {
            if let Some(event) = self.waiting.pop_front() {
                return self.read(&event.data);
            }
            self.receive().await?;
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<(), ClientError> {
        let Some(frame) = self.body.frame().await else {
            return Err(self.client.garbled("the answer broke off; was the daemon stopped?"));
        };
        let frame = frame.map_err(|error| self.client.broken(&error))?;
        if let Some(bytes) = frame.data_ref() {
            let events = self.parser.push(bytes).map_err(|error| self.client.garbled(error))?;
            self.waiting.extend(events);
        }
        Ok(())
    }

    fn read(&mut self, data: &str) -> Result<Option<ChatChunk>, ClientError> {
        if data == DONE {
            self.finished = true;
            return Ok(None);
        }
        if let Ok(body) = serde_json::from_str::<ErrorBody>(data) {
            self.finished = true;
            return Err(ClientError::Refused { status: None, retry_after_s: None, body });
        }
        serde_json::from_str(data).map(Some).map_err(|error| self.client.garbled(error))
    }
}
