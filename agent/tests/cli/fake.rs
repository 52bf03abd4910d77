//! A daemon of a few lines: real HTTP on a real socket, answers from the test. What it was asked is kept.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// What the fake says to the next chat request.
pub(crate) enum Say {
    /// These server-sent events, then the end.
    Events(Vec<Value>),
    /// These events, then nothing for ever; the sender is dropped when the client has gone.
    Hang(Vec<Value>, oneshot::Sender<()>),
    /// Not even headers.
    Silence(oneshot::Sender<()>),
    Status(u16, Value),
}

#[derive(Default)]
struct Script {
    says: Vec<Say>,
    asked: Vec<(String, String)>,
}

pub(crate) struct Fake {
    pub socket: PathBuf,
    script: Arc<Mutex<Script>>,
    _dir: TempDir,
}

impl Fake {
    pub(crate) fn start(says: Vec<Say>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("fake.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = Arc::new(Mutex::new(Script { says, asked: Vec::new() }));
        let app = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { socket, script, _dir: dir }
    }

    /// Requests so far as (`METHOD /path`, body).
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Bodies of the chat requests so far.
    pub(crate) fn chats(&self) -> Vec<Value> {
        let asked = self.asked();
        asked.iter().filter(|(what, _)| what.contains("/chat/")).map(|(_, body)| body.parse().unwrap()).collect()
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let what = format!("{} {}", request.method(), request.uri());
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let say = {
        let mut script = script.lock().unwrap();
        script.asked.push((what.clone(), String::from_utf8(body.to_vec()).unwrap()));
        if script.says.is_empty() { Say::Status(200, json!({})) } else { script.says.remove(0) }
    };
    match say {
        Say::Status(status, body) => reply(status, Body::from(body.to_string())),
        Say::Events(events) => reply(200, Body::from(sse(&events).concat())),
        Say::Hang(events, gone) => {
            let (sender, mut receiver) = mpsc::channel::<()>(1);
            let head = futures::stream::iter(sse(&events).into_iter().map(|text| Ok(Bytes::from(text))));
            let hang = futures::stream::once(async move {
                let _kept = (sender, gone);
                receiver.recv().await;
                Err(std::io::Error::other("never sent"))
            });
            reply(200, Body::from_stream(head.chain(hang)))
        }
        Say::Silence(gone) => {
            let _kept = gone;
            std::future::pending().await
        }
    }
}

fn reply(status: u16, body: Body) -> Response {
    Response::builder().status(status).header("retry-after", "7").body(body).unwrap()
}

fn sse(events: &[Value]) -> Vec<String> {
    let text = |event: &Value| event.as_str().map_or_else(|| event.to_string(), str::to_owned);
    events.iter().map(|event| format!("data: {}\n\n", text(event))).collect()
}

/// A stream as the daemon sends it: the route in the first chunk, the costs in the last.
pub(crate) fn good_answer(words: &[&str]) -> Vec<Value> {
    let mut events =
        vec![chunk(json!([choice(json!({"role": "assistant", "content": ""}), None)]), Some(tether(false)))];
    events.extend(words.iter().map(|word| chunk(json!([choice(json!({"content": word}), None)]), None)));
    events.push(chunk(json!([choice(json!({}), Some("stop"))]), None));
    let mut usage = chunk(json!([]), Some(tether(true)));
    usage["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12});
    events.extend([usage, json!("[DONE]")]);
    events
}

pub(crate) fn whole_answer(text: &str) -> Value {
    json!({"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny", "tether": tether(true),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

pub(crate) fn error(message: &str) -> Value {
    json!({"error": {"message": message, "type": "server_error", "param": null, "code": "backend_failed"}})
}

fn chunk(choices: Value, tether: Option<Value>) -> Value {
    let mut chunk = json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
        "choices": choices});
    if let Some(tether) = tether {
        chunk["tether"] = tether;
    }
    chunk
}

fn choice(delta: Value, finish: Option<&str>) -> Value {
    json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish})
}

fn tether(with_costs: bool) -> Value {
    let mut tether = json!({"turn_id": "turn1", "route": "cloud", "views": ["front"], "reason": "views_needed",
        "reason_detail": "asks what it sees", "policy": "rule", "propensity": 1.0, "decision_us": 40});
    if with_costs {
        let costs = json!({"latency_ms": 2000.0, "usd": 0.5, "joules": null, "joules_source": "unknown",
            "uplink_bytes": 41234, "downlink_bytes": 120, "first_token_ms": 1000.0, "dropped_messages": 0,
            "dropped_images": 0, "usage_estimated": false, "budget_remaining": {}});
        tether.as_object_mut().unwrap().extend(costs.as_object().unwrap().clone());
    }
    tether
}
