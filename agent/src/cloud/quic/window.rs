//! How much may be on its way to the gateway: a congestion window that keeps the queue on the path short.
//!
//! A window that grows until something is lost (quinn's default is Cubic) fills whatever buffer the uplink has, half a second's
//! worth and more. When a mobile link then goes away, all of that is lost and sent again, on a link whose bytes are counted.
//! This window stops growing, and shrinks, once the round trip is [`QUEUE`] longer than it was while the path was empty. A turn
//! begins on an empty path, so what an empty one takes is measured anew by every upload: a route that got longer, and others'
//! traffic, are not taken for this connection's own queue.

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What may wait on the path. Tried 20 to 200 ms on recorded links in virtual time: below 50 a WiFi link is not used up, above
/// it more is sent twice.
const QUEUE: Duration = Duration::from_millis(50);
/// What a connection may begin with (RFC 9002, 7.2), and what a queue alone never takes away.
const FIRST_WINDOW: u64 = 14_720;
/// What a loss leaves of the window, as in Cubic (RFC 9438, 4.6).
const LOSS_FACTOR: f64 = 0.7;
/// The least, in datagrams (RFC 9002, 7.2).
const LEAST_DATAGRAMS: u64 = 2;

/// Makes a [`ShortQueue`] for each path.
#[derive(Debug, Default)]
pub(super) struct ShortQueueConfig;

impl ControllerFactory for ShortQueueConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(ShortQueue::new(now, current_mtu))
    }
}

#[derive(Debug, Clone)]
struct ShortQueue {
    window: u64,
    /// Below it the window doubles in a round trip, above it grows by a datagram.
    slow_start_until: u64,
    mtu: u64,
    /// Nothing is on its way.
    idle: bool,
    /// Since then something is.
    busy_since: Instant,
    /// The least round trip since then: the path's without this connection's queue.
    empty_rtt: Option<Duration>,
    /// A round trip ends with the first acknowledgement of what was sent after this.
    round_from: Instant,
    round_rtt: Duration,
    /// What was sent before is no second reason to shrink after a loss.
    lost_until: Option<Instant>,
}

impl ShortQueue {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            window: FIRST_WINDOW,
            slow_start_until: u64::MAX,
            mtu: u64::from(mtu),
            idle: true,
            busy_since: now,
            empty_rtt: None,
            round_from: now,
            round_rtt: Duration::MAX,
            lost_until: None,
        }
    }

    fn least(&self) -> u64 {
        LEAST_DATAGRAMS * self.mtu
    }

    fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        if sent < self.busy_since {
            return;
        }
        let rtt = now.saturating_duration_since(sent);
        let empty_rtt = self.empty_rtt.map_or(rtt, |least| least.min(rtt));
        self.empty_rtt = Some(empty_rtt);
        self.round_rtt = self.round_rtt.min(rtt);
        if sent >= self.round_from {
            self.end_round(now, empty_rtt);
        }
        let is_old = self.lost_until.is_some_and(|lost_until| sent <= lost_until);
        if app_limited || is_old || rtt > empty_rtt + QUEUE {
            return;
        }
        self.window +=
            if self.window < self.slow_start_until { bytes } else { (self.mtu * bytes / self.window).max(1) };
    }

    /// Shrinks to what the path carries with a queue of [`QUEUE`].
    fn end_round(&mut self, now: Instant, empty_rtt: Duration) {
        let most = empty_rtt + QUEUE;
        if self.round_rtt > most {
            let carried = (self.window as f64 * most.as_secs_f64() / self.round_rtt.as_secs_f64()) as u64;
            // A window that losses made smaller stays so.
            self.window = carried.max(FIRST_WINDOW).min(self.window);
            self.slow_start_until = self.window;
        }
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Instant) {
        self.round_from = now;
        self.round_rtt = Duration::MAX;
    }

    fn lost(&mut self, now: Instant, sent: Instant, is_persistent: bool) {
        if self.lost_until.is_some_and(|lost_until| sent <= lost_until) {
            return;
        }
        self.slow_start_until = ((self.window as f64 * LOSS_FACTOR) as u64).max(self.least());
        (self.window, self.lost_until) = match is_persistent {
            // The path was away: begin anew, as after a timeout.
            true => (self.least(), None),
            false => (self.slow_start_until, Some(now)),
        };
    }
}

impl Controller for ShortQueue {
    fn on_sent(&mut self, now: Instant, _: u64, _: u64) {
        if std::mem::take(&mut self.idle) {
            self.busy_since = now;
            self.empty_rtt = None;
            self.begin_round(now);
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        self.acknowledged(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, _: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.idle = in_flight == 0;
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, _: u64) {
        self.lost(now, sent, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
