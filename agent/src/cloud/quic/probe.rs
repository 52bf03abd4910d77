//! When to measure a link that nobody uses. Pure: the time is an argument.

use std::time::{Duration, Instant};
use tether_protocol::context::LinkState;

/// A rate that is older than this is worth a probe.
const SILENCE: Duration = Duration::from_secs(20);
/// Each probe doubles the pause to the next one, up to this; a turn's own upload begins anew.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The pauses between probes. While the link is degraded they stay short: turns then stay on the device, and nothing
/// but a probe would notice that it is good again.
#[derive(Debug)]
pub(super) struct Pauses {
    last: Instant,
    pause: Duration,
}

impl Pauses {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, pause: SILENCE }
    }

    /// Whether to probe now; `age` is the age of the rate, `None`: there is none yet. If so, the pause begins.
    pub(super) fn is_due(&mut self, now: Instant, age: Option<Duration>, state: LinkState) -> bool {
        let since_probe = now.saturating_duration_since(self.last);
        // Something else taught the rate since the last probe.
        if age.is_some_and(|age| age + Duration::from_secs(1) < since_probe) {
            self.pause = SILENCE;
        }
        let silent = age.is_none_or(|age| age >= SILENCE);
        if !silent || since_probe < self.pause {
            return false;
        }
        self.last = now;
        self.pause = if state == LinkState::Up { (self.pause * 2).min(LONGEST_PAUSE) } else { SILENCE };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which probes happen in an hour without turns.
    fn hour(state: LinkState) -> Vec<u64> {
        let start = Instant::now();
        let mut pauses = Pauses::new(start);
        let mut taught = None;
        let mut due = Vec::new();
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            if pauses.is_due(now, taught.map(|at| now - at), state) {
                taught = Some(now);
                due.push(second);
            }
        }
        due
    }

    #[test]
    fn an_unused_link_is_probed_ever_more_seldom() {
        let due = hour(LinkState::Up);
        assert_eq!(due[..5], [20, 60, 140, 300, 620]);
        assert!(due.len() < 12, "{due:?}");
        assert!(hour(LinkState::Degraded).len() > 100, "a bad one is watched");
    }

    #[test]
    fn a_turn_that_sends_begins_the_pauses_anew() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut pauses = Pauses::new(start);
        let age = Duration::from_secs;
        assert!(!pauses.is_due(at(30), Some(age(5)), LinkState::Up), "the rate is fresh");
        assert!(pauses.is_due(at(60), Some(age(35)), LinkState::Up));
        assert!(!pauses.is_due(at(90), Some(age(30)), LinkState::Up), "the probe was the last to teach it");
        assert!(pauses.is_due(at(120), Some(age(30)), LinkState::Up), "at 90 a turn sent something");
    }
}
