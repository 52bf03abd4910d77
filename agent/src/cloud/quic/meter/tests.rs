use super::*;
use tether_protocol::context::LinkState;

fn stats(rtt_ms: u64, sent: u64, lost: u64, received: u64) -> ConnectionStats {
    let mut stats = ConnectionStats::default();
    stats.path.rtt = Duration::from_millis(rtt_ms);
    stats.path.min_rtt = stats.path.rtt;
    stats.path.sent_packets = sent;
    stats.path.lost_packets = lost;
    stats.udp_rx.datagrams = received / 1_000;
    stats.udp_rx.bytes = received;
    stats.path.cwnd = 12_000 + sent;
    stats.udp_tx.bytes = 1_000 * sent;
    stats.path.lost_bytes = 900 * lost;
    stats
}

fn link(meter: &Meter, now: Instant) -> Link {
    *meter.reading(now).value().unwrap()
}

#[test]
fn loss_and_the_downlink_come_from_differences_and_are_unknown_before() {
    let start = Instant::now();
    let mut meter = Meter::new(start);
    assert_eq!(meter.reading(start).value(), None);
    meter.connected(start);
    assert_eq!(link(&meter, start).congestion_window_bytes, None, "nothing was sampled yet");
    meter.sample(start + Duration::from_secs(1), &stats(100, 19, 5, 1_000));
    let first = link(&meter, start);
    assert_eq!((first.loss_ratio, first.downlink_bits_per_s), (None, None));
    assert_eq!(first.uplink_bits_per_s, None, "nothing was sent that would tell");
    meter.sample(start + Duration::from_secs(2), &stats(100, 100, 20, 126_000));
    let second = link(&meter, start);
    assert_eq!((second.loss_ratio, second.downlink_bits_per_s), (Some(0.2), Some(1_000_000.0)));
    assert_eq!(second.state, LinkState::Degraded);
    assert_eq!((first.delivered_bytes, second.delivered_bytes), (Some(19_000 - 4_500), Some(100_000 - 18_000)));
    assert_eq!((first.congestion_window_bytes, second.congestion_window_bytes), (Some(12_019), Some(12_100)));
}

#[test]
fn the_age_is_the_time_since_the_last_packet() {
    let start = Instant::now();
    let mut meter = Meter::new(start);
    meter.connected(start);
    let later = start + Duration::from_secs(3);
    meter.sample(start + Duration::from_secs(1), &stats(20, 0, 0, 5_000));
    meter.sample(start + Duration::from_secs(2), &stats(20, 0, 0, 5_000));
    assert!(matches!(meter.reading(later), Reading::Known { age_ms: 2_000, .. }));
}

/// Uploads of `turns`, each `(begun_ms, ended_ms)`, over a link that sends 100 bytes a millisecond and loses a tenth.
fn after(turns: &[(u64, u64)], acknowledged: bool) -> Meter {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut meter = Meter::new(start);
    meter.connected(start);
    let mut events: Vec<(u64, bool)> =
        turns.iter().flat_map(|(begun, ended)| [(*begun, true), (*ended, false)]).collect();
    events.sort_unstable();
    for (ms, begins) in events {
        let mut stats = stats(40, 0, 0, 0);
        (stats.udp_tx.bytes, stats.path.lost_bytes) = (ms * 100, ms * 10);
        if begins {
            meter.upload_begins(at(ms), &stats);
        } else {
            meter.upload_ends(at(ms), &stats, acknowledged);
        }
    }
    meter
}

#[test]
fn what_arrived_in_the_time_beyond_the_round_trip_is_the_rate() {
    let rate = |meter: &Meter| meter.uplink.bits_per_s();
    let expected = 90_000.0 * 8.0 / 0.96;
    assert!((rate(&after(&[(0, 1_000)], true)).unwrap() - expected).abs() < 1.0);
    // Two at once are measured together, so that neither seems to have had half the link.
    assert!((rate(&after(&[(0, 600), (400, 1_000)], true)).unwrap() - expected).abs() < 1.0);
    assert_eq!(rate(&after(&[(0, 900)], false)), None, "broken off soon");
    assert!(rate(&after(&[(0, 4_000)], false)).is_some(), "broken off after a while: it was slow");
    let meter = after(&[(0, 1_000)], true);
    assert!(!meter.is_busy() && after(&[(0, 1_000)], true).rate_age(meter.epoch).is_some());
}

#[test]
fn the_rate_outlives_the_connection_and_two_failures_are_an_outage() {
    let mut meter = after(&[(0, 1_000)], true);
    let now = meter.epoch + Duration::from_secs(9);
    let rate = link(&meter, now).uplink_bits_per_s;
    meter.connected(now);
    assert_eq!((link(&meter, now).uplink_bits_per_s, link(&meter, now).rtt_ms), (rate, None));
    let low = |now| link(&meter, now).uplink_low_bits_per_s.unwrap();
    assert!(low(now + Duration::from_secs(30)) < low(now), "silence makes it less sure");
    meter.failed();
    assert_eq!(meter.state(), LinkState::Up);
    meter.failed();
    assert_eq!(meter.state(), LinkState::Down);
    meter.connected(now);
    assert_eq!(meter.state(), LinkState::Up);
}
