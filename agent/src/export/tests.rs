use super::*;
use crate::store::{Content, Settling, Store};
use crate::testing::turn_record;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;
use std::path::Path;
use tether_policies::tmo::data::Dataset;
use tether_protocol::context::ViewContext;
use tether_protocol::record::{FinishReason, Outcome};
use tether_protocol::{Cost, Reading, Route, SessionId, TurnId, TurnRecord, ViewName};

fn turn(id: &str, session: Option<&str>) -> TurnRecord {
    let views = ["front", "side"].map(|name| ViewContext {
        name: ViewName::new(name).unwrap(),
        encoded_bytes: Reading::unknown("none"),
        attached: false,
        is_text: false,
        local_only: false,
        association: Some(0.25),
    });
    let mut record = turn_record(id);
    record.context.views = views.to_vec();
    record.outcome = Outcome::Answered { finish_reason: FinishReason::Stop };
    record.session = session.map(|name| SessionId::new(name).unwrap());
    record.task = Some("Query".into());
    record.timings.total_ms = Some(1_500.0);
    record
}

async fn ledger(path: &Path) {
    let store = Store::open(path).unwrap().store;
    let cloud = TurnRecord {
        route: Route::Cloud,
        views: vec![ViewName::new("side").unwrap()],
        measured: Cost { cost_usd: Some(0.002), uplink_bytes: Some(5_000), ..Cost::default() },
        ..turn("a2", Some("s"))
    };
    let content = Content { question: "what, \"now\"?".into(), answer: "that\nthere".into(), images: Vec::new() };
    store.settle(&turn("a1", Some("s")), None).await.unwrap();
    store.settle(&cloud, Settling { content: Some(content), ..Settling::default() }).await.unwrap();
    store.settle(&turn("a3", None), None).await.unwrap();
    store.settle(&TurnRecord { outcome: Outcome::Cancelled, ..turn("a4", None) }, None).await.unwrap();
    let refused = Outcome::Refused { unaffordable: Vec::new(), possible_unix_ms: None };
    store.settle(&TurnRecord { outcome: refused, ..turn("a41", None) }, None).await.unwrap();
    let mut other = turn("a5", None);
    other.context.views.pop();
    store.settle(&other, None).await.unwrap();
    // The cloud failed after it got a picture, and the device answered.
    let fell_back = TurnRecord { views: cloud.views.clone(), ..turn("a6", None) };
    store.settle(&fell_back, None).await.unwrap();
    for (id, rating) in [("a1", 0.5), ("a2", 1.0), ("a4", 1.0), ("a41", 1.0), ("a5", 1.0), ("a6", 0.0)] {
        store.rate(TurnId::new(id).unwrap(), rating).await.unwrap();
    }
}

fn exported(path: &Path, format: Format) -> (Vec<u8>, Report) {
    let mut out = Vec::new();
    let report = export(&Source::open(path, 0).unwrap(), format, &mut out, |_| {}).unwrap();
    (out, report)
}

#[tokio::test]
async fn tmo_reads_what_is_exported_as_m4a1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    ledger(&path).await;
    let (out, report) = exported(&path, Format::M4a1);
    assert_eq!(report, Report { turns: 7, skipped: Skipped { unrated: 1, unanswered: 2, other_views: 1 } });
    let data = Dataset::parse(std::str::from_utf8(&out).unwrap()).unwrap();
    assert_eq!((data.view_count, data.dialogues.len()), (2, 2));
    let turns = &data.dialogues[0].turns;
    assert_eq!((turns[0].route, turns[0].score, turns[0].latency_s), (Route::Local, 1.0, Some(1.5)));
    assert_eq!((turns[1].route, turns[1].cost_usd, turns[1].views.len()), (Route::Cloud, Some(0.002), 1));
    assert_eq!(turns[1].score, 2.0, "the best rating is what M4A1's judges gave the best kinds of answers");
    assert_eq!(turns[1].question, "what, \"now\"?");
    assert_eq!(data.dialogues[1].turns[0].score, 0.0);
}

#[tokio::test]
async fn a_table_holds_every_turn_and_unknown_is_null() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    ledger(&path).await;

    let (out, report) = exported(&path, Format::Csv);
    assert_eq!(report.turns, 7);
    let text = String::from_utf8(out).unwrap();
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    assert!(header.contains(&"rating") && header.last() == Some(&"record"));
    assert!(text.contains("\"what, \"\"now\"\"?\",\"that\nthere\""), "{text}");

    let (out, _) = exported(&path, Format::Parquet);
    let reader = SerializedFileReader::new(bytes::Bytes::from(out)).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 7);
    let cell =
        |row: usize, name: &str| rows[row].get_column_iter().find(|(column, _)| *column == name).unwrap().1.clone();
    assert_eq!(cell(1, "turn_id"), Field::Str("a2".into()));
    assert_eq!((cell(1, "uplink_bytes"), cell(0, "uplink_bytes")), (Field::Long(5_000), Field::Null));
    assert_eq!((cell(1, "cost_usd"), cell(2, "rating")), (Field::Double(0.002), Field::Null));
    assert_eq!(cell(0, "local_only"), Field::Bool(false));
    assert_eq!(
        (cell(3, "outcome"), cell(4, "outcome")),
        (Field::Str("cancelled".into()), Field::Str("refused".into()))
    );
    let Field::Str(record) = cell(5, "record") else { panic!("no record") };
    assert_eq!(serde_json::from_str::<TurnRecord>(&record).unwrap().rating, Some(1.0));

    let (out, _) = exported(&path, Format::Jsonl);
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 7);
}

#[test]
fn a_ledger_that_cannot_be_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Source::open(&folder.path().join("none.db"), 0).err().unwrap().to_string();
    assert!(missing.contains("none.db") && missing.contains("--ledger"), "{missing}");
    let path = folder.path().join("old.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(Source::open(&path, 0), Err(SourceError::Version { found: 1, .. })));
    std::fs::write(&path, "garbage, and not a little of it: SQLite reads a header of a hundred bytes").unwrap();
    assert!(Source::open(&path, 0).is_err());
}
