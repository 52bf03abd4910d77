//! `POST /v1/chat/completions`.

use super::reply::Refusal;
use super::{Peer, body, stream};
use crate::daemon::Daemon;
use crate::turn::{Answer, Caller, Piece, answer};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use std::sync::Arc;
use std::time::Instant;
use tether_protocol::api::{AnswerMessage, ApiError, ChatCompletion, ChatRequest, Choice, TetherAnswer};
use tether_protocol::limits::MAX_BODY_BYTES;
use tokio::sync::OwnedSemaphorePermit;

/// One turn. If the client goes away, hyper drops this future or the response's body, and with it the answer.
pub(super) async fn completions(
    State(daemon): State<Arc<Daemon>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let served = async {
        let place = place(&daemon)?;
        let request = body::read_json(&headers, body, MAX_BODY_BYTES, ChatRequest::check).await?;
        let (streamed, include_usage) = (request.stream, request.include_usage);
        let caller = Caller { name: peer.name, arrived, place };
        let answer = answer(&daemon, caller, request).await?;
        let head = answer.head();
        let mut response =
            if streamed { stream::response(answer, include_usage) } else { Json(whole(answer).await?).into_response() };
        mark(response.headers_mut(), &head);
        Ok(response)
    };
    served.await.map_err(|error: ApiError| {
        daemon.metrics().refused(&error);
        Refusal(error)
    })
}

fn place(daemon: &Daemon) -> Result<OwnedSemaphorePermit, ApiError> {
    daemon.places().clone().try_acquire_owned().map_err(|_| {
        let message = format!("{} turns are under way, the most this daemon takes", daemon.active_turns());
        ApiError::busy(503, "overloaded", message, 1)
    })
}

/// An answer that is not streamed.
async fn whole(mut answer: Answer) -> Result<ChatCompletion, ApiError> {
    let mut content = String::new();
    loop {
        match answer.next().await {
            Some(Piece::Text(text)) => content.push_str(&text),
            Some(Piece::End(end)) => {
                let message = AnswerMessage { role: "assistant".into(), content, refusal: None };
                let choice = Choice { index: 0, message, logprobs: None, finish_reason: end.finish_reason };
                return Ok(ChatCompletion {
                    id: answer.id(),
                    object: "chat.completion".into(),
                    created: answer.created(),
                    model: answer.model().to_owned(),
                    choices: vec![choice],
                    usage: end.usage,
                    tether: end.tether,
                });
            }
            Some(Piece::Failed(error)) => return Err(error),
            None => return Err(ApiError::server(500, "internal", "the answer ended without an end")),
        }
    }
}

/// What the answer says of itself, for clients that read only headers.
fn mark(headers: &mut HeaderMap, head: &TetherAnswer) {
    let views: Vec<&str> = head.views.iter().map(|view| view.as_str()).collect();
    let values = [
        ("x-tether-turn-id", head.turn_id.as_str()),
        ("x-tether-route", head.route.as_str()),
        ("x-tether-views", &views.join(",")),
        ("x-tether-reason", &head.reason),
        ("x-tether-policy", &head.policy),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}
