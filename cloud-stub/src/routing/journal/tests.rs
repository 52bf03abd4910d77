//! Files as they are, as a kill leaves them, and as a bad disk leaves them.

use super::*;
use tether_policies::mess::{Encoder, HashedEncoder, ModelSpec, Params, TenantConfig};

const ENCODER: &str = "hashed-1";

fn router() -> Router {
    let spec = |name: &str| ModelSpec { name: name.into(), price: None };
    let zoo = vec![spec("small"), spec("large")];
    Router::new(zoo, HashedEncoder.width(), TenantConfig::new(0.8).unwrap(), Params::default()).unwrap()
}

fn withdrawn(turn: &str) -> Event {
    Event::Withdrawn { turn: turn.into() }
}

fn open(folder: &Path) -> (Journal, Found) {
    Journal::open(folder, ENCODER).unwrap()
}

/// A snapshot and a log of two events.
fn written(folder: &Path) -> Router {
    let (mut journal, found) = open(folder);
    assert!(found.router.is_none() && found.events.is_empty());
    let router = router();
    journal.rotate(router.snapshot(ENCODER)).unwrap()().unwrap();
    journal.append(&withdrawn("a")).unwrap();
    journal.append(&withdrawn("b")).unwrap();
    router
}

fn only(folder: &Path, prefix: &str) -> PathBuf {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut ours = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    let first = ours.next().unwrap();
    assert!(ours.next().is_none(), "one {prefix} file only");
    first
}

#[test]
fn what_was_written_is_read_and_old_generations_go() {
    let folder = tempfile::tempdir().unwrap();
    let router = written(folder.path());
    let (mut journal, found) = open(folder.path());
    assert_eq!(found.router.as_ref(), Some(&router));
    assert_eq!(found.events, [withdrawn("a"), withdrawn("b")]);
    journal.rotate(router.snapshot(ENCODER)).unwrap()().unwrap();
    only(folder.path(), "log-");
    only(folder.path(), "snapshot-");
    drop(journal);
    assert!(open(folder.path()).1.events.is_empty());
}

#[test]
fn a_torn_last_record_is_left_out_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let log = only(folder.path(), "log-2");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.len() - 3]).unwrap();
    assert_eq!(open(folder.path()).1.events, [withdrawn("a")]);
    assert!(log.exists(), "a torn record is no damage");
}

#[test]
fn a_damaged_record_ends_its_log_and_the_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let log = only(folder.path(), "log-2");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace("\"b\"", "\"c\"")).unwrap();
    let found = open(folder.path()).1;
    assert!(found.router.is_some());
    assert_eq!(found.events, [withdrawn("a")]);
    assert!(!log.exists() && only(folder.path(), "log-2.jsonl.damaged").exists());
}

#[test]
fn a_snapshot_with_one_bit_changed_or_of_another_encoder_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let path = only(folder.path(), "snapshot-2");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(open(folder.path()).1.router.is_none());
    assert!(!path.exists());

    let other = tempfile::tempdir().unwrap();
    written(other.path());
    assert!(Journal::open(other.path(), "sentence-1").unwrap().1.router.is_none());
}

#[test]
fn a_second_gateway_on_one_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let refused = Journal::open(folder.path(), ENCODER).unwrap_err();
    assert!(refused.to_string().contains("another gateway uses this folder"), "{refused}");
}
