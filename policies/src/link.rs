//! What a send will take, learned from the sends before it. Pure: time is an argument, in seconds of any clock.
//!
//! The logarithm of the rate is followed by an exponential mean that forgets by the clock, not by the sample, so that
//! after a silence the next sample counts more. Its spread gives an interval, and the interval's width is corrected by
//! its own misses (adaptive conformal inference, Gibbs and Candes, arXiv 2106.00170): outages are not log-normal.

use tether_protocol::context::{Link, LinkState};

/// The mean forgets with this time constant. On twelve recorded WiFi links with a send every 5 s anything from 0.7 to 3 s errs alike
/// and 8, 20 and 60 more; with a turn every second 1 s errs a sixth less than 3.
const MEMORY_S: f64 = 1.0;
/// A sample counts at least this much, however soon it follows.
const LEAST_WEIGHT: f64 = 0.15;
/// One sample moves the mean by at most a factor of e: an outage is not a new capacity.
const MAX_STEP: f64 = 1.0;
/// Share of the newest squared surprise in the variance.
const VARIANCE_WEIGHT: f64 = 0.1;
/// A rate that was seen once is known to a factor of two.
const FIRST_VARIANCE: f64 = 0.5;
const LEAST_VARIANCE: f64 = 1e-3;
/// Variance that a second of silence adds, and when that ends.
const DRIFT_PER_S: f64 = 0.02;
const MAX_DRIFT_S: f64 = 60.0;
/// Each side of the interval misses so often.
const MISS: f64 = 0.05;
const CORRECTION: f64 = 0.15;
const NORMAL_95: f64 = 1.645;
/// The corrected width, in standard deviations, stays within these.
const WIDTHS: (f64, f64) = (0.2, 8.0);
/// Below this a transfer is decided by round trips, not by the rate.
pub const LEAST_SAMPLE_BYTES: u64 = 4 * 1024;
/// A transfer that takes less than this share of a round trip beyond it is decided by the round trip.
const ROUND_TRIP_BOUND: f64 = 0.25;

/// Degraded below this uplink or above this round trip; good again beyond the other pair.
const DEGRADED_BITS_PER_S: f64 = 250e3;
const GOOD_BITS_PER_S: f64 = 400e3;
const DEGRADED_RTT_MS: f64 = 800.0;
const GOOD_RTT_MS: f64 = 500.0;
const DEGRADED_LOSS: f64 = 0.15;
const GOOD_LOSS: f64 = 0.05;
/// Round trips and losses are means over about so many samples.
const SMOOTHING: f64 = 0.2;
/// A failure more makes a link down; one success makes it up.
const FAILURES_DOWN: u32 = 2;

/// How long a send will take: as likely longer as shorter than `median_s`, and nine times in ten within the interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SendTime {
    pub median_s: f64,
    pub low_s: f64,
    pub high_s: f64,
}

/// A finished transfer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub at_s: f64,
    pub bytes: u64,
    pub seconds: f64,
    /// The sender had nothing more to send for part of the time: the link can do at least so much.
    pub app_limited: bool,
}

impl Sample {
    /// A transfer that was acknowledged `elapsed_s` after it began, over a path whose empty round trip is `rtt_s`. The last
    /// acknowledgement takes a round trip, which is no part of the rate; of a transfer that took hardly longer than that,
    /// no more is known than that the link can do it in a fraction of the round trip.
    pub fn acknowledged(at_s: f64, bytes: u64, elapsed_s: f64, rtt_s: f64) -> Self {
        let (beyond_s, least_s) = (elapsed_s - rtt_s, rtt_s * ROUND_TRIP_BOUND);
        let app_limited = beyond_s < least_s;
        Self { at_s, bytes, seconds: if app_limited { least_s } else { beyond_s }, app_limited }
    }
}

/// How long a send takes until it is acknowledged, by what the link's reading says: a round trip, and the bytes at the rate.
/// `None` until a transfer has been seen.
pub fn send_time(link: &Link, bytes: u64) -> Option<SendTime> {
    let rtt_s = link.min_rtt_ms.or(link.rtt_ms)? / 1e3;
    let seconds = |bits_per_s: Option<f64>| bits_per_s.filter(|rate| *rate > 0.0).map(|rate| bytes as f64 * 8.0 / rate);
    let median_s = seconds(link.uplink_bits_per_s)?;
    Some(SendTime {
        median_s: rtt_s + median_s,
        low_s: rtt_s + seconds(link.uplink_high_bits_per_s).unwrap_or(median_s),
        high_s: rtt_s + seconds(link.uplink_low_bits_per_s).unwrap_or(median_s),
    })
}

/// One direction of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkEstimator {
    log_rate: Option<f64>,
    variance: f64,
    low: f64,
    high: f64,
    newest_s: f64,
    rtt_ms: Option<f64>,
    loss: Option<f64>,
    failures: u32,
    state: LinkState,
}

impl Default for LinkEstimator {
    fn default() -> Self {
        Self {
            log_rate: None,
            variance: FIRST_VARIANCE,
            low: NORMAL_95,
            high: NORMAL_95,
            newest_s: 0.0,
            rtt_ms: None,
            loss: None,
            failures: 0,
            state: LinkState::Up,
        }
    }
}

impl LinkEstimator {
    /// Learns from a transfer. Too small ones tell nothing; one that was not limited by the link can only raise the rate.
    pub fn sent(&mut self, sample: Sample) {
        self.failures = 0;
        let Sample { at_s, bytes, seconds, app_limited } = sample;
        if bytes < LEAST_SAMPLE_BYTES || !seconds.is_finite() || seconds <= 0.0 {
            return self.judge();
        }
        let log_rate = (bytes as f64 * 8.0 / seconds).ln();
        match self.log_rate {
            Some(mean) if app_limited && log_rate < mean => return self.judge(),
            None => self.log_rate = Some(log_rate),
            Some(mean) => {
                self.correct(at_s, bytes, seconds);
                let passed_s = (at_s - self.newest_s).max(0.0);
                let weight = (1.0 - (-passed_s / MEMORY_S).exp()).max(LEAST_WEIGHT);
                let surprise = log_rate - mean;
                self.log_rate = Some(mean + weight * surprise.clamp(-MAX_STEP, MAX_STEP));
                let squared = (surprise * surprise).min(4.0 * MAX_STEP);
                self.variance = (self.variance + VARIANCE_WEIGHT * (squared - self.variance)).max(LEAST_VARIANCE);
            }
        }
        self.newest_s = at_s;
        self.judge();
    }

    /// Each miss widens its side, each hit narrows it a little, so that in the long run a side misses [`MISS`].
    fn correct(&mut self, at_s: f64, bytes: u64, seconds: f64) {
        let Some(predicted) = self.send_time(at_s, bytes) else { return };
        let factor = |missed: bool| (CORRECTION * (f64::from(u8::from(missed)) - MISS)).exp();
        self.low = (self.low * factor(seconds < predicted.low_s)).clamp(WIDTHS.0, WIDTHS.1);
        self.high = (self.high * factor(seconds > predicted.high_s)).clamp(WIDTHS.0, WIDTHS.1);
    }

    pub fn round_trip(&mut self, rtt_ms: f64) {
        if rtt_ms.is_finite() && rtt_ms >= 0.0 {
            self.rtt_ms = Some(smooth(self.rtt_ms, rtt_ms));
            self.judge();
        }
    }

    /// Packets lost of those sent since the last call.
    pub fn lost(&mut self, lost: u64, sent: u64) {
        if sent > 0 {
            self.loss = Some(smooth(self.loss, lost.min(sent) as f64 / sent as f64));
            self.judge();
        }
    }

    /// A send or a probe that never got through.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.judge();
    }

    /// Whoever speaks to the other side knows that it answers.
    pub fn reached(&mut self) {
        self.failures = 0;
        self.judge();
    }

    fn judge(&mut self) {
        let rate = self.log_rate.map(f64::exp);
        let is = |value: Option<f64>, test: &dyn Fn(f64) -> bool| value.is_some_and(test);
        let bad = is(rate, &|r| r < DEGRADED_BITS_PER_S)
            || is(self.rtt_ms, &|r| r > DEGRADED_RTT_MS)
            || is(self.loss, &|l| l > DEGRADED_LOSS);
        let good = !is(rate, &|r| r < GOOD_BITS_PER_S)
            && !is(self.rtt_ms, &|r| r > GOOD_RTT_MS)
            && !is(self.loss, &|l| l > GOOD_LOSS);
        self.state = match self.state {
            _ if self.failures >= FAILURES_DOWN => LinkState::Down,
            _ if bad => LinkState::Degraded,
            LinkState::Degraded if !good => LinkState::Degraded,
            _ => LinkState::Up,
        };
    }

    pub fn state(&self) -> LinkState {
        self.state
    }

    pub fn rtt_ms(&self) -> Option<f64> {
        self.rtt_ms
    }

    pub fn loss_ratio(&self) -> Option<f64> {
        self.loss
    }

    pub fn bits_per_s(&self) -> Option<f64> {
        self.log_rate.map(f64::exp)
    }

    /// Since the newest sample; `None`: there is none.
    pub fn age_s(&self, now_s: f64) -> Option<f64> {
        self.log_rate.map(|_| (now_s - self.newest_s).max(0.0))
    }

    /// The rate between whose ends nine of ten sends from `now_s` on will be, low and high.
    pub fn interval_bits_per_s(&self, now_s: f64) -> Option<(f64, f64)> {
        let time = self.send_time(now_s, 1 << 30)?;
        let bits = (1u64 << 30) as f64 * 8.0;
        Some((bits / time.high_s, bits / time.low_s))
    }

    /// How long `bytes` would take from `now_s` on; `None` until a transfer has been seen.
    pub fn send_time(&self, now_s: f64, bytes: u64) -> Option<SendTime> {
        let rate = self.bits_per_s()?;
        let silent_s = (now_s - self.newest_s).clamp(0.0, MAX_DRIFT_S);
        let spread = (self.variance + DRIFT_PER_S * silent_s).sqrt();
        let median_s = bytes as f64 * 8.0 / rate;
        Some(SendTime {
            median_s,
            low_s: median_s * (-self.low * spread).exp(),
            high_s: median_s * (self.high * spread).exp(),
        })
    }
}

fn smooth(mean: Option<f64>, value: f64) -> f64 {
    mean.map_or(value, |mean| mean + SMOOTHING * (value - mean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(at_s: f64, bits_per_s: f64) -> Sample {
        Sample { at_s, bytes: 100_000, seconds: 800_000.0 / bits_per_s, app_limited: false }
    }

    #[test]
    fn a_steady_link_is_known_and_its_interval_narrow() {
        let mut link = LinkEstimator::default();
        assert_eq!(link.send_time(0.0, 1_000), None);
        (0..200).for_each(|t| link.sent(sample(f64::from(t), 8e6)));
        let time = link.send_time(200.0, 1_000_000).unwrap();
        assert!((time.median_s - 1.0).abs() < 1e-9 && time.low_s < 1.0 && time.high_s < 1.3, "{time:?}");
        let later = link.send_time(260.0, 1_000_000).unwrap();
        assert!(later.high_s > time.high_s, "silence makes it less sure");
    }

    #[test]
    fn what_the_application_held_back_never_lowers_the_rate() {
        let mut link = LinkEstimator::default();
        link.sent(sample(0.0, 8e6));
        link.sent(Sample { app_limited: true, ..sample(1.0, 1e6) });
        assert!((link.bits_per_s().unwrap() - 8e6).abs() < 1.0);
        link.sent(Sample { app_limited: true, ..sample(2.0, 16e6) });
        assert!(link.bits_per_s().unwrap() > 8e6);
        link.sent(Sample { bytes: LEAST_SAMPLE_BYTES - 1, ..sample(3.0, 1.0) });
        assert!(link.bits_per_s().unwrap() > 8e6, "a few bytes tell nothing");
    }

    #[test]
    fn a_round_trip_is_no_part_of_the_rate() {
        let mut link = LinkEstimator::default();
        // 100 KB at 8 Mbit/s take 0.1 s, and their acknowledgement a round trip of 0.3 s.
        (0..50).for_each(|t| link.sent(Sample::acknowledged(f64::from(t), 100_000, 0.4, 0.3)));
        let (low, high) = link.interval_bits_per_s(50.0).unwrap();
        let reading = Link {
            min_rtt_ms: Some(300.0),
            uplink_bits_per_s: link.bits_per_s(),
            uplink_low_bits_per_s: Some(low),
            uplink_high_bits_per_s: Some(high),
            ..Link::in_state(LinkState::Up)
        };
        let time = send_time(&reading, 200_000).unwrap();
        assert!((time.median_s - 0.5).abs() < 1e-6 && time.low_s < 0.5 && time.high_s > 0.5, "{time:?}");
        assert!(time.low_s > 0.3, "no send is quicker than the round trip: {time:?}");
        assert_eq!(send_time(&Link::in_state(LinkState::Up), 1_000), None);
        let quick = Sample::acknowledged(60.0, 10_000, 0.301, 0.3);
        assert!(quick.app_limited && (quick.seconds - 0.075).abs() < 1e-9, "{quick:?}");
    }

    #[test]
    fn states_change_with_hysteresis() {
        let mut link = LinkEstimator::default();
        let settle = |link: &mut LinkEstimator, from: f64, rate: f64| {
            (0..40).for_each(|t| link.sent(sample(from + f64::from(t), rate)));
            link.state()
        };
        assert_eq!(settle(&mut link, 0.0, 5e6), LinkState::Up);
        assert_eq!(settle(&mut link, 100.0, 200e3), LinkState::Degraded);
        assert_eq!(settle(&mut link, 200.0, 300e3), LinkState::Degraded, "not yet good again");
        assert_eq!(settle(&mut link, 300.0, 500e3), LinkState::Up);
        link.failed();
        assert_eq!(link.state(), LinkState::Up, "one failure is not an outage");
        link.failed();
        assert_eq!(link.state(), LinkState::Down);
        link.reached();
        assert_eq!(link.state(), LinkState::Up);
        (0..40).for_each(|_| link.lost(30, 100));
        assert_eq!(link.state(), LinkState::Degraded);
    }

    proptest! {
        #[test]
        fn predictions_stay_ordered_and_finite(
            samples in prop::collection::vec((0.0f64..10.0, 1u64..10_000_000, 1e-6f64..1e4, any::<bool>()), 1..60),
            bytes in 0u64..100_000_000,
        ) {
            let mut link = LinkEstimator::default();
            let mut at_s = 0.0;
            for (passed, sent, seconds, app_limited) in samples {
                at_s += passed;
                link.sent(Sample { at_s, bytes: sent, seconds, app_limited });
                if let Some(time) = link.send_time(at_s, bytes) {
                    prop_assert!(time.low_s <= time.median_s && time.median_s <= time.high_s, "{time:?}");
                    prop_assert!(time.high_s.is_finite(), "{time:?}");
                }
            }
        }
    }
}
