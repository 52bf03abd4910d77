//! One side fails: the other answers, within the same deadline, and the answer says so.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tether::testing::{Behaviour, Upstream, World};

async fn scene(behaviour: Behaviour, extra: &str) -> (tempfile::TempDir, Upstream, World) {
    let upstream = Upstream::start(behaviour).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{extra}\n{}", upstream.config());
    let world = World::start(folder.path(), &extra).await.unwrap();
    (folder, upstream, world)
}

const ALWAYS_CLOUD: &str = "[policy]\nname = \"always-cloud\"\n";

#[tokio::test]
async fn a_cloud_that_fails_before_the_first_token_is_replaced_by_the_local_model() {
    for behaviour in [Behaviour::Fail, Behaviour::Overloaded] {
        let (_folder, upstream, world) = scene(behaviour, ALWAYS_CLOUD).await;
        let streaming = world.stream("hello", json!({"max_tokens": 3, "tether": {"session": "s"}})).await.unwrap();
        assert_eq!(streaming.response.status(), 200);
        assert_eq!(streaming.response.headers()["x-tether-route"], "local", "headers wait for the first token");
        assert_eq!(streaming.response.headers()["x-tether-reason"], "cloud_failed");
        let events = streaming.events().await.unwrap();
        assert_eq!(events.last().unwrap(), "[DONE]");
        let tether = &events[events.len() - 2]["tether"];
        assert_eq!(tether["route"], "local");
        assert!(tether["fallback"].as_str().unwrap().contains("told to fail"), "{tether}");
        assert!(tether["uplink_bytes"].as_u64().unwrap() > 0, "what the attempt sent is counted");
        // A failure may have to be paid, a refusal not.
        let usd = if behaviour == Behaviour::Fail { Value::Null } else { json!(0.0) };
        assert_eq!(tether["usd"], usd);
        assert_eq!(upstream.bodies().len(), 1);
    }
}

#[tokio::test]
async fn a_cloud_that_nobody_listens_at_costs_nothing_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cloud = format!("[cloud]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\nmodel = \"far\"\n");
    let world = World::start(folder.path(), &format!("{ALWAYS_CLOUD}{cloud}")).await.unwrap();
    let tether = world.ask("hello", json!({"max_tokens": 3})).await.unwrap().json()["tether"].clone();
    assert_eq!((&tether["route"], &tether["reason"]), (&json!("local"), &json!("cloud_failed")), "{tether}");
    assert_eq!((&tether["uplink_bytes"], &tether["views"], &tether["usd"]), (&json!(0), &json!([]), &json!(0.0)));
    let only = world.ask("hello", json!({"tether": {"route": "cloud"}})).await.unwrap();
    assert_eq!((only.status, only.code().as_str()), (502, "cloud_unreachable"), "{}", only.text());
}

#[tokio::test]
async fn a_silent_cloud_leaves_half_of_the_deadline_to_the_local_model() {
    let (_folder, _upstream, world) = scene(Behaviour::Silent, ALWAYS_CLOUD).await;
    let begun = Instant::now();
    let extra = json!({"max_tokens": 2, "tether": {"deadline_ms": 3_000}});
    let reply = world.ask("hello", extra).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["tether"]["reason"], "cloud_failed");
    assert!(begun.elapsed() >= Duration::from_millis(1_400) && begun.elapsed() < Duration::from_millis(3_000));
}

#[tokio::test]
async fn after_the_first_token_there_is_an_error_event_and_no_done() {
    let (_folder, _upstream, world) = scene(Behaviour::BreakAfterFirst, ALWAYS_CLOUD).await;
    let events = world.stream("hello", json!({"tether": {"session": "s"}})).await.unwrap().events().await.unwrap();
    assert_eq!(events[1]["choices"][0]["delta"]["content"], "from");
    let last = events.last().unwrap();
    assert!(last["error"]["message"].as_str().is_some(), "{events:?}");
    let turn = world.get("/v1/turns").await.unwrap().json()["turns"][0].clone();
    assert_eq!(turn["outcome"], "failed");
}

#[tokio::test]
async fn without_a_local_model_the_cloud_answers() {
    let extra = "[model]\npath = \"missing.gguf\"\n";
    let (_folder, _upstream, world) = scene(Behaviour::Answer, extra).await;
    let reply = world.ask("hello", json!({})).await.unwrap().json();
    assert_eq!((&reply["tether"]["route"], &reply["model"]), (&json!("cloud"), &json!("far-1")), "{reply}");
    let status = world.get("/v1/status").await.unwrap().json();
    assert!(status["model_problem"].as_str().unwrap().contains("missing.gguf"), "{status}");
    let local = world.ask("hello", json!({"tether": {"route": "local"}})).await.unwrap();
    assert_eq!((local.status, local.code().as_str()), (503, "local_unavailable"));
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_goes_to_the_cloud() {
    let extra = "[model]\npath = \"tiny.gguf\"\ncontext_tokens = 64\non_context_full = \"error\"\n";
    let (_folder, _upstream, world) = scene(Behaviour::Answer, extra).await;
    let long = "word ".repeat(100);
    let reply = world.ask(&long, json!({})).await.unwrap().json();
    assert_eq!((&reply["tether"]["route"], &reply["tether"]["reason"]), (&json!("cloud"), &json!("prompt_too_long")));
    let local = world.ask(&long, json!({"tether": {"route": "local"}})).await.unwrap();
    assert_eq!((local.status, local.code().as_str()), (400, "context_length_exceeded"), "{}", local.text());
    assert!(local.text().contains("model.context_tokens"), "{}", local.text());
}

#[tokio::test]
async fn a_daemon_without_model_and_cloud_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = World::start(folder.path(), "[model]\npath = \"missing.gguf\"\n").await.err().unwrap().to_string();
    assert!(error.contains("missing.gguf") && error.contains("tether models pull"), "{error}");
}

/// The record of the newest turn, once it is settled.
async fn newest(world: &World) -> Value {
    for _ in 0..600 {
        let turns = world.get("/v1/turns").await.unwrap().json();
        let turn = turns["turns"][0].clone();
        if turn["outcome"].is_string() && turn["outcome"] != "unfinished" {
            return turn;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the turn is never settled");
}

#[tokio::test]
async fn a_turn_that_is_cut_off_tells_the_tokens_that_there_were() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), "").await.unwrap();
    let mut streaming = world.stream("tell a long story", json!({"max_tokens": 4_000})).await.unwrap();
    let mut seen = String::new();
    while seen.matches("\"content\":\"").count() < 4 {
        let bytes = streaming.next().await.unwrap().expect("the tiny model goes on");
        seen.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    drop(streaming);
    let turn = newest(&world).await;
    assert_eq!((&turn["outcome"], &turn["usage_estimated"]), (&json!("cancelled"), &json!(false)), "{turn}");
    // The first piece is the empty one of the head.
    assert!(turn["usage"]["completion_tokens"].as_u64().unwrap() >= 3, "{turn}");
    assert!(turn["usage"]["prompt_tokens"].as_u64().unwrap() > 3, "{turn}");

    let (_folder, _upstream, world) = scene(Behaviour::BreakAfterFirst, "").await;
    let streaming = world.stream("hello there", json!({"tether": {"route": "cloud"}})).await.unwrap();
    let events = streaming.events().await.unwrap();
    assert!(events.last().unwrap()["error"]["code"].is_string(), "{events:?}");
    let turn = newest(&world).await;
    assert_eq!((&turn["outcome"], &turn["usage_estimated"]), (&json!("failed"), &json!(true)), "{turn}");
    assert_eq!(turn["usage"], json!({"prompt_tokens": 3, "completion_tokens": 1}), "{turn}");
}
