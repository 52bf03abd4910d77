//! The client against a real HTTP server on loopback, which plays the parts that real servers do not play on demand.

use super::*;
use crate::cloud::CloudTurn;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tether_protocol::limits::MAX_ANSWER_BYTES;
use tether_protocol::wire::{Accepted, ImageFormat, ImageHeader, Message, Part, Role, Sampling, TurnRequest, Vision};
use tether_protocol::{TurnId, ViewName};
use tokio::net::TcpListener;

/// What the server was asked: the headers and the body.
type Asked = mpsc::UnboundedReceiver<(HeaderMap, Bytes)>;
type Answering = Arc<dyn Fn() -> Response + Send + Sync>;

async fn server(answer: impl Fn() -> Response + Send + Sync + 'static) -> (SocketAddr, Asked) {
    let (seen, asked) = mpsc::unbounded_channel();
    let handle = |State((answer, seen)): State<(Answering, mpsc::UnboundedSender<_>)>,
                  headers: HeaderMap,
                  body: Bytes| async move {
        let _ = seen.send((headers, body));
        answer()
    };
    let state: (Answering, _) = (Arc::new(answer), seen);
    let app = Router::new().route("/v1/chat/completions", post(handle)).with_state(state);
    let app = app.layer(axum::extract::DefaultBodyLimit::disable());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, asked)
}

fn stream(pieces: Vec<&'static str>) -> Response {
    let body = Body::from_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
}

fn config(address: SocketAddr) -> OpenAiConfig {
    OpenAiConfig {
        base_url: format!("http://{address}/v1/"),
        model: "gpt".into(),
        api_key_file: None,
        api_key_env: None,
        ca: None,
        vision: true,
        max_tokens_name: MaxTokensName::MaxTokens,
        usd_per_million_prompt_tokens: 2.0,
        usd_per_million_completion_tokens: 10.0,
        connect_timeout_ms: 1_500,
    }
}

fn turn() -> CloudTurn {
    let request = TurnRequest {
        turn_id: TurnId::new("t1").unwrap(),
        model: None,
        deadline_ms: None,
        sampling: Sampling { seed: Some(7), ..Sampling::default() },
        messages: vec![Message { role: Role::User, parts: vec![Part::Text("Is the cup there?".into())] }],
        images: Vec::new(),
    };
    CloudTurn { request, images: Vec::new(), deadline: Instant::now() + Duration::from_secs(30), most_up_bytes: None }
}

#[tokio::test]
async fn a_body_ends_before_it_passes_its_limit() {
    let (address, mut asked) = server(|| stream(vec!["data: [DONE]\n\n"])).await;
    let cloud = OpenAiCloud::new(config(address)).unwrap();
    for most in [1_000, 40_000] {
        let mut turn = turn();
        turn.request.messages[0].parts = vec![Part::Text("x".repeat(100_000))];
        turn.most_up_bytes = Some(most);
        assert!((100_000..101_000).contains(&cloud.uplink_bytes(&turn)));
        let mut stream = cloud.turn(turn).await.unwrap();
        assert!(matches!(&events(&mut stream).await[..], [TurnEvent::Error(_)]));
        assert!(stream.bytes.is_cut() && stream.bytes.uplink_bytes() <= most);
        assert!(asked.try_recv().is_err(), "half a request is none");
    }
    assert!(cloud.problem().is_none(), "the server did nothing wrong");
}

async fn events(stream: &mut CloudStream) -> Vec<TurnEvent> {
    let mut events = Vec::new();
    while let Some(event) = stream.events.recv().await {
        events.push(event);
    }
    events
}

/// Asks a server that answers so, and gives the text and the last event.
async fn ask(answer: impl Fn() -> Response + Send + Sync + 'static) -> (String, TurnEvent) {
    let (address, _asked) = server(answer).await;
    let mut stream = OpenAiCloud::new(config(address)).unwrap().turn(turn()).await.unwrap();
    let mut events = events(&mut stream).await;
    let last = events.pop().unwrap();
    let text = events.iter().filter_map(|e| if let TurnEvent::Text(text) = e { Some(text.as_str()) } else { None });
    (text.collect(), last)
}

fn error(event: TurnEvent) -> WireError {
    if let TurnEvent::Error(error) = event { error } else { panic!("no error but {event:?}") }
}

const HELLO: &str = "data: {\"model\":\"gpt-7\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";

#[tokio::test]
async fn a_streamed_answer_becomes_events_with_cost_and_bytes() {
    let pieces = vec![
        ": hi\r\n\r\n",
        HELLO,
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ye\"}}]}\n\ndata: {\"choices\":[{\"del",
        "ta\":{\"content\":\"s\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":2,\"total_tokens\":1002}}\n\n",
        "data: [DONE]\n\n",
    ];
    let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (address, mut asked) = server(move || stream(pieces.clone())).await;
    let cloud = OpenAiCloud::new(config(address)).unwrap();
    assert_eq!(cloud.link().value(), None);
    let mut answer = cloud.turn(turn()).await.unwrap();
    let events = events(&mut answer).await;
    let TurnEvent::Done(done) = events.last().unwrap() else { panic!("{events:?}") };
    assert_eq!(events[0], TurnEvent::Accepted(Accepted { model: "gpt-7".into(), vision: Vision::Native }));
    assert_eq!(events[1..3], [TurnEvent::Text("Ye".into()), TurnEvent::Text("s".into())]);
    assert_eq!((done.usage.prompt_tokens, done.usage.completion_tokens, done.usage_estimated), (1_000, 2, false));
    assert!((done.cost_usd - 0.002_02).abs() < 1e-12, "{}", done.cost_usd);
    let (headers, body) = asked.recv().await.unwrap();
    let body_json: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body_json["messages"], json!([{"role": "user", "content": "Is the cup there?"}]));
    assert_eq!((&body_json["seed"], &body_json["stream"]), (&json!(7), &json!(true)));
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!((answer.bytes.uplink_bytes(), answer.bytes.downlink_bytes()), (body.len() as u64, sent as u64));
    assert_eq!(cloud.link().value().unwrap().state, LinkState::Up);
}

#[tokio::test]
async fn images_travel_as_data_urls_and_only_to_models_that_see() {
    let (address, mut asked) = server(|| stream(vec![HELLO, "data: [DONE]\n\n"])).await;
    let mut look = turn();
    let picture = crate::image_codec::testing::jpeg(64, 48);
    let view = ViewName::new("front").unwrap();
    let byte_count = picture.len() as u32;
    look.request.images = vec![ImageHeader { view, format: ImageFormat::Jpeg, width: 64, height: 48, byte_count }];
    look.request.messages[0].parts.push(Part::Image(0));
    look.images = vec![picture.clone()];
    let blind = OpenAiCloud::new(OpenAiConfig { vision: false, ..config(address) }).unwrap();
    let refused = blind.turn(look.clone()).await.unwrap_err();
    assert!(matches!(&refused, CloudError::Refused(error) if error.code == ErrorCode::NoVision), "{refused}");
    let mut answer = OpenAiCloud::new(config(address)).unwrap().turn(look).await.unwrap();
    events(&mut answer).await;
    let (_, body) = asked.recv().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let url = body["messages"][0]["content"][1]["image_url"]["url"].as_str().unwrap();
    assert_eq!(crate::views::parse_data_url(url, "front").unwrap().bytes, picture);
}

#[tokio::test]
async fn missing_usage_is_counted_and_marked() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let (text, last) = ask(move || stream(vec![chunk, chunk, chunk, "data: [DONE]"])).await;
    let TurnEvent::Done(done) = last else { panic!("{last:?}") };
    assert_eq!((text.as_str(), done.usage.completion_tokens, done.usage_estimated), ("aaa", 3, true));
    assert_eq!(done.usage.prompt_tokens, ("Is the cup there?".len() as u32).div_ceil(4));
}

#[tokio::test]
async fn an_answer_in_one_piece_is_read_too() {
    let body = json!({"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]});
    let (text, last) = ask(move || axum::Json(body.clone()).into_response()).await;
    assert_eq!(text, "Yes.");
    assert!(matches!(last, TurnEvent::Done(_)), "{last:?}");
}

#[tokio::test]
async fn statuses_become_codes_and_the_key_is_never_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "sk-secret").unwrap();
    let echo = || {
        let body = json!({"error": {"message": "no more for sk-secret", "code": "rate_limit"}});
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")], axum::Json(body)).into_response()
    };
    let (address, mut asked) = server(echo).await;
    let cloud = OpenAiCloud::new(OpenAiConfig { api_key_file: Some(file), ..config(address) }).unwrap();
    assert!(!format!("{cloud:?}").contains("secret"));
    let mut answer = cloud.turn(turn()).await.unwrap();
    let error = error(events(&mut answer).await.pop().unwrap());
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Overloaded, Some(2_000)));
    assert_eq!(error.message, "HTTP status 429: no more for [key]");
    assert!(answer.bytes.uplink_bytes() > 0);
    assert_eq!(asked.recv().await.unwrap().0["authorization"], "Bearer sk-secret");
}

#[tokio::test]
async fn what_is_not_an_answer_is_an_error() {
    let html = || ([("content-type", "text/html")], "<h1>Log in</h1>").into_response();
    assert!(error(ask(html).await.1).message.contains("base_url"));
    let away = || (StatusCode::FOUND, [("location", "http://elsewhere.test/v1")]).into_response();
    assert!(error(ask(away).await.1).message.contains("elsewhere.test"));
    let cut = error(ask(|| stream(vec![HELLO, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"])).await.1);
    assert!(cut.message.contains("ended before"), "{cut}");
    let said = error(
        ask(|| stream(vec![HELLO, "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n"])).await.1,
    );
    assert_eq!((said.code, said.message.as_str()), (ErrorCode::BackendFailed, "the server said: out of memory"));
    let junk = error(ask(|| stream(vec!["data: {nope\n\n"])).await.1);
    assert!(junk.message.contains("not JSON"), "{junk}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_limit() {
    let endless = || {
        let chunk = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(64 * 1_024));
        let body = Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())));
        ([("content-type", "text/event-stream")], body).into_response()
    };
    let (text, last) = ask(endless).await;
    assert_eq!(text.len(), MAX_ANSWER_BYTES);
    assert!(error(last).message.contains("longer than"));
}

struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_request() {
    let (gone, mut dropped) = mpsc::unbounded_channel();
    let unending = move || {
        let guard = OnDrop(gone.clone());
        let first = Ok::<_, std::io::Error>("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
        let body = futures::stream::iter([first]).chain(futures::stream::pending());
        // The guard goes when the server drops the body, which is when it sees that the client has gone.
        let body = body.inspect(move |_| {
            let _held = &guard;
        });
        ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
    };
    let (address, _asked) = server(unending).await;
    let mut answer = OpenAiCloud::new(config(address)).unwrap().turn(turn()).await.unwrap();
    assert!(matches!(answer.events.recv().await, Some(TurnEvent::Accepted(_))));
    assert!(dropped.try_recv().is_err());
    drop(answer);
    let noticed = tokio::time::timeout(Duration::from_secs(20), dropped.recv()).await;
    assert!(noticed.is_ok(), "the server never saw the client go");
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline() {
    let silent = || {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        ([("content-type", "text/event-stream")], body).into_response()
    };
    let (address, _asked) = server(silent).await;
    let mut late = turn();
    late.deadline = Instant::now() + Duration::from_millis(500);
    // On a machine so busy that connecting takes longer, the same deadline is told earlier.
    match OpenAiCloud::new(config(address)).unwrap().turn(late).await {
        Ok(mut answer) => {
            assert_eq!(error(events(&mut answer).await.pop().unwrap()).code, ErrorCode::DeadlineExceeded);
        }
        Err(early) => assert!(matches!(early, CloudError::Deadline), "{early}"),
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_then_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cloud = OpenAiCloud::new(config(address)).unwrap();
    let refused = cloud.turn(turn()).await.unwrap_err();
    assert!(matches!(&refused, CloudError::Unreachable { problem, .. } if problem.contains("refused")), "{refused}");
    assert_eq!(cloud.link().value().unwrap().state, LinkState::Down);
    let mut other = turn();
    other.request.model = Some("other".into());
    let unknown = cloud.turn(other).await.unwrap_err();
    assert!(matches!(&unknown, CloudError::Refused(error) if error.code == ErrorCode::UnknownModel), "{unknown}");
}

/// A server that speaks TLS, answers one request, and whose handshake may fail.
fn tls_server() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || -> std::io::Result<()> {
        use std::io::{Read, Write};
        let (socket, _) = listener.accept()?;
        let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(tls).unwrap(), socket);
        let mut request = Vec::new();
        // The body is JSON and short: its last byte ends the request.
        while !request.ends_with(b"}") {
            let mut piece = [0; 4_096];
            let read = tls.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            request.extend_from_slice(&piece[..read]);
        }
        let body = r#"{"choices":[{"message":{"content":"Over TLS."}}]}"#;
        let length = body.len();
        write!(tls, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")?;
        tls.conn.send_close_notify();
        tls.flush()
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let trusting = |address: SocketAddr, pem: &str| {
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, pem).unwrap();
        OpenAiCloud::new(OpenAiConfig { base_url: format!("https://{address}/v1"), ca: Some(ca), ..config(address) })
    };
    let (address, pem) = tls_server();
    let mut answer = trusting(address, &pem).unwrap().turn(turn()).await.unwrap();
    assert!(events(&mut answer).await.contains(&TurnEvent::Text("Over TLS.".into())));

    let (address, _) = tls_server();
    let wrong = trusting(address, &pem).unwrap().turn(turn()).await.unwrap_err();
    assert!(matches!(wrong, CloudError::Untrusted { .. }), "{wrong}");
    assert!(trusting(address, "no certificate").unwrap_err().to_string().contains("ca.pem"));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let said = |change: fn(&mut OpenAiConfig)| {
        let mut config = config(address);
        change(&mut config);
        OpenAiCloud::new(config).map(drop).unwrap_err().to_string()
    };
    assert!(said(|c| c.base_url = "nonsense".into()).contains("base_url"));
    assert!(said(|c| c.base_url = "ftp://host/v1".into()).contains("base_url"));
    assert!(said(|c| c.base_url = "http://me:secret@host/v1".into()).contains("api_key_file"));
    assert!(said(|c| c.model = String::new()).contains("model"));
    assert!(said(|c| c.usd_per_million_prompt_tokens = -1.0).contains("usd_per_million_prompt_tokens"));
    assert!(said(|c| c.ca = Some("/nonexistent/ca.pem".into())).contains("/nonexistent/ca.pem"));
    assert!(said(|c| c.connect_timeout_ms = 0).contains("connect_timeout_ms"));
}
