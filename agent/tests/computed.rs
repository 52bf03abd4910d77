//! What the daemon keeps of a dialogue's arithmetic: a turn computes only what is new, until the session is forgotten; the
//! model leaves memory when nobody needs it, and comes back.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tether::testing::World;

const MODEL: &str = "[model]\npath = \"tiny.gguf\"\nmax_tokens = 8\nsystem_prompt = \"\"\n";

async fn world(folder: &tempfile::TempDir, extra: &str) -> World {
    World::start(folder.path(), extra).await.unwrap()
}

/// Prompt tokens of a turn, and those of them that were not computed again.
async fn turn(world: &World, session: Option<&str>, text: &str) -> (u64, u64) {
    let mut extra = json!({"temperature": 0});
    if let Some(session) = session {
        extra["tether"] = json!({"session": session});
    }
    let reply = world.ask(text, extra).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let usage = reply.json()["usage"].clone();
    let count = |value: &Value| value.as_u64().unwrap();
    (count(&usage["prompt_tokens"]), count(&usage["prompt_tokens_details"]["cached_tokens"]))
}

async fn model(world: &World) -> Value {
    world.get("/v1/status").await.unwrap().json()["model"].clone()
}

async fn until(world: &World, what: &str, done: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let model = model(world).await;
        if done(&model) {
            return model;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come about: {model}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const LONG: &str =
    "Tell me, please, at some length, what a robot in a kitchen should know about cups, plates and knives.";

#[tokio::test]
async fn each_turn_finds_the_prompt_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, "").await;
    let mut before = 0;
    for text in ["one", LONG, "three", "four", "five"] {
        // Another dialogue in between takes nothing from this one.
        turn(&world, Some("other"), "something else").await;
        let (prompt, cached) = turn(&world, Some("s"), text).await;
        assert!(cached >= before, "{cached} of {before}, prompt {prompt}");
        before = prompt;
    }
    let cache = model(&world).await["cache"].clone();
    assert_eq!(cache["sequences"], 2);
    assert!(cache["bytes"].as_u64().unwrap() > 0 && cache["cached_tokens"].as_u64().unwrap() >= before);
    let metrics = world.get("/metrics").await.unwrap().text();
    assert!(metrics.contains("tether_model_cache_sequences 2"), "{metrics}");
    assert!(metrics.contains("kind=\"cached\""), "{metrics}");
    assert!(world.get("/v1/status").await.unwrap().json()["memory"]["peak_resident_bytes"].as_u64().unwrap() > 1 << 20);
    let newest = world.get("/v1/turns?limit=1").await.unwrap().json();
    assert!(newest["turns"][0]["cached_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_forgotten_session_leaves_nothing_computed_in_memory_or_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("{MODEL}cache_disk_bytes = 100000000\n");
    let started = world(&folder, &settings).await;
    turn(&started, Some("s"), LONG).await;
    turn(&started, Some("kept"), LONG).await;
    started.stop().await.unwrap();
    let files = || std::fs::read_dir(folder.path().join("cache")).unwrap().count();
    assert_eq!(files(), 2);
    let started = world(&folder, &settings).await;
    let (prompt, cached) = turn(&started, Some("s"), "go on").await;
    assert!(cached > 60 && cached < prompt, "{cached} of {prompt} after a restart");
    assert_eq!(model(&started).await["cache"]["restored"], 1);
    assert_eq!(started.send("DELETE", "/v1/sessions/s", "").await.unwrap().status, 200);
    assert_eq!(files(), 1);
    assert_eq!(model(&started).await["cache"]["sequences"], 0);
    started.stop().await.unwrap();
    assert_eq!(files(), 1, "a stop does not bring it back");
}

#[tokio::test]
async fn an_expired_session_leaves_nothing_without_anybody_asking() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, "[sessions]\nttl_s = 1\n").await;
    turn(&world, Some("s"), LONG).await;
    assert_eq!(model(&world).await["cache"]["sequences"], 1);
    until(&world, "the expiry", |model| model["cache"]["sequences"] == 0).await;
}

#[tokio::test]
async fn an_idle_model_leaves_memory_and_the_next_turn_brings_it_back_with_its_dialogue() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, &format!("{MODEL}keep_alive_s = 1\ncache_disk_bytes = 100000000\n")).await;
    assert_eq!(model(&world).await["state"], "loaded");
    let (first, _) = turn(&world, Some("s"), LONG).await;
    let gone = until(&world, "unloading", |model| model["state"] == "unloaded").await;
    assert_eq!(gone["load"]["queue"], 0);
    assert_eq!(world.get("/healthz").await.unwrap().status, 200);
    let (_, cached) = turn(&world, Some("s"), "go on").await;
    assert!(cached >= first - 1, "{cached} of {first}");
    assert_eq!(model(&world).await["state"], "loaded");
    // Forgotten while it is out of memory: nothing stays on disk.
    until(&world, "unloading again", |model| model["state"] == "unloaded").await;
    assert_eq!(world.send("DELETE", "/v1/sessions/s", "").await.unwrap().status, 200);
    assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), 0);
}

#[tokio::test]
async fn answers_keep_the_model_in_memory_for_longer_than_it_may_idle() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, &format!("{MODEL}keep_alive_s = 1\n")).await;
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < Duration::from_millis(2_500) {
        let streaming = world.stream("hello", json!({"max_tokens": 300, "temperature": 0})).await.unwrap();
        let now = model(&world).await;
        assert!(now["state"] == "loaded", "in turn {turns}: {now}");
        assert_eq!(streaming.events().await.unwrap().last().unwrap(), "[DONE]");
        turns += 1;
    }
    assert!(turns > 1);
    until(&world, "unloading", |model| model["state"] == "unloaded").await;
}
