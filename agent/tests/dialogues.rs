//! Sessions, cancellation, restarts: what is remembered, and that nobody holds the model for nothing.

use serde_json::{Value, json};
use tether::testing::{Streaming, World};
use tether_protocol::SessionId;

async fn world(extra: &str) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), extra).await.unwrap();
    (folder, world)
}

async fn remembered(world: &World, session: &str) -> Vec<String> {
    let limits = world.daemon.live().settings.sessions;
    let memory = world.daemon.store().memory(SessionId::new(session).unwrap(), limits, 0).await.unwrap();
    memory.messages.into_iter().map(|message| message.text).collect()
}

/// Waits until the ledger's newest turn has ended, and returns it.
async fn newest_ended(world: &World) -> Value {
    loop {
        let turns = world.get("/v1/turns?limit=1").await.unwrap().json();
        let turn = turns["turns"][0].clone();
        if turn["outcome"] != "unfinished" && world.daemon.local().unwrap().load_now().queue == 0 {
            return turn;
        }
        tokio::task::yield_now().await;
    }
}

/// Long enough that a test can stop it in the middle.
fn endless(session: &str) -> Value {
    json!({"max_tokens": 1_500, "temperature": 0, "tether": {"session": session}})
}

#[tokio::test]
async fn a_session_remembers_across_turns_and_restarts() {
    let (folder, world) = world("").await;
    let first = world.ask("one", json!({"max_tokens": 2, "tether": {"session": "s"}})).await.unwrap().json();
    let second = world.ask("two", json!({"max_tokens": 2, "tether": {"session": "s"}})).await.unwrap().json();
    let alone = world.ask("two", json!({"max_tokens": 2})).await.unwrap().json();
    assert!(second["usage"]["prompt_tokens"].as_u64() > alone["usage"]["prompt_tokens"].as_u64());
    let text = |reply: &Value| reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let expected = ["one".to_owned(), text(&first), "two".to_owned(), text(&second)];
    assert_eq!(remembered(&world, "s").await, expected);
    world.stop().await.unwrap();
    let world = World::start(folder.path(), "").await.unwrap();
    assert_eq!(remembered(&world, "s").await, expected);
    assert_eq!(world.send("DELETE", "/v1/sessions/s", "").await.unwrap().status, 200);
    assert!(remembered(&world, "s").await.is_empty());
    assert_eq!(world.get("/v1/status").await.unwrap().json()["turns"], 3, "the ledger holds no text and stays");
}

#[tokio::test]
async fn turns_of_one_session_are_served_one_after_the_other() {
    let (_folder, world) = world("").await;
    let extra = json!({"max_tokens": 60, "temperature": 0, "tether": {"session": "s"}});
    let mut first = world.stream("first", extra).await.unwrap();
    first.next().await.unwrap().unwrap();
    // The second comes while the first is answered, and its prompt holds the first's whole answer all the same.
    let second = world.ask("second", json!({"max_tokens": 2, "tether": {"session": "s"}}));
    let (first, second) = tokio::join!(first.events(), second);
    assert_eq!(first.unwrap().last().unwrap(), "[DONE]");
    assert!(second.unwrap().json()["usage"]["prompt_tokens"].as_u64().unwrap() > 60);
    let texts = remembered(&world, "s").await;
    assert_eq!((texts.len(), texts[0].as_str(), texts[2].as_str()), (4, "first", "second"));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_answer_frees_the_model() {
    let (_folder, world) = world("").await;
    let mut streaming: Streaming = world.stream("hello", endless("s")).await.unwrap();
    for _ in 0..4 {
        streaming.next().await.unwrap().unwrap();
    }
    drop(streaming);
    let turn = newest_ended(&world).await;
    assert_eq!(turn["outcome"], "cancelled");
    let texts = remembered(&world, "s").await;
    assert_eq!(texts.len(), 2, "what was read so far is remembered");
    assert!(texts[1].len() < 1_500, "{}", texts[1].len());
    assert_eq!(world.ask("again", json!({"max_tokens": 1})).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_frees_the_model() {
    let (_folder, world) = world("").await;
    // Both forms: the head of a response waits for the first token, streamed or not.
    for streamed in [true, false] {
        let mut extra = endless("s");
        extra["stream"] = streamed.into();
        let long = "word ".repeat(300);
        let mut asking = Box::pin(world.ask(&long, extra));
        let queued = async {
            while world.daemon.local().unwrap().load_now().queue == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = queued => {}
            _ = &mut asking => panic!("this answer takes longer than its beginning"),
        }
        drop(asking);
        let turn = newest_ended(&world).await;
        assert_eq!((&turn["outcome"], &turn["timings"]["first_token_ms"]), (&json!("cancelled"), &Value::Null));
        assert!(remembered(&world, "s").await.is_empty(), "nothing was answered, nothing is remembered");
    }
}

#[tokio::test]
async fn a_full_queue_is_told_with_retry_after() {
    let (_folder, world) = world("[model]\npath = \"tiny.gguf\"\nqueue = 1\n").await;
    let long = || json!({"max_tokens": 1_900, "temperature": 0});
    let _running = world.stream("hello", long()).await.unwrap();
    let mut waiting = Box::pin(world.ask("hello", long()));
    let both = async {
        while world.daemon.local().unwrap().load_now().queue < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = both => {}
        reply = &mut waiting => panic!("the second must wait for the first: {reply:?}"),
    }
    let refused = world.ask("hello", long()).await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"), "{}", refused.text());
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_stop_lets_the_running_answer_end() {
    let (folder, world) = world("").await;
    let mut streaming = world.stream("hello", json!({"max_tokens": 40, "temperature": 0})).await.unwrap();
    streaming.next().await.unwrap().unwrap();
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        while let Some(bytes) = streaming.next().await.unwrap() {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    });
    world.stop().await.unwrap();
    assert!(reading.await.unwrap().ends_with("data: [DONE]\n\n"));
    assert!(!folder.path().join("t.sock").exists());
}

#[tokio::test]
async fn a_reload_changes_the_policy_and_says_what_it_cannot() {
    let (folder, world) = world("").await;
    let changed = "[policy]\nname = \"always-local\"\n[sessions]\nmax_messages = 4\n
        [model]\npath = \"tiny.gguf\"\ncontext_tokens = 128\n";
    let settings = tether::testing::settings(folder.path(), changed).unwrap();
    let reloaded = world.daemon.reload(settings).unwrap();
    assert_eq!(reloaded.applied, ["policy", "sessions", "model.max_tokens", "model.system_prompt"]);
    assert_eq!(reloaded.needs_restart, ["model"]);
    let reply = world.ask("hello", json!({"max_tokens": 1})).await.unwrap().json();
    assert_eq!(reply["tether"]["policy"], "always-local");
}
