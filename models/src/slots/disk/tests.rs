use super::*;
use crate::slots::tests::{ENGINE, sequence};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const MODEL: [u8; 32] = [7; 32];

fn options(folder: &TempDir) -> DiskOptions {
    DiskOptions { folder: folder.path().join("cache"), max_bytes: 1 << 30, fingerprint: MODEL }
}

fn tokens(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 31 + seed) % 250).collect()
}

fn next_logits(sequence: &mut Sequence) -> Vec<f32> {
    let mut logits = Vec::new();
    sequence.extend_to_logits(&ENGINE, &[3, 4], &mut logits).unwrap();
    logits
}

fn only_file(folder: &TempDir) -> PathBuf {
    let mut files = fs::read_dir(folder.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none());
    file
}

#[test]
fn what_comes_back_goes_on_with_the_same_bits_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = sequence(&tokens(1, 150));
    let mut disk = Disk::open(options(&folder)).unwrap();
    disk.save("a", &kept, SystemTime::now());
    let mut disk = Disk::open(options(&folder)).unwrap();
    assert_eq!(disk.stats().count, 1);
    assert!(disk.load("b", &ENGINE).is_none());
    let mut back = disk.load("a", &ENGINE).unwrap();
    assert_eq!(back.tokens(), kept.tokens());
    assert_eq!(next_logits(&mut back), next_logits(&mut kept));
    assert_eq!(disk.stats().restored, 1);
}

#[test]
fn only_the_owner_can_read_and_names_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(options(&folder)).unwrap();
    disk.save("../../etc/passwd", &sequence(&tokens(1, 64)), SystemTime::now());
    let file = only_file(&folder);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(fs::metadata(&file).unwrap().len(), disk.stats().bytes);
    disk.forget("../../etc/passwd");
    assert!(!file.exists());
    assert_eq!((disk.stats().count, disk.stats().bytes), (0, 0));
}

#[test]
fn a_damaged_cut_or_foreign_file_is_refused_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    Disk::open(options(&folder)).unwrap().save("a", &sequence(&tokens(1, 70)), SystemTime::now());
    let file = only_file(&folder);
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8], options: DiskOptions, session: &str| {
        fs::write(&file, bytes).unwrap();
        let mut disk = Disk::open(options).unwrap();
        disk.load(session, &ENGINE).is_none() && !file.exists()
    };
    for len in [0, 5, 20, 70, whole.len() / 2, whole.len() - 1] {
        assert!(refused(&whole[..len], options(&folder), "a"), "cut at {len}");
    }
    assert!(refused(&[&whole[..], &[0]].concat(), options(&folder), "a"), "one byte more");
    for position in (0..80).chain((80..whole.len()).step_by(997)).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[position] ^= 0x10;
        assert!(refused(&changed, options(&folder), "a"), "changed at {position}");
    }
    assert!(refused(&whole, DiskOptions { fingerprint: [8; 32], ..options(&folder) }, "a"), "another model");
    fs::write(&file, &whole).unwrap();
    assert!(Disk::open(options(&folder)).unwrap().load("a", &ENGINE).is_some());
}

#[test]
fn another_sessions_file_under_this_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(options(&folder)).unwrap();
    disk.save("a", &sequence(&tokens(1, 70)), SystemTime::now());
    fs::rename(disk.path("a"), disk.path("b")).unwrap();
    assert!(Disk::open(options(&folder)).unwrap().load("b", &ENGINE).is_none());
}

#[test]
fn the_bytes_hold_and_the_longest_unwritten_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let one = file::bytes("a", &sequence(&tokens(1, 64)));
    let limited = DiskOptions { max_bytes: 2 * one, ..options(&folder) };
    let mut disk = Disk::open(limited.clone()).unwrap();
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    disk.save("a", &sequence(&tokens(1, 64)), at(1));
    disk.save("b", &sequence(&tokens(2, 64)), at(2));
    assert_eq!((disk.stats().count, disk.stats().bytes), (2, 2 * one));
    disk.save("a", &sequence(&tokens(3, 64)), at(3));
    disk.save("c", &sequence(&tokens(4, 64)), at(4));
    let held = ["a", "b", "c"].map(|session| disk.load(session, &ENGINE).is_some());
    assert_eq!(held, [true, false, true]);
    // What would not fit alone is not written, and pushes nobody out.
    disk.save("d", &sequence(&tokens(5, 200)), at(5));
    assert_eq!(disk.stats().count, 2);
    // A lower limit holds from the next start on.
    assert_eq!(Disk::open(DiskOptions { max_bytes: one, ..limited }).unwrap().stats().count, 1);
}

#[test]
fn the_same_tokens_are_not_written_twice_and_short_ones_never() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(options(&folder)).unwrap();
    disk.save("short", &sequence(&tokens(1, 63)), SystemTime::now());
    assert_eq!(disk.stats().count, 0);
    let kept = sequence(&tokens(1, 64));
    disk.save("a", &kept, SystemTime::now());
    let file = only_file(&folder);
    fs::remove_file(&file).unwrap();
    disk.save("a", &kept, SystemTime::now());
    assert!(!file.exists(), "it was written again");
    disk.save("a", &sequence(&tokens(1, 65)), SystemTime::now());
    assert!(file.exists());
}

#[test]
fn what_is_too_old_goes_and_half_written_files_do_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(options(&folder)).unwrap();
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    disk.save("a", &sequence(&tokens(1, 64)), at(10));
    disk.save("b", &sequence(&tokens(2, 64)), at(20));
    let age = Duration::from_secs(60);
    assert_eq!(disk.next_expiry(at(30), age), Some(Duration::from_secs(40)));
    disk.expire(at(69), age);
    assert_eq!(disk.stats().count, 2);
    disk.expire(at(70), age);
    assert_eq!(disk.stats().count, 1);
    let part = folder.path().join("cache/0123.part");
    let other = folder.path().join("cache/readme.txt");
    fs::write(&part, b"half").unwrap();
    fs::write(&other, b"not ours").unwrap();
    Disk::open(options(&folder)).unwrap();
    assert!(!part.exists() && other.exists());
}

#[test]
fn a_full_disk_costs_a_message_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(options(&folder)).unwrap();
    fs::remove_dir_all(folder.path().join("cache")).unwrap();
    disk.save("a", &sequence(&tokens(1, 64)), SystemTime::now());
    assert_eq!(disk.stats().count, 0);
}

#[test]
fn a_fingerprint_tells_models_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let large = vec![5; (FINGERPRINT_HEAD_BYTES + 3 * FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES) as usize];
    for bytes in [&b"tiny"[..], &large[..FINGERPRINT_HEAD_BYTES as usize], &large] {
        fs::write(&path, bytes).unwrap();
        let whole = fingerprint(&path).unwrap();
        assert_eq!(whole, fingerprint(&path).unwrap());
        for changed in [0, bytes.len() - 1] {
            let mut other = bytes.to_vec();
            other[changed] ^= 1;
            fs::write(&path, &other).unwrap();
            assert_ne!(whole, fingerprint(&path).unwrap(), "byte {changed} of {}", bytes.len());
        }
    }
    assert!(fingerprint(&folder.path().join("none")).is_err());
}
