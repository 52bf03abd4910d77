//! The folder as writers, kills and bad disks leave it.

use super::super::super::agreement::Agreement;
use super::super::super::tests::{level, two};
use super::super::Writers;
use super::*;
use crate::config::{EncoderSettings, RoutingSettings, StateSettings};
use crate::testing::settings;
use tether_policies::mess::{Call, Encoder, HashedEncoder, Router};

const NOW: Duration = Duration::ZERO;

/// The state of a zoo of two at this level, told apart by it, after a turn of each of these tenants.
fn saved(alpha: f64, tenants: &[&str]) -> Saved {
    let (encoder, state) = (EncoderSettings::Hashed, StateSettings::Memory);
    let routing = RoutingSettings { default: level(alpha), tenants: Vec::new(), encoder, state };
    let agreed = Agreement::of(&settings(two()), &routing);
    let mut router = agreed.fresh(HashedEncoder.width()).unwrap();
    tenants.iter().for_each(|tenant| turn(&mut router, tenant));
    Saved { writers: Writers::default(), agreed, router: router.snapshot(HashedEncoder.name()) }
}

fn turn(router: &mut Router, tenant: &str) {
    let features = HashedEncoder.features("is it red?", 9);
    let turn = format!("{tenant} {}", router.pending_count());
    let call = Call { tenant, turn: &turn, features: &features, permitted: &[true; 2], now_ms: 0, u: 0.5 };
    router.route(&call).unwrap();
}

fn restored(log: &mut FolderLog) -> Router {
    Router::restore(log.load().unwrap().unwrap().saved.router, HashedEncoder.name()).unwrap()
}

fn alpha(stored: &Stored) -> f64 {
    stored.saved.agreed.default.alpha
}

fn founded(folder: &Path) -> (FolderLog, Stored) {
    let mut log = FolderLog::new(folder);
    assert!(log.load().unwrap().is_none());
    log.found(None, saved(0.5, &[])).unwrap();
    let stored = log.load().unwrap().unwrap();
    (log, stored)
}

/// Records of one tenant.
fn append(log: &mut FolderLog, records: &[&str]) {
    let records: Vec<(&str, &str)> = records.iter().map(|record| ("t", *record)).collect();
    append_of(log, &records);
}

fn append_of(log: &mut FolderLog, records: &[(&str, &str)]) {
    let sent = |&(tenant, json): &(&str, &str)| Sent { tenant: tenant.to_owned(), json: json.to_owned() };
    log.append(&records.iter().map(sent).collect::<Vec<_>>()).unwrap();
}

/// What comes after a place, and the place behind it.
fn read(log: &mut FolderLog, after: Position) -> (Vec<String>, Position) {
    let batch = log.read(after, NOW).unwrap();
    let end = batch.records.last().map_or(after, |(position, _)| *position);
    (batch.records.into_iter().map(|(_, record)| record).collect(), end)
}

#[test]
fn what_one_appends_the_other_reads_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, stored) = founded(folder.path());
    let mut two = FolderLog::new(folder.path());
    append(&mut one, &["1", "2"]);
    append(&mut two, &["3"]);
    let (records, end) = read(&mut two, stored.position);
    assert_eq!(records, ["1", "2", "3"]);
    append(&mut one, &["4"]);
    assert_eq!(read(&mut two, end).0, ["4"]);
    assert_eq!(two.read(end, NOW).unwrap().last, read(&mut two, end).1);
}

#[test]
fn only_one_founds_it_and_only_one_replaces_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    log.found(None, saved(0.6, &[])).unwrap();
    assert_eq!(log.load().unwrap().unwrap(), stored, "it was founded already");
    append(&mut log, &["1"]);
    let (_, end) = read(&mut log, stored.position);
    log.replace(&stored.epoch, stored.number, end, saved(0.7, &[])).unwrap();
    log.replace(&stored.epoch, stored.number, end, saved(0.8, &[])).unwrap();
    let newer = log.load().unwrap().unwrap();
    assert_eq!((newer.number, alpha(&newer), newer.position), (1, 0.7, end));
    log.found(Some(&stored.epoch), saved(0.9, &[])).unwrap();
    let back = log.load().unwrap().unwrap();
    assert!(back.epoch != stored.epoch && back.number == 2 && alpha(&back) == 0.9);
}

#[test]
fn half_a_record_of_a_killed_writer_never_counts_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    append(&mut log, &["1"]);
    for file in ["order-1.log", "records-1/t.jsonl"] {
        let path = folder.path().join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
    }
    let (records, end) = read(&mut log, stored.position);
    assert_eq!(records, ["1"], "a reader waits for the record's end");
    append(&mut log, &["2"]);
    assert_eq!(read(&mut log, end).0, ["2"]);
}

#[test]
fn a_damaged_record_is_got_past_and_a_damaged_snapshot_set_aside_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    append(&mut log, &["111111", "222222"]);
    let path = folder.path().join("records-1/t.jsonl");
    let damaged = std::fs::read_to_string(&path).unwrap().replace("111111", "111911");
    std::fs::write(&path, damaged).unwrap();
    let (records, end) = read(&mut log, stored.position);
    assert_eq!(records, ["", "222222"]);
    log.replace(&stored.epoch, stored.number, end, saved(0.7, &[])).unwrap();
    let newest = folder.path().join(format!("snapshot-1-{}.json", stored.epoch));
    std::fs::write(&newest, "00000000 {}\n").unwrap();
    assert_eq!(log.load().unwrap().unwrap(), stored);
    assert!(newest.with_extension("json.damaged").exists());
    assert_eq!(read(&mut log, stored.position).0, ["", "222222"], "and its log is still there");
}

#[test]
fn old_files_go_and_who_still_stands_in_them_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    let mut end = stored.position;
    for number in 0..3 {
        append(&mut log, &["x"]);
        (_, end) = read(&mut log, end);
        log.replace(&stored.epoch, number, end, saved(0.7, &["t"])).unwrap();
    }
    let batch = log.read(stored.position, NOW).unwrap();
    assert!(batch.kept_from > stored.position && batch.kept_from <= end, "{batch:?}");
    assert_eq!(log.snapshots().unwrap().len(), 2);
    assert!(log.orders().unwrap().len() <= 3, "{:?}", log.orders());
    let records = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(records.filter(|name| name.to_str().unwrap().starts_with("records-")).count() <= 2);
    append(&mut log, &["y"]);
    assert_eq!(read(&mut log, end).0, ["y"], "the next file is found from the end of the last");
}

#[test]
fn each_tenant_has_files_of_its_own_and_the_order_of_all_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    append_of(&mut log, &[("a", "a1"), ("b/..", "b1"), ("", "all"), ("a", "a2")]);
    append_of(&mut log, &[("b/..", "b2"), ("a", "a3")]);
    assert_eq!(read(&mut log, stored.position).0, ["a1", "b1", "all", "a2", "b2", "a3"]);
    let of = |file: &str| std::fs::read_to_string(folder.path().join("records-1").join(file)).unwrap();
    let words = |text: String| text.lines().map(|line| line[9..].to_owned()).collect::<Vec<_>>();
    assert_eq!(words(of("a.jsonl")), ["a1", "a2", "a3"]);
    assert_eq!(words(of("b%2f%2e%2e.jsonl")), ["b1", "b2"]);
    assert_eq!(words(of("+.jsonl")), ["all"]);
}

#[test]
fn a_snapshot_gives_every_tenant_back_and_writes_only_who_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    let begun = saved(0.7, &["a", "b"]);
    log.replace(&stored.epoch, 0, stored.position, begun.clone()).unwrap();
    let parts = || {
        let names = std::fs::read_dir(folder.path().join("tenants")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut router = restored(&mut log);
    assert_eq!(router, Router::restore(begun.router.clone(), HashedEncoder.name()).unwrap());
    let before = parts();
    turn(&mut router, "a");
    let next = Saved { router: router.snapshot(HashedEncoder.name()), ..begun };
    log.replace(&stored.epoch, 1, stored.position, next).unwrap();
    assert_eq!(restored(&mut log), router);
    let after = parts();
    assert_eq!((before.len(), after.len()), (2, 3), "b's part is the same file: {after:?}");
    assert!(before.iter().all(|name| after.contains(name)), "the snapshot before can still be read");
}

#[test]
fn a_tenant_whose_file_is_damaged_or_gone_begins_anew_and_the_others_do_not_notice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    log.replace(&stored.epoch, 0, stored.position, saved(0.7, &["a", "b", "c"])).unwrap();
    for entry in std::fs::read_dir(folder.path().join("tenants")).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            name if name.starts_with("a-") => {
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, text.replacen("0.7", "0.1", 1)).unwrap();
            }
            name if name.starts_with("b-") => std::fs::remove_file(&path).unwrap(),
            _ => {}
        }
    }
    let router = restored(&mut log);
    assert_eq!(router.tenant_names().collect::<Vec<_>>(), ["c"]);
    assert_eq!(router.pending_count(), 1);
    let files = std::fs::read_dir(folder.path().join("tenants")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| path.extension().unwrap() == "damaged").count(), 1);
}

#[test]
fn a_folder_of_an_earlier_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("log-1.jsonl");
    std::fs::write(&old, "").unwrap();
    let refused = FolderLog::new(folder.path()).load().unwrap_err().to_string();
    assert!(refused.contains("one log for all tenants") && refused.contains("name a new folder"), "{refused}");
    assert!(old.exists());
}

/// Open files of this process in a folder.
fn open_files(folder: &Path) -> usize {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|path| path.starts_with(folder)).count()
}

#[test]
fn thousands_of_tenants_need_no_more_open_files_than_one_and_their_records_go_with_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    let names: Vec<String> = (0..3_000).map(|n| format!("tenant-{n}")).collect();
    for names in names.chunks(250) {
        append_of(&mut log, &names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
        // The flusher has at most one.
        assert!(open_files(folder.path()) <= 1, "{}", open_files(folder.path()));
    }
    let (mut count, mut end) = (0, stored.position);
    loop {
        let (records, next) = read(&mut log, end);
        if records.is_empty() {
            break;
        }
        (count, end) = (count + records.len(), next);
    }
    assert_eq!(count, names.len());
    for number in 0..2 {
        log.replace(&stored.epoch, number, end, saved(0.7, &["last"])).unwrap();
        append(&mut log, &["y"]);
        (_, end) = read(&mut log, end);
    }
    log.replace(&stored.epoch, 2, end, saved(0.7, &["last"])).unwrap();
    assert!(!folder.path().join("records-1").exists(), "3,000 files have gone");
    assert_eq!(std::fs::read_dir(folder.path().join("tenants")).unwrap().count(), 1);
}
