use super::*;
use crate::config::SessionSettings;
use tether_policies::budget::{Amounts, Charge, Spending};
use tether_protocol::record::{FinishReason, Outcome};
use tether_protocol::wire::Role;
use tether_protocol::{Cost, Route, SessionId, TurnId, TurnRecord};

const LIMITS: SessionSettings = SessionSettings { max_messages: 4, max_bytes: 100, max_sessions: 2, ttl_ms: 1_000 };

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("state/tether.db")).unwrap().store
}

fn session(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn record(id: &str, name: Option<&str>) -> TurnRecord {
    TurnRecord { session: name.map(session), ..crate::testing::turn_record(id) }
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
        store.begin(&record(id, Some("s")), &Amounts::ZERO).await.unwrap();
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
    first.begin(&record("a1", Some("s")), &Amounts::ZERO).await.unwrap();
    first.settle(&answered("a2", Some("s")), Some(exchange("s", "hello", 10))).await.unwrap();
    drop(first);
    let Opened { store, notices, .. } = Store::open(&folder.path().join("state/tether.db")).unwrap();
    assert!(notices[0].contains("1 turns were cut off"), "{notices:?}");
    let turn = store.turn(TurnId::new("a1").unwrap()).await.unwrap().unwrap();
    assert_eq!(turn.outcome, Outcome::Unfinished);
    assert_eq!(texts(&store, "s", 11).await, ["hello", "yes"]);
    let past = store.memory(session("s"), LIMITS, 11).await.unwrap().past;
    assert_eq!(past.len(), 2, "a cut off turn is part of the past, too");
}

#[tokio::test]
async fn a_refused_turn_is_no_past_and_its_rating_teaches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    // A name that looks like the mark of a refused turn hides none.
    let model = Some("\"outcome\":\"refused\"".to_owned());
    let told = TurnRecord { model, ..answered("a1", Some("s")) };
    store.settle(&told, Some(exchange("s", "hello", 1))).await.unwrap();
    for number in 10..50 {
        let outcome = Outcome::Refused { unaffordable: Vec::new(), possible_unix_ms: None };
        let id = format!("a{number}");
        store.settle(&TurnRecord { outcome, ..record(&id, Some("s")) }, None).await.unwrap();
        store.rate(TurnId::new(id).unwrap(), 0.0).await.unwrap();
    }
    let memory = store.memory(session("s"), LIMITS, 11).await.unwrap();
    assert_eq!(memory.past.iter().map(|turn| turn.turn_id.as_str()).collect::<Vec<_>>(), ["a1"]);
    assert_eq!(store.turns(99, None, Some(session("s"))).await.unwrap().len(), 41);
    assert_eq!(store.ratings().await.unwrap().count(), 0);
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
    let Opened { store, notices, .. } = Store::open(&path).unwrap();
    assert!(notices[0].contains("set aside as"), "{notices:?}");
    store.begin(&record("a1", None), &Amounts::ZERO).await.unwrap();
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
    let Opened { store, notices, .. } = Store::open(&path).unwrap();
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

fn charge(spent: u64, unknown: u64) -> Charge {
    Charge { name: "usd_per_day".parse().unwrap(), generation: 2, start_ms: 86_400_000, spent, unknown }
}

fn with_charge(spent: u64) -> Settling {
    Settling { charges: vec![charge(spent, 0)], ..Settling::default() }
}

fn spent(budgets: &SavedBudgets) -> Spending {
    budgets.spending[&"usd_per_day".parse().unwrap()]
}

#[tokio::test]
async fn a_turn_is_charged_once_and_a_cut_off_one_with_what_it_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/tether.db");
    let first = store(folder.path());
    let window = Spending { generation: 2, start_ms: 86_400_000, spent: 0, unknown: 0, turns: 0 };
    first.open_windows(vec![("usd_per_day".parse().unwrap(), window)]);
    let reserved = Amounts([500, 0, 0, 0]);
    for id in ["a1", "a2", "a3"] {
        first.begin(&record(id, None), &reserved).await.unwrap();
    }
    // Settled twice, counted once.
    first.settle(&answered("a1", None), with_charge(70)).await.unwrap();
    first.settle(&answered("a1", None), with_charge(70)).await.unwrap();
    // Never begun, as after a disk that was full: settled all the same.
    first.settle(&answered("a4", None), with_charge(30)).await.unwrap();
    first.reserve(TurnId::new("a2").unwrap(), &Amounts([800, 0, 0, 0])).await.unwrap();
    drop(first);
    let Opened { budgets, notices, .. } = Store::open(&path).unwrap();
    assert!(notices[0].contains("2 turns were cut off"), "{notices:?}");
    let expected = Spending { generation: 2, start_ms: 86_400_000, spent: 100 + 1_300, unknown: 1_300, turns: 4 };
    assert_eq!(spent(&budgets), expected);
    // Once more: they are not open any longer.
    assert_eq!(spent(&Store::open(&path).unwrap().budgets), expected);
}

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tether.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(schema::SCHEMA_1).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let mut json = serde_json::to_value(TurnRecord {
        route: Route::Cloud,
        measured: Cost { cost_usd: Some(0.000_123), uplink_bytes: Some(4_321), ..Cost::default() },
        ..answered("a1", Some("s"))
    })
    .unwrap();
    // The first version knew none of these.
    for new in ["predicted_costs", "probabilities", "budget_remaining", "reserved"] {
        json.as_object_mut().unwrap().remove(new).unwrap();
    }
    let insert = "INSERT INTO turns VALUES (?1, 's', ?2, ?3, ?4)";
    old.execute(insert, rusqlite::params!["a1", 0, 0.5, json.to_string()]).unwrap();
    old.execute(insert, rusqlite::params!["a2", 1, None::<f64>, serde_json::to_string(&record("a2", None)).unwrap()])
        .unwrap();
    old.execute("INSERT INTO sessions VALUES ('s', 1, 10)", []).unwrap();
    old.execute("INSERT INTO messages VALUES ('s', 1, 'user', 'hello', 0)", []).unwrap();
    drop(old);
    let Opened { store, budgets, notices } = Store::open(&path).unwrap();
    assert_eq!(notices.len(), 1, "one turn was cut off: {notices:?}");
    assert!(budgets.spending.is_empty());
    let turn = store.turn(TurnId::new("a1").unwrap()).await.unwrap().unwrap();
    assert_eq!((turn.rating, turn.route, turn.predicted_costs.len()), (Some(0.5), Route::Cloud, 0));
    assert_eq!(store.turn_count().await.unwrap(), 2);
    assert_eq!(texts(&store, "s", 11).await, ["hello"]);
    let totals = store.totals(0).await.unwrap();
    assert_eq!((totals[1].cloud, totals[1].usd, totals[1].uplink_bytes), (true, 0.000_123, 4_321));
    assert_eq!(totals[1].unknown, 1, "its energy is not known");
    drop(store);
    assert!(Store::open(&path).unwrap().notices.is_empty());
}

#[tokio::test]
async fn what_a_full_disk_keeps_out_is_written_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let pages = |pages: i64| {
        store.call(move |db| {
            let pages = if pages == 0 { db.query_row("PRAGMA page_count", [], |row| row.get(0))? } else { pages };
            Ok(db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
        })
    };
    pages(0).await.unwrap();
    let mut refused = 0;
    for turn in 0..200 {
        let id = format!("b{turn:03}");
        let begun = store.begin(&record(&id, None), &Amounts([10, 0, 0, 0])).await;
        let update = exchange("s", &format!("{turn}"), 10);
        let settling = Settling { update: Some(update), ..with_charge(7) };
        refused += u32::from(store.settle(&answered(&id, Some("s")), settling).await.is_err() || begun.is_err());
    }
    assert!(refused > 50, "the disk was never full: {refused}");
    assert!(store.retry().await.is_err());
    assert_eq!(texts(&store, "s", 11).await, ["198", "yes", "199", "yes"], "a dialogue goes on meanwhile");
    pages(1 << 30).await.unwrap();
    store.retry().await.unwrap();
    assert_eq!(store.turn_count().await.unwrap(), 200);
    assert_eq!(texts(&store, "s", 11).await, ["198", "yes", "199", "yes"], "in their order");
    drop(store);
    let budgets = Store::open(&folder.path().join("state/tether.db")).unwrap().budgets;
    assert_eq!((spent(&budgets).spent, spent(&budgets).turns), (1_400, 200));
}

#[test]
fn a_lock_file_that_cannot_be_written_is_not_another_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    std::fs::create_dir(folder.path().join("t.db.lock")).unwrap();
    let error = Store::open(&path).err().unwrap().to_string();
    assert!(error.contains("t.db") && !error.contains("another tether daemon"), "{error}");
    let full = OpenError::Io { path, problem: std::io::ErrorKind::StorageFull.into() }.to_string();
    assert!(full.contains("free some space"), "{full}");
}

#[tokio::test]
async fn a_locked_database_delays_once_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let other = Connection::open(folder.path().join("state/tether.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    for id in ["a1", "a2", "a3", "a4"] {
        assert!(store.begin(&record(id, None), &Amounts::ZERO).await.is_err());
        assert!(store.settle(&answered(id, None), with_charge(1)).await.is_err());
    }
    assert!(begun.elapsed() < std::time::Duration::from_millis(2_500), "{:?}", begun.elapsed());
    other.execute_batch("COMMIT").unwrap();
    store.settle(&answered("a5", None), with_charge(1)).await.unwrap();
    assert_eq!(store.turns(9, None, None).await.unwrap().len(), 5);
}

#[tokio::test]
async fn the_oldest_turns_go_first_at_each_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tether.db");
    let now = crate::daemon::unix_ms();
    let at = |id: &str, age_ms: i64| TurnRecord { started_unix_ms: now - age_ms, ..answered(id, None) };
    let limits = Limits { max_turns: 5, max_age_ms: 1_000_000, max_bytes: u64::MAX };
    let store = Store::open_with(&path, limits).unwrap().store;
    store.begin(&TurnRecord { started_unix_ms: now, ..record("a0", None) }, &Amounts::ZERO).await.unwrap();
    for turn in 1..=600 {
        let content = Content { question: "q".into(), ..Content::default() };
        let settling = Settling { content: Some(content), ..Settling::default() };
        store.settle(&at(&format!("b{turn:03}"), 1_000), settling).await.unwrap();
    }
    let kept = store.turn_count().await.unwrap();
    assert!((5..5 + 256).contains(&kept), "{kept}");
    assert!(store.turn(TurnId::new("a0").unwrap()).await.unwrap().is_some(), "a turn under way stays");
    assert!(store.turn(TurnId::new("b001").unwrap()).await.unwrap().is_none());
    assert!(store.content(TurnId::new("b001").unwrap()).await.unwrap().is_none());
    assert!(store.content(TurnId::new("b600").unwrap()).await.unwrap().is_some());
    drop(store);

    // By size.
    let path = folder.path().join("large.db");
    let limits = Limits { max_turns: u64::MAX, max_age_ms: i64::MAX, max_bytes: 1 << 20 };
    let store = Store::open_with(&path, limits).unwrap().store;
    for turn in 0..3_000 {
        store.settle(&at(&format!("d{turn:04}"), 0), None).await.unwrap();
    }
    let used = store
        .call(|db| {
            Ok(db.query_row(
                "SELECT (SELECT * FROM pragma_page_count) - (SELECT * FROM pragma_freelist_count)",
                [],
                |row| row.get::<_, i64>(0),
            )?)
        })
        .await
        .unwrap()
        * 4_096;
    assert!(used < 2 << 20, "{used}");
    assert!(store.turn(TurnId::new("d2999").unwrap()).await.unwrap().is_some());
}

/// Turns that began at these moments; the last one, as the first of a start, looks at the limits. Returns how many are left.
async fn left_by_age(path: &std::path::Path, started_ms: impl IntoIterator<Item = i64>, name: &str) -> usize {
    let turn =
        |(number, started_unix_ms)| TurnRecord { started_unix_ms, ..answered(&format!("{name}{number:03}"), None) };
    let mut turns: Vec<TurnRecord> = started_ms.into_iter().enumerate().map(turn).collect();
    let last = turns.pop().unwrap();
    let store = Store::open(path).unwrap().store;
    for turn in &turns {
        store.settle(turn, None).await.unwrap();
    }
    drop(store);
    let limits = Limits { max_turns: u64::MAX, max_age_ms: 1_000_000, max_bytes: u64::MAX };
    let store = Store::open_with(path, limits).unwrap().store;
    store.settle(&last, None).await.unwrap();
    store.turns(999, None, None).await.unwrap().len()
}

#[tokio::test]
async fn too_old_is_what_the_clock_and_the_ledger_agree_on() {
    const YEAR_MS: i64 = 365 * 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let now = crate::daemon::unix_ms();
    // A turn a minute for an hour, until now: those of the last 1,000 seconds stay.
    assert_eq!(left_by_age(&at("steady.db"), (0..60).map(|turn| now - (59 - turn) * 60_000), "a").await, 17);

    // The clock jumps a year ahead, and is believed once it has gone on for 100 seconds from there.
    let path = at("jump.db");
    let young = |until_ms: i64| (0..10).map(move |turn| until_ms - (9 - turn) * 50_000);
    assert_eq!(left_by_age(&path, young(now - YEAR_MS).chain([now - 150_000]), "a").await, 11);
    assert_eq!(left_by_age(&path, [now - 110_000, now - 55_000], "b").await, 13, "it may be set back yet");
    assert_eq!(left_by_age(&path, [now - 40_000], "c").await, 4);

    // It was set back: turns stay dated a year ahead, because ids never go back, and no turn is old.
    let ahead = [0, 80_000, 160_000].map(|later_ms| now + YEAR_MS + later_ms);
    assert_eq!(left_by_age(&at("back.db"), young(now).chain(ahead), "a").await, 13);

    // Unused for a year: what is from before goes once turns are asked again for a while.
    let path = at("unused.db");
    assert_eq!(left_by_age(&path, young(now - YEAR_MS).chain([now - 120_000]), "a").await, 11);
    assert_eq!(left_by_age(&path, [now], "b").await, 2);
}

#[tokio::test]
async fn content_is_kept_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let content = Content {
        question: "what?".into(),
        answer: "that".into(),
        images: vec![("front".into(), bytes::Bytes::from_static(b"jpeg"))],
    };
    let settling = Settling { content: Some(content.clone()), ..Settling::default() };
    store.settle(&answered("a1", None), settling).await.unwrap();
    store.settle(&answered("a2", None), None).await.unwrap();
    assert_eq!(store.content(TurnId::new("a1").unwrap()).await.unwrap(), Some(content));
    assert_eq!(store.content(TurnId::new("a2").unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn ratings_are_read_again_at_a_start_each_once_and_only_of_settled_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store_of = |folder: &tempfile::TempDir| store(folder.path());
    let ledger = store_of(&folder);
    for id in ["a", "b", "c"] {
        ledger.settle(&answered(id, None), Settling::default()).await.unwrap();
    }
    for (id, rating) in [("a", 0.25), ("b", 0.5), ("a", 1.0)] {
        ledger.rate(TurnId::new(id).unwrap(), rating).await.unwrap();
    }
    drop(ledger);
    let ratings = store_of(&folder).ratings().await.unwrap();
    assert_eq!(ratings.count(), 2, "c was not rated, and of a only the last word counts");
    let (name, levels) = ratings.tasks().next().unwrap();
    assert_eq!(name, None);
    // 2.0 fades a little before 1.0 is added.
    assert!((levels[0].mean() - 1.5).abs() < 0.01, "{levels:?}");
}
