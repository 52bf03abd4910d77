//! An answer as server-sent events, in OpenAI's chunks.

use super::guard::fault;
use crate::turn::{Answer, End, Piece};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt, stream};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use tether_protocol::api::{ChatChunk, ChunkChoice, Delta, TetherAnswer, UsageBody};
use tether_protocol::record::FinishReason;

/// The response; its body holds the answer, so that dropping it stops the answer.
pub(super) fn response(answer: Answer, include_usage: bool) -> Response {
    let mut writer = Writer { answer, include_usage, ready: VecDeque::new(), ended: false };
    writer.begin();
    let events = stream::unfold(writer, |mut writer| async move {
        let event = match AssertUnwindSafe(writer.next()).catch_unwind().await {
            Ok(event) => event?,
            Err(_) if std::mem::replace(&mut writer.ended, true) => return None,
            Err(_) => event(&fault().body()),
        };
        Some((Ok::<Bytes, Infallible>(event), writer))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct Writer {
    answer: Answer,
    include_usage: bool,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Writer {
    /// The first chunk: the role, and where the answer is made.
    fn begin(&mut self) {
        let delta = Delta { role: Some("assistant".into()), content: Some(String::new()) };
        let head = self.answer.head();
        self.push(Some((delta, None)), None, Some(head));
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.answer.next().await {
                Some(Piece::Text(text)) => {
                    self.push(Some((Delta { role: None, content: Some(text) }, None)), None, None);
                }
                Some(Piece::End(end)) => self.end(*end),
                Some(Piece::Failed(error)) => {
                    self.ended = true;
                    self.ready.push_back(event(&error.body()));
                }
                None => self.ended = true,
            }
        }
    }

    /// The finish reason, the usage if asked for, `[DONE]`. The costs stand in the last chunk, whichever it is.
    fn end(&mut self, end: End) {
        self.ended = true;
        let End { finish_reason, usage, tether } = end;
        let finish = Some((Delta::default(), Some(finish_reason)));
        if self.include_usage {
            self.push(finish, None, None);
            self.push(None, Some(usage), Some(tether));
        } else {
            self.push(finish, None, Some(tether));
        }
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    fn push(
        &mut self,
        choice: Option<(Delta, Option<FinishReason>)>,
        usage: Option<UsageBody>,
        tether: Option<TetherAnswer>,
    ) {
        let choice =
            choice.map(|(delta, finish_reason)| ChunkChoice { index: 0, delta, logprobs: None, finish_reason });
        let chunk = ChatChunk {
            id: self.answer.id(),
            object: "chat.completion.chunk".into(),
            created: self.answer.created(),
            model: self.answer.model().to_owned(),
            choices: choice.into_iter().collect(),
            usage: self.include_usage.then_some(usage),
            tether,
        };
        self.ready.push_back(event(&chunk));
    }
}

fn event(body: &impl Serialize) -> Bytes {
    let mut text = b"data: ".to_vec();
    serde_json::to_writer(&mut text, body).expect("these types are always JSON");
    text.extend_from_slice(b"\n\n");
    text.into()
}
