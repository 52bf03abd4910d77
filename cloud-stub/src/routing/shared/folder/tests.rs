//! The folder as writers, kills and bad disks leave it.

use super::*;

const NOW: Duration = Duration::ZERO;

fn founded(folder: &Path) -> (FolderLog, Stored) {
    let mut log = FolderLog::new(folder);
    assert_eq!(log.load().unwrap(), None);
    log.found(None, "first").unwrap();
    let stored = log.load().unwrap().unwrap();
    (log, stored)
}

fn append(log: &mut FolderLog, records: &[&str]) {
    let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
    log.append(&records).unwrap();
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
    log.found(None, "second").unwrap();
    assert_eq!(log.load().unwrap().unwrap(), stored, "it was founded already");
    append(&mut log, &["1"]);
    let (_, end) = read(&mut log, stored.position);
    log.replace(&stored.epoch, stored.number, end, "at 1").unwrap();
    log.replace(&stored.epoch, stored.number, end, "too late").unwrap();
    let newer = log.load().unwrap().unwrap();
    assert_eq!((newer.number, newer.snapshot.as_str(), newer.position), (1, "at 1", end));
    log.found(Some(&stored.epoch), "put back").unwrap();
    let back = log.load().unwrap().unwrap();
    assert!(back.epoch != stored.epoch && back.number == 2 && back.snapshot == "put back");
}

#[test]
fn half_a_record_of_a_killed_writer_never_counts_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, stored) = founded(folder.path());
    append(&mut log, &["1"]);
    let path = folder.path().join("log-1.jsonl");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
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
    let path = folder.path().join("log-1.jsonl");
    let damaged = std::fs::read_to_string(&path).unwrap().replace("111111", "111911");
    std::fs::write(&path, damaged).unwrap();
    let (records, end) = read(&mut log, stored.position);
    assert_eq!(records, ["", "222222"]);
    log.replace(&stored.epoch, stored.number, end, "newer").unwrap();
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
        log.replace(&stored.epoch, number, end, "s").unwrap();
    }
    let batch = log.read(stored.position, NOW).unwrap();
    assert!(batch.kept_from > stored.position && batch.kept_from <= end, "{batch:?}");
    assert_eq!(log.snapshots().unwrap().len(), 2);
    assert!(log.logs().unwrap().len() <= 3, "{:?}", log.logs());
    append(&mut log, &["y"]);
    assert_eq!(read(&mut log, end).0, ["y"], "the next file is found from the end of the last");
}
