//! Whether a backend may be asked: out after a failure, back after a successful probe. Pure; the time is an argument.

use std::time::{Duration, Instant};

/// The first probe comes soon, because most failures are short; then the waits double.
const FIRST_PROBE_WAIT: Duration = Duration::from_millis(500);
const LONGEST_PROBE_WAIT: Duration = Duration::from_secs(30);

/// One backend's health.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    out: Option<Out>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Out {
    problem: String,
    failed_probes: u32,
    next_probe: Instant,
}

impl Health {
    pub fn is_healthy(&self) -> bool {
        self.out.is_none()
    }

    /// What took it out.
    pub fn problem(&self) -> Option<&str> {
        self.out.as_ref().map(|out| out.problem.as_str())
    }

    /// A turn failed. Turns that were under way when the first one failed do not postpone the probe.
    pub fn turn_failed(&mut self, problem: &str, now: Instant) {
        if self.out.is_none() {
            self.out = Some(Out { problem: problem.to_owned(), failed_probes: 0, next_probe: now + FIRST_PROBE_WAIT });
        }
    }

    /// When to probe; `None` while healthy.
    pub fn next_probe(&self) -> Option<Instant> {
        self.out.as_ref().map(|out| out.next_probe)
    }

    pub fn probe_succeeded(&mut self) {
        self.out = None;
    }

    pub fn probe_failed(&mut self, problem: &str, now: Instant) {
        let failed_probes = self.out.as_ref().map_or(0, |out| out.failed_probes) + 1;
        let wait = FIRST_PROBE_WAIT.saturating_mul(1 << failed_probes.min(16)).min(LONGEST_PROBE_WAIT);
        self.out = Some(Out { problem: problem.to_owned(), failed_probes, next_probe: now + wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_until_a_probe_succeeds() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(health.is_healthy());
        health.turn_failed("connection refused", now);
        assert_eq!(health.problem(), Some("connection refused"));
        assert_eq!(health.next_probe(), Some(now + FIRST_PROBE_WAIT));
        health.turn_failed("later", now + Duration::from_secs(9));
        assert_eq!(health.next_probe(), Some(now + FIRST_PROBE_WAIT), "a late failure postpones nothing");
        health.probe_succeeded();
        assert!(health.is_healthy());
        assert_eq!(health.next_probe(), None);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let now = Instant::now();
        let mut health = Health::default();
        health.turn_failed("down", now);
        let waits: Vec<Duration> = (0..40)
            .map(|_| {
                health.probe_failed("still down", now);
                health.next_probe().unwrap() - now
            })
            .collect();
        assert_eq!(waits[..3], [1_000, 2_000, 4_000].map(Duration::from_millis));
        assert_eq!(waits[39], LONGEST_PROBE_WAIT);
    }
}
