//! From QUIC's path statistics to the link's reading. Pure: the time and the statistics are arguments.

use quinn::ConnectionStats;
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tether_protocol::context::{Link, LinkState};

/// A link is degraded above the first and good again below the second, so that it does not flap between.
const DEGRADED_RTT_MS: f64 = 300.0;
const GOOD_RTT_MS: f64 = 200.0;
const DEGRADED_LOSS: f64 = 0.05;
const GOOD_LOSS: f64 = 0.02;
/// Packets between two looks at the loss: at fewer, one lost packet would look like a catastrophe.
const LOSS_WINDOW_PACKETS: u64 = 20;
/// Weight of a new measurement against the old ones.
const SMOOTHING: f64 = 0.3;
/// A sample with less than this is a trickle that says nothing about the downlink's rate.
const BUSY_BYTES: u64 = 32 * 1024;
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// The counters at an earlier moment.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    sent: u64,
    lost: u64,
    received_datagrams: u64,
    received_bytes: u64,
}

/// What has been learned of one connection's path.
#[derive(Debug, Default)]
pub(super) struct Meter {
    mark: Mark,
    /// When something last came from the gateway, as far as the samples tell.
    heard: Option<Instant>,
    sampled: Option<Instant>,
    rtt_ms: Option<f64>,
    uplink_bits_per_s: Option<f64>,
    downlink_bits_per_s: Option<f64>,
    loss_ratio: Option<f64>,
    degraded: bool,
}

impl Meter {
    /// A new connection: its counters start at zero; what was learned of the network may still hold, but is not known to.
    pub(super) fn connected(&mut self, now: Instant) {
        *self = Self { heard: Some(now), sampled: Some(now), ..Self::default() };
    }

    pub(super) fn sample(&mut self, now: Instant, stats: &ConnectionStats) {
        if stats.udp_rx.datagrams != self.mark.received_datagrams {
            self.heard = Some(now);
            self.mark.received_datagrams = stats.udp_rx.datagrams;
        }
        let rtt = stats.path.rtt.as_secs_f64();
        self.rtt_ms = Some(rtt * 1_000.0);
        // What congestion control lets out in a round trip: it errs on the low side while nothing large is sent.
        self.uplink_bits_per_s = (rtt > 0.0).then(|| stats.path.cwnd as f64 * 8.0 / rtt);
        self.sample_loss(stats.path.sent_packets, stats.path.lost_packets);
        self.sample_downlink(now, stats.udp_rx.bytes);
        self.judge();
    }

    fn sample_loss(&mut self, sent: u64, lost: u64) {
        let packets = sent.saturating_sub(self.mark.sent);
        if packets >= LOSS_WINDOW_PACKETS {
            let ratio = lost.saturating_sub(self.mark.lost) as f64 / packets as f64;
            self.loss_ratio = Some(smoothed(self.loss_ratio, ratio.min(1.0)));
            self.mark.sent = sent;
            self.mark.lost = lost;
        }
    }

    fn sample_downlink(&mut self, now: Instant, bytes: u64) {
        let elapsed = now.duration_since(self.sampled.unwrap_or(now));
        if elapsed < BUSY_INTERVAL {
            return;
        }
        let received = bytes.saturating_sub(self.mark.received_bytes);
        if received >= BUSY_BYTES {
            let rate = received as f64 * 8.0 / elapsed.as_secs_f64();
            self.downlink_bits_per_s = Some(smoothed(self.downlink_bits_per_s, rate));
        }
        self.mark.received_bytes = bytes;
        self.sampled = Some(now);
    }

    fn judge(&mut self) {
        let above = |rtt_ms: f64, loss: f64| {
            self.rtt_ms.is_some_and(|rtt| rtt > rtt_ms) || self.loss_ratio.is_some_and(|ratio| ratio > loss)
        };
        self.degraded =
            if self.degraded { above(GOOD_RTT_MS, GOOD_LOSS) } else { above(DEGRADED_RTT_MS, DEGRADED_LOSS) };
    }

    /// The link of a connection that is up; its age is the time since the gateway was last heard.
    pub(super) fn reading(&self, now: Instant) -> Reading<Link> {
        let Some(heard) = self.heard else { return Reading::unknown("no connection to the cloud yet") };
        let link = Link {
            state: if self.degraded { LinkState::Degraded } else { LinkState::Up },
            rtt_ms: self.rtt_ms,
            uplink_bits_per_s: self.uplink_bits_per_s,
            downlink_bits_per_s: self.downlink_bits_per_s,
            loss_ratio: self.loss_ratio,
            metered: None,
        };
        Reading::known(link, now.duration_since(heard).as_millis() as u64, "quic")
    }
}

fn smoothed(old: Option<f64>, new: f64) -> f64 {
    old.map_or(new, |old| old + SMOOTHING * (new - old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rtt_ms: u64, sent: u64, lost: u64, received: u64) -> ConnectionStats {
        let mut stats = ConnectionStats::default();
        stats.path.rtt = Duration::from_millis(rtt_ms);
        stats.path.cwnd = 12_500;
        stats.path.sent_packets = sent;
        stats.path.lost_packets = lost;
        stats.udp_rx.datagrams = received / 1_000;
        stats.udp_rx.bytes = received;
        stats
    }

    fn state(meter: &Meter, now: Instant) -> LinkState {
        meter.reading(now).value().unwrap().state
    }

    #[test]
    fn a_link_between_the_thresholds_stays_what_it_was() {
        let (start, mut meter) = (Instant::now(), Meter::default());
        meter.connected(start);
        let mut states = Vec::new();
        for (second, rtt) in [100, 250, 301, 250, 199, 250].into_iter().enumerate() {
            let now = start + Duration::from_secs(second as u64);
            meter.sample(now, &stats(rtt, 0, 0, second as u64 * 1_000));
            states.push(state(&meter, now));
        }
        use LinkState::{Degraded, Up};
        assert_eq!(states, [Up, Up, Degraded, Degraded, Up, Up]);
    }

    #[test]
    fn rates_and_loss_come_from_differences_and_are_unknown_before() {
        let (start, mut meter) = (Instant::now(), Meter::default());
        meter.connected(start);
        meter.sample(start + Duration::from_secs(1), &stats(100, 19, 5, 1_000));
        let link = *meter.reading(start).value().unwrap();
        assert_eq!((link.loss_ratio, link.downlink_bits_per_s), (None, None));
        assert_eq!(link.uplink_bits_per_s, Some(1_000_000.0));
        meter.sample(start + Duration::from_secs(2), &stats(100, 100, 10, 126_000));
        let link = *meter.reading(start).value().unwrap();
        assert_eq!((link.loss_ratio, link.downlink_bits_per_s), (Some(0.1), Some(1_000_000.0)));
        assert_eq!(link.state, LinkState::Degraded);
    }

    #[test]
    fn the_age_is_the_time_since_the_last_packet() {
        let (start, mut meter) = (Instant::now(), Meter::default());
        assert_eq!(meter.reading(start).value(), None);
        meter.connected(start);
        let later = start + Duration::from_secs(3);
        meter.sample(start + Duration::from_secs(1), &stats(20, 0, 0, 5_000));
        meter.sample(start + Duration::from_secs(2), &stats(20, 0, 0, 5_000));
        assert!(matches!(meter.reading(later), Reading::Known { age_ms: 2_000, .. }));
    }
}
