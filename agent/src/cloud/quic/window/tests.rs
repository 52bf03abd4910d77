use super::*;
use proptest::prelude::*;

const MTU: u16 = 1_400;

/// A path that carries 250 bytes a millisecond and takes `empty_ms` there and back when nothing waits on it.
struct World {
    window: ShortQueue,
    start: Instant,
    ms: u64,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self { window: ShortQueue::new(start, MTU), start, ms: 1 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// One round trip: a window's worth leaves at once, and comes back after the queue that it made.
    fn round(&mut self, empty_ms: u64) {
        let window = self.window.window();
        let queue_ms = (window / 250).saturating_sub(empty_ms);
        let (sent, arrived) = (self.at(self.ms), self.at(self.ms + empty_ms + queue_ms));
        self.window.on_sent(sent, window, 0);
        self.window.acknowledged(arrived, sent, window, false);
        self.ms += empty_ms + queue_ms + 1;
    }

    /// A small packet on the empty path; then nothing is on its way.
    fn alone(&mut self, empty_ms: u64) {
        self.window.on_end_acks(self.at(self.ms), 0, true, None);
        let sent = self.at(self.ms);
        self.window.on_sent(sent, 100, 0);
        self.window.acknowledged(self.at(self.ms + empty_ms), sent, 100, true);
        self.ms += empty_ms + 1;
    }

    fn many(&mut self, rounds: usize, empty_ms: u64) -> u64 {
        (0..rounds).for_each(|_| self.round(empty_ms));
        self.window.window()
    }
}

/// What this path carries with the queue that is allowed.
fn carried(empty_ms: u64) -> u64 {
    250 * (empty_ms + QUEUE.as_millis() as u64)
}

#[test]
fn it_opens_quickly_and_then_keeps_the_queue_short() {
    let mut world = World::new();
    world.alone(100);
    assert_eq!(world.many(1, 100), 2 * FIRST_WINDOW);
    let settled = world.many(60, 100);
    assert!(settled <= carried(100) + u64::from(MTU) && settled >= carried(100) * 8 / 10, "{settled}");
}

#[test]
fn a_longer_path_is_not_taken_for_a_queue() {
    let mut world = World::new();
    world.alone(40);
    let before = world.many(40, 40);
    // The next upload begins on an empty path, and measures it.
    world.alone(200);
    let after = world.many(60, 200);
    assert!(after > before && after >= carried(200) * 8 / 10, "{before} {after}");
}

#[test]
fn a_queue_alone_leaves_what_a_connection_begins_with_and_a_loss_does_not() {
    let mut world = World::new();
    world.alone(2);
    // 250 bytes a millisecond: the first window alone waits longer than is allowed.
    assert!(carried(2) < FIRST_WINDOW);
    assert_eq!(world.many(10, 2), FIRST_WINDOW);
    let (sent, now) = (world.at(world.ms), world.at(world.ms + 60));
    world.window.lost(now, sent, false);
    let after = world.window.window();
    assert_eq!(after, (FIRST_WINDOW as f64 * LOSS_FACTOR) as u64);
    world.window.lost(now, sent, false);
    assert_eq!(world.window.window(), after, "one loss, told twice");
    world.window.lost(world.at(world.ms + 500), world.at(world.ms + 400), true);
    assert_eq!(world.window.window(), 2 * u64::from(MTU), "the path was away");
}

#[test]
fn who_sends_less_than_the_window_does_not_widen_it() {
    let mut world = World::new();
    (0..50).for_each(|_| world.alone(30));
    assert_eq!(world.window.window(), FIRST_WINDOW);
}

proptest! {
    #[test]
    fn it_never_closes_and_never_leaps(events in prop::collection::vec((0u64..3_000, 0u64..100_000, 0u8..5), 0..200)) {
        let mut world = World::new();
        for (ms, bytes, what) in events {
            let before = world.window.window();
            let (sent, now) = (world.at(world.ms), world.at(world.ms + ms));
            match what {
                0 => world.window.lost(now, sent, false),
                1 => world.window.lost(now, sent, true),
                2 => world.window.on_end_acks(now, 0, false, None),
                _ => {
                    world.window.on_sent(sent, bytes, 0);
                    world.window.acknowledged(now, sent, bytes, what == 3);
                }
            }
            world.ms += ms;
            let after = world.window.window();
            prop_assert!(after >= 2 * u64::from(MTU) && after <= before + bytes.max(1), "{before} {after}");
        }
    }
}
