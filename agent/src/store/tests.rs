use super::*;
use crate::config::SessionSettings;
use tether_protocol::record::{FinishReason, Outcome, Timings, Usage};
use tether_protocol::wire::Role;
use tether_protocol::{Action, Context, Cost, Reason, Route, SessionId, TurnId, TurnRecord};

const LIMITS: SessionSettings = SessionSettings { max_messages: 4, max_bytes: 100, max_sessions: 2, ttl_ms: 1_000 };

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("state/tether.db")).unwrap().store
}

fn session(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn record(id: &str, name: Option<&str>) -> TurnRecord {
    TurnRecord {
        turn_id: TurnId::new(id).unwrap(),
        session: name.map(session),
        client: "uid=1".into(),
        started_unix_ms: 10,
        task: None,
        local_only: false,
        context: Context::default(),
        permitted: vec![Action::LOCAL],
        action: Action::LOCAL,
        policy: "rule-1".into(),
        reason: Reason::new("test", "test"),
        propensity: 1.0,
        values: None,
        predicted: Cost::default(),
        route: Route::Local,
        views: Vec::new(),
        model: None,
        fallback: None,
        measured: Cost::default(),
        energy_source: "unknown".into(),
        usage: Usage::default(),
        usage_estimated: false,
        dropped_messages: 0,
        timings: Timings::default(),
        outcome: Outcome::Unfinished,
        rating: None,
    }
}

fn answered(id: &str, name: Option<&str>) -> TurnRecord {
    TurnRecord { outcome: Outcome::Answered { finish_reason: FinishReason::Stop }, ..record(id, name) }
}

fn says(role: Role, text: &str) -> NewMessage {
    NewMessage { role, text: text.into(), local_only: false }
}

fn exchange(name: &str, text: &str, at: i64) -> SessionUpdate {
    let messages = vec![says(Role::User, text), says(Role::Assistant, "yes")];
    SessionUpdate { session: session(name), messages, limits: LIMITS, now_unix_ms: at }
}

async fn texts(store: &Store, name: &str, now: i64) -> Vec<String> {
    let memory = store.memory(session(name), LIMITS, now).await.unwrap();
    memory.messages.into_iter().map(|message| message.text).collect()
}

#[tokio::test]
async fn turns_are_begun_settled_rated_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    for id in ["a1", "a2", "a3"] {
        store.begin(&record(id, Some("s"))).await.unwrap();
        store.settle(&answered(id, Some("s")), None).await.unwrap();
    }
    let a2 = TurnId::new("a2").unwrap();
    assert_eq!(store.rate(a2.clone(), 0.25).await.unwrap(), Some(None));
    assert_eq!(store.rate(a2.clone(), 1.0).await.unwrap(), Some(Some(0.25)));
    assert_eq!(store.rate(TurnId::new("zz").unwrap(), 1.0).await.unwrap(), None);
    let page = store.turns(2, None, None).await.unwrap();
    assert_eq!(page.iter().map(|turn| turn.turn_id.as_str()).collect::<Vec<_>>(), ["a3", "a2"]);
    assert_eq!(page[1].rating, Some(1.0));
    assert_eq!(store.turns(9, Some(a2), Some(session("s"))).await.unwrap().len(), 1);
    assert!(store.turns(9, None, Some(session("t"))).await.unwrap().is_empty());
    assert_eq!(store.turn_count().await.unwrap(), 3);
}

#[tokio::test]
async fn a_turn_cut_off_is_unfinished_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path());
    first.begin(&record("a1", Some("s"))).await.unwrap();
    first.settle(&answered("a2", Some("s")), Some(exchange("s", "hello", 10))).await.unwrap();
    drop(first);
    let Opened { store, notices } = Store::open(&folder.path().join("state/tether.db")).unwrap();
    assert!(notices[0].contains("1 turns were cut off"), "{notices:?}");
    let turn = store.turn(TurnId::new("a1").unwrap()).await.unwrap().unwrap();
    assert_eq!(turn.outcome, Outcome::Unfinished);
    assert_eq!(texts(&store, "s", 11).await, ["hello", "yes"]);
    let past = store.memory(session("s"), LIMITS, 11).await.unwrap().past;
    assert_eq!(past.len(), 2, "a cut off turn is part of the past, too");
}

#[tokio::test]
async fn dialogues_are_bounded_in_messages_bytes_number_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    for text in ["one", "two", "three"] {
        store.settle(&answered(text, Some("s")), Some(exchange("s", text, 100))).await.unwrap();
    }
    assert_eq!(texts(&store, "s", 100).await, ["two", "yes", "three", "yes"]);

    let long = "x".repeat(97);
    store.settle(&answered("b", Some("s")), Some(exchange("s", &long, 100))).await.unwrap();
    assert_eq!(texts(&store, "s", 100).await, [long.as_str(), "yes"], "100 bytes fit, the older ones do not");
    let longer = "x".repeat(98);
    store.settle(&answered("c", Some("s")), Some(exchange("s", &longer, 100))).await.unwrap();
    assert!(texts(&store, "s", 100).await.is_empty(), "no answer stands without its question");

    for (name, at) in [("t", 200), ("u", 300), ("v", 400)] {
        store.settle(&answered(name, Some(name)), Some(exchange(name, name, at))).await.unwrap();
    }
    assert_eq!(store.session_count(LIMITS, 400).await.unwrap(), 2);
    assert!(texts(&store, "t", 400).await.is_empty(), "the longest unused goes first");
    assert_eq!(texts(&store, "v", 1_400).await.len(), 2);
    assert!(texts(&store, "v", 1_401).await.is_empty(), "expired");
    assert!(store.forget(session("u")).await.unwrap());
    assert!(!store.forget(session("u")).await.unwrap());
}

#[tokio::test]
async fn a_damaged_database_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/tether.db");
    drop(store(folder.path()));
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[..64] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, &bytes).unwrap();
    let Opened { store, notices } = Store::open(&path).unwrap();
    assert!(notices[0].contains("set aside as"), "{notices:?}");
    store.begin(&record("a1", None)).await.unwrap();
    let aside = std::fs::read_dir(folder.path().join("state"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn a_truncated_database_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/tether.db");
    let first = store(folder.path());
    for i in 0..200 {
        first.settle(&answered(&format!("a{i}"), None), None).await.unwrap();
    }
    drop(first);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let Opened { store, notices } = Store::open(&path).unwrap();
    assert!(notices.iter().any(|notice| notice.contains("set aside")), "{notices:?}");
    assert_eq!(store.turn_count().await.unwrap(), 0);
}

#[test]
fn two_daemons_and_a_newer_schema_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/tether.db");
    let first = store(folder.path());
    let error = Store::open(&path).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::Newer { found: 99, .. })));
}

#[test]
fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let _store = store(folder.path());
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/tether.db")), (0o700, 0o600));
}
