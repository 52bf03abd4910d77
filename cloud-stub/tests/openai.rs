//! The `openai` backend against a real HTTP server that is scripted to the byte; the model's name says what it does.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tether_cloud::backend::openai::OpenAiBackend;
use tether_cloud::backend::{Ask, BackendError, Piece};
use tether_cloud::config::OpenAiSettings;
use tether_cloud::secret::Secret;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::{ErrorCode, ImageFormat, ImageHeader, Message, Part, Role, Sampling, TurnRequest};
use tether_protocol::{TurnId, ViewName};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const KEY: &str = "sk-very-secret-key";

#[derive(Clone)]
struct Server {
    /// The newest request.
    seen: Arc<Mutex<Option<(HeaderMap, Value)>>>,
    /// Told when a body that never ends is dropped.
    dropped: mpsc::UnboundedSender<()>,
}

struct World {
    base_url: String,
    server: Server,
    dropped: mpsc::UnboundedReceiver<()>,
}

impl World {
    async fn start() -> Self {
        let (sender, dropped) = mpsc::unbounded_channel();
        let server = Server { seen: Arc::default(), dropped: sender };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/chat/completions", post(completions))
            .route("/v1/models", get(models))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base_url, server, dropped }
    }

    fn backend(&self, model: &str) -> OpenAiBackend {
        backend(&self.base_url, model, KEY)
    }

    async fn answer(&self, model: &str) -> Vec<Result<Piece, BackendError>> {
        match self.backend(model).answer(ask(3)).await {
            Ok(pieces) => pieces.collect().await,
            Err(error) => vec![Err(error)],
        }
    }
}

fn backend(base_url: &str, model: &str, key: &str) -> OpenAiBackend {
    let settings = OpenAiSettings {
        base_url: base_url.to_owned(),
        model: model.to_owned(),
        api_key: Some(Secret::new(key).unwrap()),
        ca: None,
        max_tokens_name: Default::default(),
    };
    OpenAiBackend::new(&settings).unwrap()
}

fn ask(max_tokens: u32) -> Ask {
    let view = ViewName::new("front").unwrap();
    let header = ImageHeader { view, format: ImageFormat::Jpeg, width: 1, height: 1, byte_count: 3 };
    let parts = vec![Part::Text("what is it".into()), Part::Image(0)];
    let request = TurnRequest {
        turn_id: TurnId::new("t").unwrap(),
        model: None,
        deadline_ms: None,
        sampling: Sampling { max_tokens: Some(max_tokens), seed: Some(7), ..Sampling::default() },
        messages: vec![Message { role: Role::User, parts }],
        images: vec![header],
    };
    Ask { request, images: vec![Bytes::from_static(b"abc")], client: 0 }
}

async fn models(headers: HeaderMap) -> StatusCode {
    let known = headers.get("authorization").is_some_and(|given| given == &format!("Bearer {KEY}"));
    if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}

async fn completions(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let model = body["model"].as_str().unwrap().to_owned();
    *server.seen.lock().unwrap() = Some((headers, body));
    let error = |code: &str| format!(r#"{{"error":{{"message":"no, {KEY}","type":"t","code":"{code}"}}}}"#);
    match model.as_str() {
        "busy" => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")], error("rate")).into_response(),
        "key" => (StatusCode::UNAUTHORIZED, error("invalid_api_key")).into_response(),
        "bad" => (StatusCode::BAD_REQUEST, error("bad")).into_response(),
        "long" => (StatusCode::BAD_REQUEST, error("context_length_exceeded")).into_response(),
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
        "moved" => (StatusCode::PERMANENT_REDIRECT, [("location", "http://127.0.0.1:1/")]).into_response(),
        "whole" => {
            let body = r#"{"choices":[{"index":0,"message":{"content":"a cup"},"finish_reason":"stop"}],
                "usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
            ([("content-type", "application/json")], body).into_response()
        }
        "cut" => events(&[&chunk("a"), &chunk(" cup")]),
        "endless" => endless(server.dropped),
        "chatty" => events(&[&chunk("1"), &chunk("2"), &chunk("3"), &chunk("4"), "data: [DONE]\n\n"]),
        _ => events(&[
            &chunk("a"),
            &chunk(" cup"),
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n",
            "data: [DONE]\n\n",
        ]),
    }
}

fn chunk(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n")
}

fn events(parts: &[&str]) -> Response {
    ([("content-type", "text/event-stream")], parts.concat()).into_response()
}

/// One token, then nothing, until the client goes away.
fn endless(dropped: mpsc::UnboundedSender<()>) -> Response {
    struct Guard(mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let guard = Guard(dropped);
    let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from(chunk("a"))) });
    let rest = stream::pending().map(move |bytes| {
        let _ = &guard;
        bytes
    });
    ([("content-type", "text/event-stream")], Body::from_stream(first.chain(rest))).into_response()
}

fn text(pieces: &[Result<Piece, BackendError>]) -> String {
    pieces.iter().map(|piece| if let Ok(Piece::Text(text)) = piece { text.as_str() } else { "" }).collect()
}

#[tokio::test]
async fn a_turn_is_posted_as_documented_and_its_answer_streams_back() {
    let world = World::start().await;
    let pieces = world.answer("good").await;
    assert_eq!(text(&pieces), "a cup");
    let Some(Ok(Piece::End(end))) = pieces.last() else { panic!("{pieces:?}") };
    assert_eq!(end.usage, Usage { prompt_tokens: 9, completion_tokens: 2 });
    assert_eq!((end.finish_reason, end.usage_estimated), (FinishReason::Stop, false));
    let (headers, body) = world.server.seen.lock().unwrap().take().unwrap();
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(body["messages"][0]["content"][1]["image_url"]["url"], "data:image/jpeg;base64,YWJj");
    assert_eq!((&body["max_tokens"], &body["seed"], &body["stream"]), (&3.into(), &7.into(), &true.into()));
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let pieces = World::start().await.answer("whole").await;
    assert_eq!(text(&pieces), "a cup");
    let Some(Ok(Piece::End(end))) = pieces.last() else { panic!("{pieces:?}") };
    assert_eq!(end.usage, Usage { prompt_tokens: 9, completion_tokens: 2 });
}

#[tokio::test]
async fn errors_are_sorted_by_whose_turn_it_is_and_never_repeat_the_key() {
    let world = World::start().await;
    let error = |model: &'static str| {
        let answer = world.answer(model);
        async move { answer.await.pop().unwrap().unwrap_err() }
    };
    assert!(matches!(error("busy").await, BackendError::Busy { retry_after_ms: Some(2_000), .. }));
    let refused =
        |error: BackendError| if let BackendError::Refused(error) = error { error.code } else { panic!("{error}") };
    assert_eq!(refused(error("bad").await), ErrorCode::BadRequest);
    assert_eq!(refused(error("long").await), ErrorCode::ContextFull);
    for model in ["key", "broken", "moved"] {
        let error = error(model).await;
        assert!(matches!(error, BackendError::Failed(_)), "{model}: {error:?}");
    }
    for model in ["busy", "key", "bad", "long"] {
        let shown = format!("{:?}", error(model).await);
        assert!(shown.contains("[key]") && !shown.contains(KEY), "{shown}");
    }
    assert!(!format!("{:?}", world.backend("x")).contains(KEY));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_after_its_text() {
    let pieces = World::start().await.answer("cut").await;
    assert_eq!(text(&pieces), "a cup");
    assert!(matches!(pieces.last(), Some(Err(BackendError::Failed(_)))), "{pieces:?}");
}

#[tokio::test]
async fn a_server_that_ignores_max_tokens_is_cut_off() {
    let pieces = World::start().await.answer("chatty").await;
    assert_eq!(text(&pieces), "123");
    let Some(Ok(Piece::End(end))) = pieces.last() else { panic!("{pieces:?}") };
    assert_eq!((end.finish_reason, end.usage.completion_tokens, end.usage_estimated), (FinishReason::Length, 3, true));
}

#[tokio::test]
async fn dropping_the_answer_frees_the_server() {
    let mut world = World::start().await;
    let mut pieces = world.backend("endless").answer(ask(9)).await.unwrap();
    assert_eq!(pieces.next().await, Some(Ok(Piece::Text("a".into()))));
    drop(pieces);
    world.dropped.recv().await.unwrap();
}

#[tokio::test]
async fn a_probe_needs_the_server_and_the_key() {
    let world = World::start().await;
    assert_eq!(world.backend("x").probe().await, Ok(()));
    assert!(backend(&world.base_url, "x", "wrong").probe().await.is_err());
    let nobody = backend("http://127.0.0.1:1/v1", "x", KEY);
    let problem = nobody.probe().await.unwrap_err().to_string();
    assert!(problem.contains("http://127.0.0.1:1/v1 cannot be reached"), "{problem}");
    assert!(matches!(nobody.answer(ask(1)).await, Err(BackendError::Failed(_))));
}
