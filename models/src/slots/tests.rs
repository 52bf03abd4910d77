use super::*;
use crate::engine::{Engine, LoadOptions};
use crate::testing::{TinyArchitecture, TinyModel};
use std::sync::LazyLock;

pub(super) static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::new(TinyArchitecture::Llama).write(&path).unwrap();
    Engine::load(&path, &LoadOptions::default()).unwrap()
});

pub(super) fn sequence(tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::new(&ENGINE).unwrap();
    sequence.extend(&ENGINE, tokens).unwrap();
    sequence
}

fn named(session: &str) -> Owner {
    Owner { client: 1, session: Some(session.to_owned()) }
}

fn unnamed(client: u64) -> Owner {
    Owner { client, session: None }
}

fn slots(max_bytes: usize) -> Slots {
    Slots::new(SlotOptions { max_bytes, ..SlotOptions::default() })
}

/// As an answer would: takes, computes what is missing, gives back. Returns what was found and who had to leave.
fn answer(slots: &mut Slots, owner: Owner, prompt: &[u32], now: Instant) -> (usize, Vec<Owner>) {
    let mut sequence = slots.take(&owner, prompt).unwrap_or_else(|| Sequence::new(&ENGINE).unwrap());
    let found = sequence.common(prompt);
    sequence.truncate(found);
    if found < prompt.len() {
        sequence.extend(&ENGINE, &prompt[found..]).unwrap();
    }
    let left = slots.give_back(owner, sequence, now);
    (found, left.into_iter().map(|slot| slot.owner).collect())
}

fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7 + seed * 13 + i * i * seed) % 200).collect()
}

/// Of the tiny model: one page in each of its layers.
static PAGE_BYTES: LazyLock<usize> = LazyLock::new(|| sequence(&[1]).cache().bytes());

#[test]
fn a_session_finds_its_own_and_shares_a_beginning() {
    let (mut slots, now) = (slots(1 << 30), Instant::now());
    let system = prompt(1, 100);
    let a = [&system[..], &prompt(2, 50)].concat();
    let b = [&system[..], &prompt(3, 60)].concat();
    assert_eq!(answer(&mut slots, named("a"), &a, now).0, 0);
    assert_eq!(answer(&mut slots, named("b"), &b, now).0, 100);
    // Neither took anything from the other.
    assert_eq!(answer(&mut slots, named("a"), &[&a[..], &[1, 2]].concat(), now).0, 150);
    assert_eq!(answer(&mut slots, named("b"), &[&b[..], &[1, 2]].concat(), now).0, 160);
    assert_eq!(slots.stats().count, 2);
    // Three pages a layer each would be six; the first one is shared.
    let whole: usize = slots.kept.iter().map(|slot| slot.sequence.cache().bytes()).sum();
    assert!(slots.stats().bytes < whole, "{} of {whole}", slots.stats().bytes);
}

#[test]
fn an_unnamed_dialogue_is_taken_over_only_by_what_goes_on_with_it() {
    let (mut slots, now) = (slots(1 << 30), Instant::now());
    let first = prompt(1, 90);
    answer(&mut slots, unnamed(1), &first, now);
    let longer = [&first[..], &[1, 2, 3]].concat();
    assert_eq!(answer(&mut slots, unnamed(1), &longer, now).0, 90);
    assert_eq!(slots.stats().count, 1);
    // A few tokens of an answer that was cut off are given up for it.
    assert_eq!(answer(&mut slots, unnamed(1), &[&first[..], &[9, 9, 9]].concat(), now).0, 90);
    assert_eq!(slots.stats().count, 1);
    // Another dialogue with the same beginning leaves the first one whole.
    let other = [&first[..50], &[7; 30]].concat();
    assert_eq!(answer(&mut slots, unnamed(2), &other, now).0, 50);
    assert_eq!(slots.stats().count, 2);
    assert_eq!(answer(&mut slots, unnamed(1), &[&first[..], &[9, 9, 9, 4]].concat(), now).0, 93);
}

#[test]
fn clients_that_do_not_share_learn_nothing_of_each_other() {
    let options = SlotOptions { share_between_clients: false, ..SlotOptions::default() };
    let (mut slots, now) = (Slots::new(options), Instant::now());
    let first = prompt(1, 90);
    answer(&mut slots, unnamed(1), &first, now);
    assert_eq!(answer(&mut slots, unnamed(2), &first, now).0, 0);
    assert_eq!(answer(&mut slots, unnamed(1), &first, now).0, 90);
}

#[test]
fn the_bytes_hold_exactly_and_the_longest_unused_goes_first() {
    // One page of two layers each.
    let (mut slots, start) = (slots(3 * *PAGE_BYTES), Instant::now());
    let at = |second| start + Duration::from_secs(second);
    for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (_, left) = answer(&mut slots, named(name), &prompt(second as u32 + 1, 10)[..], at(second as u64));
        assert!(left.is_empty());
    }
    assert_eq!(slots.stats().bytes, 3 * *PAGE_BYTES);
    answer(&mut slots, named("a"), &prompt(1, 11), at(3));
    let (_, left) = answer(&mut slots, named("d"), &prompt(9, 10), at(4));
    assert_eq!(left, [named("b")]);
    assert_eq!((slots.stats().count, slots.stats().evicted), (3, 1));
    // Nothing at all may be kept: then nothing is.
    let mut none = Slots::new(SlotOptions { max_bytes: 0, ..SlotOptions::default() });
    assert_eq!(answer(&mut none, named("a"), &prompt(1, 10), start).1, [named("a")]);
    assert_eq!((none.stats().count, none.stats().bytes), (0, 0));
}

#[test]
fn a_number_of_small_ones_is_bounded_too() {
    let (mut slots, now) = (slots(usize::MAX), Instant::now());
    let small = sequence(&[1]);
    for index in 0..MAX_SLOTS {
        assert!(slots.put(named(&index.to_string()), small.fork(1), now).is_empty());
    }
    assert_eq!(slots.put(named("more"), small.fork(1), now).len(), 1);
    assert_eq!(slots.stats().count, MAX_SLOTS);
    // All of them share one page.
    assert_eq!(slots.stats().bytes, *PAGE_BYTES);
}

#[test]
fn a_forgotten_session_is_gone_also_while_its_answer_runs() {
    let (mut slots, now) = (slots(1 << 30), Instant::now());
    answer(&mut slots, named("a"), &prompt(1, 20), now);
    slots.forget("a");
    assert_eq!((slots.stats().count, slots.stats().bytes), (0, 0));
    let running = slots.take(&named("a"), &prompt(1, 20));
    assert!(running.is_none());
    slots.forget("a");
    assert!(slots.give_back(named("a"), sequence(&prompt(1, 20)), now).is_empty());
    assert_eq!(slots.stats().count, 0);
    // Another session's answer is not touched by that.
    slots.take(&named("b"), &[1]);
    slots.forget("a");
    assert!(slots.give_back(named("b"), sequence(&[1]), now).is_empty());
    assert!(slots.holds("b"));
}

#[test]
fn what_is_unused_for_too_long_goes_at_its_time() {
    let max_age = Duration::from_secs(60);
    let mut slots = Slots::new(SlotOptions { max_age: Some(max_age), ..SlotOptions::default() });
    let start = Instant::now();
    assert_eq!(slots.next_expiry(), None);
    answer(&mut slots, named("a"), &prompt(1, 20), start);
    answer(&mut slots, named("b"), &prompt(2, 20), start + Duration::from_secs(10));
    assert_eq!(slots.next_expiry(), Some(start + max_age));
    slots.expire(start + max_age - Duration::from_nanos(1));
    assert_eq!(slots.stats().count, 2);
    slots.expire(start + max_age);
    assert!(!slots.holds("a") && slots.holds("b"));
    slots.set_max_age(None);
    assert_eq!(slots.next_expiry(), None);
}
