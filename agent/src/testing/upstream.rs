//! A cloud that records what reaches it: an OpenAI-compatible server on loopback, to be used with
//! `cloud.kind = "openai"`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What it does with the next requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Streams `from the cloud`.
    Answer,
    /// Status 500 at once.
    Fail,
    /// Status 429 at once.
    Overloaded,
    /// One word, then the connection breaks.
    BreakAfterFirst,
    /// Takes the request and never says anything.
    Silent,
}

/// A running server. Dropping it stops it.
pub struct Upstream {
    port: u16,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    bodies: Mutex<Vec<Value>>,
}

impl Upstream {
    /// # Errors
    /// No port is free.
    pub async fn start(behaviour: Behaviour) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { behaviour: Mutex::new(behaviour), bodies: Mutex::default() });
        let router = Router::new().route("/v1/chat/completions", post(answer)).with_state(shared.clone());
        let server = AbortOnDropHandle::new(tokio::spawn(async move { drop(axum::serve(listener, router).await) }));
        Ok(Self { port, shared, _server: server })
    }

    /// The `[cloud]` section that leads here.
    pub fn config(&self) -> String {
        let base_url = format!("http://127.0.0.1:{}/v1", self.port);
        format!("[cloud]\nkind = \"openai\"\nbase_url = \"{base_url}\"\nmodel = \"far\"\nvision = true\n")
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Every request so far, oldest first.
    pub fn bodies(&self) -> Vec<Value> {
        self.shared.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that ever arrived, as one text to search.
    pub fn everything(&self) -> String {
        self.bodies().iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let seen = serde_json::from_slice(&body).unwrap_or_default();
    shared.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let behaviour = *shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
    let error = |status: u16| {
        let body = json!({"error": {"message": "told to fail", "type": "server_error", "code": "told"}});
        Response::builder().status(status).body(Body::from(body.to_string())).unwrap_or_default()
    };
    match behaviour {
        Behaviour::Fail => error(500),
        Behaviour::Overloaded => error(429),
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Answer => events(&["from", " the", " cloud"], true),
        Behaviour::BreakAfterFirst => events(&["from"], false),
    }
}

fn events(words: &[&str], complete: bool) -> Response {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "far-1",
            "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let mut lines = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    lines.extend(words.iter().map(|word| chunk(json!({"content": word}), Value::Null)));
    if complete {
        lines.push(chunk(json!({}), json!("stop")));
        let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
        let last = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "far-1",
            "choices": [], "usage": usage});
        lines.push(format!("data: {last}\n\n"));
        lines.push("data: [DONE]\n\n".into());
    }
    let chunks = lines.into_iter().map(|line| Ok::<_, Infallible>(Bytes::from(line)));
    ([("content-type", "text/event-stream")], Body::from_stream(stream::iter(chunks))).into_response()
}
