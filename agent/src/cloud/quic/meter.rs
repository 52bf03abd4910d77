//! From QUIC's path statistics and the transfers of turns to the link's reading. Pure: the time and the statistics are
//! arguments.

use quinn::ConnectionStats;
use std::time::{Duration, Instant};
use tether_policies::link::{LEAST_SAMPLE_BYTES, LinkEstimator, Sample};
use tether_policies::wire::QuicModel;
use tether_protocol::Reading;
use tether_protocol::context::Link;

/// Packets between two looks at the loss: at fewer, one lost packet would look like a catastrophe.
const LOSS_WINDOW_PACKETS: u64 = 20;
/// Weight of a new measurement of the downlink against the old ones.
const SMOOTHING: f64 = 0.3;
/// A sample with less than this is a trickle that says nothing about the downlink's rate.
const BUSY_BYTES: u64 = 32 * 1024;
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// An upload that was broken off tells how fast it went, if it went on for so long.
const LEAST_BROKEN: Duration = Duration::from_secs(1);

/// The counters at an earlier moment.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    sent: u64,
    lost: u64,
    received_datagrams: u64,
    received_bytes: u64,
}

/// Uploads under way, which overlap: they are measured together, from the first one's begin to the last one's end.
#[derive(Debug, Clone, Copy)]
struct Busy {
    uploads: u32,
    begun: Instant,
    sent_bytes: u64,
    lost_bytes: u64,
    /// One of them was broken off.
    broken: bool,
}

/// What has been learned of the path to the gateway. What it learned of the rate outlives a connection.
#[derive(Debug)]
pub(super) struct Meter {
    epoch: Instant,
    uplink: LinkEstimator,
    pub(super) wire: QuicModel,
    mark: Mark,
    busy: Option<Busy>,
    /// When something last came from the gateway, as far as the samples tell.
    heard: Option<Instant>,
    sampled: Option<Instant>,
    rtt: Option<Duration>,
    min_rtt: Option<Duration>,
    congestion_window_bytes: Option<u64>,
    delivered_bytes: Option<u64>,
    downlink_bits_per_s: Option<f64>,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            uplink: LinkEstimator::default(),
            wire: QuicModel::default(),
            mark: Mark::default(),
            busy: None,
            heard: None,
            sampled: None,
            rtt: None,
            min_rtt: None,
            congestion_window_bytes: None,
            delivered_bytes: None,
            downlink_bits_per_s: None,
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64()
    }

    /// A new connection: its counters start at zero.
    pub(super) fn connected(&mut self, now: Instant) {
        self.uplink.reached();
        *self = Self {
            heard: Some(now),
            sampled: Some(now),
            uplink: self.uplink.clone(),
            wire: self.wire,
            ..Self::new(self.epoch)
        };
    }

    /// An attempt to connect failed, or the connection broke.
    pub(super) fn failed(&mut self) {
        self.uplink.failed();
    }

    pub(super) fn sample(&mut self, now: Instant, stats: &ConnectionStats) {
        if stats.udp_rx.datagrams != self.mark.received_datagrams {
            self.heard = Some(now);
            self.mark.received_datagrams = stats.udp_rx.datagrams;
            self.uplink.reached();
            self.uplink.round_trip(stats.path.rtt.as_secs_f64() * 1e3);
        }
        self.rtt = Some(stats.path.rtt);
        self.min_rtt = Some(stats.path.min_rtt);
        self.congestion_window_bytes = Some(stats.path.cwnd);
        self.delivered_bytes = Some(stats.udp_tx.bytes.saturating_sub(stats.path.lost_bytes));
        self.sample_loss(stats.path.sent_packets, stats.path.lost_packets);
        self.sample_downlink(now, stats.udp_rx.bytes);
    }

    fn sample_loss(&mut self, sent: u64, lost: u64) {
        let packets = sent.saturating_sub(self.mark.sent);
        if packets >= LOSS_WINDOW_PACKETS {
            self.uplink.lost(lost.saturating_sub(self.mark.lost), packets);
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
            let smoothed = |old: f64| old + SMOOTHING * (rate - old);
            self.downlink_bits_per_s = Some(self.downlink_bits_per_s.map_or(rate, smoothed));
        }
        self.mark.received_bytes = bytes;
        self.sampled = Some(now);
    }

    pub(super) fn upload_begins(&mut self, now: Instant, stats: &ConnectionStats) {
        match &mut self.busy {
            Some(busy) => busy.uploads += 1,
            None => {
                let (sent_bytes, lost_bytes) = (stats.udp_tx.bytes, stats.path.lost_bytes);
                self.busy = Some(Busy { uploads: 1, begun: now, sent_bytes, lost_bytes, broken: false });
            }
        }
    }

    /// `acknowledged`: all of it arrived. Otherwise it was broken off.
    pub(super) fn upload_ends(&mut self, now: Instant, stats: &ConnectionStats, acknowledged: bool) {
        let Some(busy) = &mut self.busy else { return };
        busy.uploads -= 1;
        busy.broken |= !acknowledged;
        if busy.uploads > 0 {
            return;
        }
        let busy = *busy;
        self.busy = None;
        let sent = stats.udp_tx.bytes.saturating_sub(busy.sent_bytes);
        let arrived = sent.saturating_sub(stats.path.lost_bytes.saturating_sub(busy.lost_bytes));
        let elapsed = now.saturating_duration_since(busy.begun);
        if busy.broken && elapsed < LEAST_BROKEN {
            return;
        }
        // Without a whole transfer, what is on its way counts as arrived: the rate was this at most.
        self.transferred(now, arrived, elapsed, stats.path.min_rtt);
    }

    /// So many bytes were acknowledged, so long after they began.
    pub(super) fn transferred(&mut self, now: Instant, bytes: u64, elapsed: Duration, rtt: Duration) {
        let at_s = self.seconds(now);
        self.uplink.sent(Sample::acknowledged(at_s, bytes, elapsed.as_secs_f64(), rtt.as_secs_f64()));
    }

    /// How long ago a transfer last told the rate; `None`: never.
    pub(super) fn rate_age(&self, now: Instant) -> Option<Duration> {
        let age_s = self.uplink.age_s(self.seconds(now))?;
        Some(Duration::from_secs_f64(age_s))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    pub(super) fn state(&self) -> tether_protocol::context::LinkState {
        self.uplink.state()
    }

    /// The link of a connection that is up; its age is the time since the gateway was last heard.
    pub(super) fn reading(&self, now: Instant) -> Reading<Link> {
        let Some(heard) = self.heard else { return Reading::unknown("no connection to the cloud yet") };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let interval = self.uplink.interval_bits_per_s(self.seconds(now));
        let link = Link {
            state: self.uplink.state(),
            rtt_ms: self.rtt.map(ms),
            min_rtt_ms: self.min_rtt.map(ms),
            uplink_bits_per_s: self.uplink.bits_per_s(),
            uplink_low_bits_per_s: interval.map(|(low, _)| low),
            uplink_high_bits_per_s: interval.map(|(_, high)| high),
            downlink_bits_per_s: self.downlink_bits_per_s,
            loss_ratio: self.uplink.loss_ratio(),
            congestion_window_bytes: self.congestion_window_bytes,
            delivered_bytes: self.delivered_bytes,
            metered: None,
        };
        Reading::known(link, now.saturating_duration_since(heard).as_millis() as u64, "quic")
    }
}

/// Bytes of a probe that is large enough to tell a rate.
pub(super) const PROBE_BYTES: u64 = 2 * LEAST_SAMPLE_BYTES;

#[cfg(test)]
mod tests;
