//! Windows of time, and a clock that never runs backwards.

use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How long a budget has to last. Hours and days begin at full hours and at midnight, UTC; a mission begins when
/// somebody says so (`tether budget reset`) and lasts until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    Hour,
    Day,
    Mission,
}

impl Window {
    pub const ALL: [Window; 3] = [Window::Hour, Window::Day, Window::Mission];

    pub fn name(self) -> &'static str {
        match self {
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Mission => "mission",
        }
    }

    /// `None`: it has no end of its own.
    pub fn length_ms(self) -> Option<i64> {
        match self {
            Window::Hour => Some(HOUR_MS),
            Window::Day => Some(DAY_MS),
            Window::Mission => None,
        }
    }

    /// When the window that holds this moment began; a mission begins at the moment itself.
    pub fn start_of(self, now_ms: i64) -> i64 {
        self.length_ms().map_or(now_ms, |length| now_ms - now_ms.rem_euclid(length))
    }
}

/// The wall clock, made monotonic: it never steps back, and it never stands still either, because the monotonic
/// clock carries it on while the wall clock is behind. So a step back gives no window a second time, and hours
/// go on being hours. A step forward may open the next window early, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    latest_ms: i64,
    monotonic_ms: u64,
}

impl Clock {
    /// `not_before_ms`: the latest moment that is known to have passed, such as the start of the newest window.
    pub fn new(wall_ms: i64, monotonic_ms: u64, not_before_ms: i64) -> Self {
        Self { latest_ms: wall_ms.max(not_before_ms), monotonic_ms }
    }

    /// The time now, ms since the Unix epoch.
    pub fn now(&mut self, wall_ms: i64, monotonic_ms: u64) -> i64 {
        let passed = monotonic_ms.saturating_sub(self.monotonic_ms);
        let carried = self.latest_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        self.latest_ms = wall_ms.max(carried);
        self.monotonic_ms = self.monotonic_ms.max(monotonic_ms);
        self.latest_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_begin_at_full_hours_and_days() {
        let start = |window: Window, now: i64| window.start_of(now);
        assert_eq!((start(Window::Hour, HOUR_MS), start(Window::Hour, HOUR_MS - 1)), (HOUR_MS, 0));
        assert_eq!((start(Window::Day, DAY_MS + 5), start(Window::Day, -1)), (DAY_MS, -DAY_MS));
        assert_eq!(start(Window::Mission, 77), 77);
    }

    #[test]
    fn a_wall_clock_that_steps_back_does_not_stop_the_hours() {
        let mut clock = Clock::new(10 * HOUR_MS, 0, 0);
        assert_eq!(clock.now(2 * HOUR_MS, 60_000), 10 * HOUR_MS + 60_000);
        assert_eq!(clock.now(2 * HOUR_MS, HOUR_MS as u64), 11 * HOUR_MS);
        assert_eq!(clock.now(20 * HOUR_MS, HOUR_MS as u64), 20 * HOUR_MS);
        // A boot without a clock of its own: the newest window is not left.
        assert_eq!(Clock::new(0, 0, 5 * DAY_MS).now(1_000, 1_000), 5 * DAY_MS + 1_000);
    }

    proptest! {
        #[test]
        fn time_never_runs_back_nor_slower_than_the_monotonic_clock(
            steps in prop::collection::vec((-10_000_000i64..10_000_000, 0u64..100_000), 1..100),
        ) {
            let (mut wall, mut monotonic) = (1_000_000_000i64, 0u64);
            let mut clock = Clock::new(wall, monotonic, 0);
            let mut last = clock.now(wall, monotonic);
            for (jump, passed) in steps {
                wall += jump;
                monotonic += passed;
                let now = clock.now(wall, monotonic);
                prop_assert!(now >= last + passed as i64 && now >= wall);
                last = now;
            }
        }
    }
}
