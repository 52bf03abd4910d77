//! Whole turns through the gateway, without the network: what goes in, and the events that come out.

use super::*;
use crate::backend::scripted::{Fault, FaultKind, Script};
use crate::config::{BackendSettings, CandleSettings, Kind};
use crate::price::Prices;
use crate::server::{EventSender, Images};
use crate::testing::{backend, fault, request, script, settings};
use crate::zoo::choose::FirstAble;
use bytes::Bytes;
use image::{DynamicImage, Rgb, RgbImage};
use std::io::Cursor;
use tether_models::OnContextFull;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::ViewName;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::{
    Accepted, ErrorCode, ImageFormat, ImageHeader, Part, Sampling, TurnEvent, TurnRequest, Vision, WireError,
};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

fn gateway(zoo: Vec<BackendSettings>) -> Arc<Gateway> {
    Arc::new(Gateway::new(&settings(zoo), Box::new(FirstAble)).unwrap())
}

fn peer() -> Peer {
    Peer { name: "robot".into(), address: "127.0.0.1:1".parse().unwrap() }
}

/// A turn under way; dropping `events` cancels it.
struct Running {
    events: Receiver<TurnEvent>,
    handler: JoinHandle<()>,
}

fn start(gateway: &Arc<Gateway>, request: TurnRequest, images: Vec<Bytes>) -> Running {
    let (sender, events) = EventSender::channel(4);
    let turn = IncomingTurn { request, images: Images::ready(images), events: sender };
    let gateway = Arc::clone(gateway);
    Running { events, handler: tokio::spawn(async move { gateway.handle(peer(), turn).await }) }
}

async fn run(gateway: &Arc<Gateway>, request: TurnRequest, images: Vec<Bytes>) -> Vec<TurnEvent> {
    let Running { mut events, handler } = start(gateway, request, images);
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(event);
    }
    handler.await.unwrap();
    seen
}

async fn say(gateway: &Arc<Gateway>, text: &str) -> Vec<TurnEvent> {
    run(gateway, request(text), Vec::new()).await
}

fn text(events: &[TurnEvent]) -> String {
    events.iter().map(|event| if let TurnEvent::Text(text) = event { text.as_str() } else { "" }).collect()
}

fn error(events: &[TurnEvent]) -> &WireError {
    let Some(TurnEvent::Error(error)) = events.last() else { panic!("no error: {events:?}") };
    error
}

fn model(events: &[TurnEvent]) -> &Accepted {
    let Some(TurnEvent::Accepted(accepted)) = events.first() else { panic!("not accepted: {events:?}") };
    accepted
}

/// Waits for what another task is about to do.
async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it never happened");
}

fn inside(gateway: &Gateway) -> usize {
    gateway.zoo().members().iter().map(|member| member.gate.inside()).sum()
}

fn hanging(name: &str) -> BackendSettings {
    backend(name, Script { faults: fault(FaultKind::Hang), ..script("") })
}

fn failing(name: &str) -> BackendSettings {
    backend(name, Script { faults: fault(FaultKind::Error(ErrorCode::BackendFailed)), ..script("") })
}

#[tokio::test]
async fn an_answer_is_accepted_streamed_and_priced() {
    let prices = Prices { usd_per_million_completion_tokens: 1e6, usd_per_request: 0.5, ..Prices::default() };
    let gateway = gateway(vec![BackendSettings { prices, ..backend("small", script("a red cup")) }]);
    let events = say(&gateway, "what is it").await;
    assert_eq!(*model(&events), Accepted { model: "small".into(), vision: Vision::Measured });
    assert_eq!(text(&events), "a red cup");
    let Some(TurnEvent::Done(done)) = events.last() else { panic!("{events:?}") };
    assert_eq!(done.usage, Usage { prompt_tokens: 3, completion_tokens: 3 });
    assert_eq!((done.finish_reason, done.cost_usd, done.usage_estimated), (FinishReason::Stop, 3.5, false));
    assert_eq!(inside(&gateway), 0);
}

#[tokio::test]
async fn max_tokens_are_those_asked_for_within_those_allowed() {
    let count = |asked: Option<u32>, allowed: u32| async move {
        let settings =
            BackendSettings { max_tokens: allowed, default_max_tokens: 2, ..backend("m", script("a b c d e")) };
        let mut request = request("x");
        request.sampling.max_tokens = asked;
        text(&run(&gateway(vec![settings]), request, Vec::new()).await)
    };
    assert_eq!(count(None, 9).await, "a b ");
    assert_eq!(count(Some(3), 9).await, "a b c ");
    assert_eq!(count(Some(1_000), 4).await, "a b c d ");
}

#[tokio::test]
async fn another_backend_answers_for_one_that_fails_and_it_comes_back_after_a_probe() {
    let kind = FaultKind::Error(ErrorCode::BackendFailed);
    let once = Fault { kind, probability: 1.0, first_turns: Some(1) };
    let first = Script { faults: vec![once], failed_probes: 1, ..script("first") };
    let gateway = gateway(vec![backend("first", first), backend("second", script("second"))]);
    let events = say(&gateway, "x").await;
    assert_eq!((model(&events).model.as_str(), text(&events).as_str()), ("second", "second"));
    let zoo = gateway.zoo();
    assert!(!zoo.members()[0].is_healthy());
    assert!(gateway.is_ready(), "one of two is enough");
    assert_eq!(text(&say(&gateway, "x").await), "second", "it is not asked while it is out");
    // The first probe fails by the script, the second succeeds.
    until(|| zoo.members()[0].is_healthy()).await;
    assert_eq!(text(&say(&gateway, "x").await), "first");
}

#[tokio::test]
async fn when_all_fail_the_last_failure_is_told() {
    let gateway = gateway(vec![failing("one"), failing("two")]);
    let events = say(&gateway, "x").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(error(&events).code, ErrorCode::BackendFailed);
    assert!(error(&events).message.starts_with("model two: scripted"), "{}", error(&events).message);
    assert!(!gateway.is_ready());
    let events = say(&gateway, "x").await;
    assert!(error(&events).message.contains("every model of the zoo is out"), "{}", error(&events).message);
    assert!(error(&events).retry_after_ms.is_some());
}

#[tokio::test]
async fn a_named_model_is_not_replaced() {
    let gateway = gateway(vec![failing("one"), backend("two", script("two"))]);
    let named = |name: &str| TurnRequest { model: Some(name.into()), ..request("x") };
    let events = run(&gateway, named("one"), Vec::new()).await;
    assert_eq!(error(&events).code, ErrorCode::BackendFailed);
    assert_eq!(text(&run(&gateway, named("two"), Vec::new()).await), "two");
    let events = run(&gateway, named("three"), Vec::new()).await;
    assert_eq!(error(&events).code, ErrorCode::UnknownModel);
}

#[tokio::test]
async fn after_the_first_token_nobody_else_answers() {
    let cut = Script { faults: fault(FaultKind::Cut { after_tokens: 2 }), ..script("a b c d") };
    let gateway = gateway(vec![backend("one", cut), backend("two", script("two"))]);
    let events = say(&gateway, "x").await;
    assert_eq!(text(&events), "a b ");
    assert_eq!(error(&events).code, ErrorCode::BackendFailed);
    assert!(!gateway.zoo().members()[0].is_healthy());
}

#[tokio::test]
async fn a_full_queue_turns_away_with_retry_after_and_cancelling_frees_it_at_once() {
    let settings = BackendSettings { concurrency: 1, queue: 1, ..hanging("slow") };
    let gateway = gateway(vec![settings]);
    let first = start(&gateway, request("1"), Vec::new());
    until(|| inside(&gateway) == 1).await;
    let second = start(&gateway, request("2"), Vec::new());
    until(|| inside(&gateway) == 2).await;
    let events = say(&gateway, "3").await;
    assert_eq!(error(&events).code, ErrorCode::Overloaded);
    assert_eq!(error(&events).retry_after_ms, Some(1_000));
    // One that waits, then one that runs.
    drop(second.events);
    second.handler.await.unwrap();
    assert_eq!(inside(&gateway), 1);
    drop(first.events);
    first.handler.await.unwrap();
    assert_eq!(inside(&gateway), 0);
    let page = gateway.metrics.page(&gateway.zoo(), None);
    assert!(page.contains(r#"tether_gateway_turns_total{model="slow",outcome="cancelled"} 2"#), "{page}");
    assert!(gateway.is_ready(), "a cancelled turn is no failure of the backend");
}

#[tokio::test]
async fn a_full_backend_is_passed_over() {
    let gateway =
        gateway(vec![BackendSettings { concurrency: 1, ..hanging("slow") }, backend("spare", script("spare"))]);
    let first = start(&gateway, request("1"), Vec::new());
    until(|| inside(&gateway) == 1).await;
    assert_eq!(text(&say(&gateway, "2").await), "spare");
    drop(first);
}

#[tokio::test]
async fn a_deadline_ends_the_turn_and_is_nobodys_failure() {
    let gateway = gateway(vec![hanging("slow")]);
    let events = run(&gateway, TurnRequest { deadline_ms: Some(30), ..request("x") }, Vec::new()).await;
    assert_eq!(error(&events).code, ErrorCode::DeadlineExceeded);
    assert!(error(&events).message.contains("30 ms"));
    assert_eq!(inside(&gateway), 0);
    assert!(gateway.is_ready());
}

#[tokio::test]
async fn silence_is_a_failure() {
    let mute = BackendSettings { first_token_timeout: Duration::from_millis(20), ..hanging("mute") };
    let gateway = gateway(vec![mute, backend("two", script("two"))]);
    assert_eq!(text(&say(&gateway, "x").await), "two");
    assert!(gateway.zoo().members()[0].problem().unwrap().contains("it said nothing for 20 ms"));
}

fn picture(luma: u8) -> (ImageHeader, Bytes) {
    let mut bytes = Cursor::new(Vec::new());
    let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(32, 24, Rgb([luma; 3])));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let bytes = Bytes::from(bytes.into_inner());
    let view = ViewName::new("front").unwrap();
    let byte_count = bytes.len() as u32;
    (ImageHeader { view, format: ImageFormat::Png, width: 32, height: 24, byte_count }, bytes)
}

fn with_picture(header: ImageHeader) -> TurnRequest {
    let mut request = request("look:");
    request.messages[0].parts.push(Part::Image(0));
    TurnRequest { images: vec![header], ..request }
}

#[tokio::test]
async fn an_image_is_measured_where_nothing_sees_it() {
    let gateway = gateway(vec![backend("blind", script("{user}"))]);
    let (header, bytes) = picture(128);
    let events = run(&gateway, with_picture(header), vec![bytes]).await;
    assert_eq!(model(&events).vision, Vision::Measured);
    let said = text(&events);
    assert!(said.starts_with("look:\n[Image of view front, measured: 32x24 pixels; colours grey 100 %"), "{said}");
    assert!(!said.contains("Since the frame"), "{said}");
    let (header, bytes) = picture(200);
    let said = text(&run(&gateway, with_picture(header), vec![bytes]).await);
    assert!(said.contains("before: nothing moved, and it became brighter.]"), "{said}");
}

#[tokio::test]
async fn an_image_passes_whole_to_a_backend_that_sees() {
    let seeing = BackendSettings {
        vision: Vision::Native,
        prices: Prices { usd_per_image: 0.25, ..Prices::default() },
        ..backend("seeing", script("{images}"))
    };
    let blind = BackendSettings { vision: Vision::None, ..backend("blind", script("?")) };
    let gateway = gateway(vec![blind, seeing]);
    let (header, bytes) = picture(128);
    let events = run(&gateway, with_picture(header), vec![bytes]).await;
    assert_eq!((model(&events).vision, text(&events).as_str()), (Vision::Native, "1"));
    let Some(TurnEvent::Done(done)) = events.last() else { panic!("{events:?}") };
    assert_eq!(done.cost_usd, 0.25);
}

#[tokio::test]
async fn a_bad_image_is_named_and_a_hopeless_turn_waits_for_none() {
    let gateway = gateway(vec![backend("blind", script("{user}"))]);
    let (header, _) = picture(128);
    let events = run(&gateway, with_picture(header.clone()), vec![Bytes::from_static(b"GIF89a")]).await;
    assert_eq!(error(&events).code, ErrorCode::BadRequest);
    assert!(error(&events).message.contains("view front: it is not the PNG"), "{}", error(&events).message);
    assert!(gateway.is_ready());
    let gateway = self::gateway(vec![BackendSettings { vision: Vision::None, ..backend("blind", script("?")) }]);
    // No image ever comes.
    let events = run(&gateway, with_picture(header), Vec::new()).await;
    assert_eq!(error(&events).code, ErrorCode::NoVision);
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change_and_survives_a_mistake() {
    let gateway = gateway(vec![backend("a", script("a")), backend("b", script("b"))]);
    let before = gateway.zoo();
    gateway.reload(&settings(vec![backend("b", script("b")), backend("c", script("c"))])).unwrap();
    let after = gateway.zoo();
    assert!(Arc::ptr_eq(&before.members()[1], &after.members()[0]));
    assert_eq!(text(&say(&gateway, "x").await), "b");
    let mut broken = backend("d", script("d"));
    broken.kind = Kind::Candle(CandleSettings {
        model: "/nowhere/model.gguf".into(),
        threads: None,
        on_context_full: Default::default(),
    });
    let problem = format!("{:#}", gateway.reload(&settings(vec![broken])).unwrap_err());
    assert!(problem.contains("/nowhere/model.gguf"), "{problem}");
    assert_eq!(text(&say(&gateway, "x").await), "b");
}

/// A random model in a GGUF file: real prefill, decoding and tokenizer, nonsense for an answer.
fn candle(folder: &tempfile::TempDir, on_context_full: OnContextFull) -> BackendSettings {
    let path = folder.path().join("tiny.gguf");
    TinyModel { context_tokens: 256, ..TinyModel::new(TinyArchitecture::Llama) }.write(&path).unwrap();
    let candle = CandleSettings { model: path.to_string_lossy().into_owned(), threads: Some(1), on_context_full };
    BackendSettings { kind: Kind::Candle(candle), concurrency: 1, ..backend("tiny", script("")) }
}

fn greedy(text: &str, max_tokens: u32) -> TurnRequest {
    let sampling = Sampling { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Sampling::default() };
    TurnRequest { sampling, ..request(text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_model_answers_and_is_freed_when_the_client_cancels() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(vec![candle(&folder, OnContextFull::Error)]);
    let events = run(&gateway, greedy("what is in the picture", 12), Vec::new()).await;
    assert_eq!(model(&events).model, "tiny");
    let Some(TurnEvent::Done(done)) = events.last() else { panic!("{events:?}") };
    assert_eq!((done.finish_reason, done.usage.completion_tokens), (FinishReason::Length, 12));
    assert!(done.usage.prompt_tokens > 5 && !text(&events).is_empty(), "{events:?}");
    assert_eq!(events, run(&gateway, greedy("what is in the picture", 12), Vec::new()).await, "greedy repeats");
    let mut long = start(&gateway, greedy("tell me everything", 100), Vec::new());
    long.events.recv().await.unwrap();
    drop(long.events);
    long.handler.await.unwrap();
    assert_eq!(inside(&gateway), 0);
    let events = run(&gateway, greedy("and now", 3), Vec::new()).await;
    assert!(matches!(events.last(), Some(TurnEvent::Done(_))), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_beyond_the_context_is_refused_or_shortened_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let long = || {
        let mut turn = greedy("first of all, ", 4);
        let message = |words: &str| tether_protocol::wire::Message {
            role: tether_protocol::wire::Role::User,
            parts: vec![Part::Text(words.repeat(20))],
        };
        turn.messages = vec![message("first of all, "), message("then this, "), message("now ")];
        turn
    };
    let strict = gateway(vec![candle(&folder, OnContextFull::Error)]);
    assert_eq!(error(&run(&strict, long(), Vec::new()).await).code, ErrorCode::ContextFull);
    assert!(strict.is_ready(), "the turn is at fault, not the model");
    let lenient = gateway(vec![candle(&folder, OnContextFull::DropOldest)]);
    let events = run(&lenient, long(), Vec::new()).await;
    let Some(TurnEvent::Done(done)) = events.last() else { panic!("{events:?}") };
    assert!(done.dropped_messages > 0, "{done:?}");
}

#[tokio::test]
async fn the_pages_tell_health_metrics_and_status() {
    let prices = Prices { usd_per_request: 0.25, ..Prices::default() };
    let gateway = gateway(vec![BackendSettings { prices, ..backend("small", script("a b")) }]);
    say(&gateway, "x").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let pages = tokio::spawn(crate::http::run(listener, Arc::clone(&gateway), stop.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let get = |page: &str| client.get(format!("{url}{page}")).send();
    assert_eq!(get("/readyz").await.unwrap().status(), 200);
    let page = get("/metrics").await.unwrap().text().await.unwrap();
    for line in [
        r#"tether_gateway_turns_total{model="small",outcome="answered"} 1"#,
        r#"tether_gateway_tokens_total{model="small",kind="completion"} 2"#,
        r#"tether_gateway_cost_usd_total{model="small"} 0.25"#,
        r#"tether_gateway_payload_bytes_total{direction="sent"} 3"#,
        r#"tether_gateway_first_token_seconds_count{model="small"} 1"#,
        r#"tether_gateway_backend_up{model="small"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    let status: crate::status::Status = get("/status").await.unwrap().json().await.unwrap();
    assert_eq!((status.ready, status.zoo[0].answered, status.zoo[0].cost_usd), (true, 1, 0.25));
    assert!(status.to_string().contains("small  scripted  measured  up"), "{status}");
    gateway.set_draining();
    let ready = get("/readyz").await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (503, "draining\n"));
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    stop.cancel();
    pages.await.unwrap().unwrap();
}
