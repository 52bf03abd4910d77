//! What the client learns of a link from its own transfers, over real sockets and a relay with a known rate.

use std::time::Duration;
use tether::cloud::quic::{QuicCloud, QuicConfig};
use tether_policies::link::send_time;
use tether_protocol::context::{Link, LinkState};
use tether_tests::quic::*;
use tether_tests::relay::{Faults, Relay};

const RATE_BYTES_PER_S: u64 = 100_000;
const IMAGE_BYTES: usize = 60_000;

async fn through(gateway: &Gateway, up_bytes_per_s: u64) -> (Relay, QuicCloud) {
    let faults = Faults { up_bytes_per_s: Some(up_bytes_per_s), delay: Duration::from_millis(15), ..Faults::default() };
    let relay = Relay::start(gateway.address, 7, faults).await.unwrap();
    let config = QuicConfig { address: relay.address().to_string(), ..gateway.client_config() };
    (relay, QuicCloud::new(config).unwrap())
}

fn link(cloud: &QuicCloud) -> Link {
    *cloud.link().value().unwrap()
}

/// Sends a picture; how long it took, ms.
async fn upload_ms(cloud: &QuicCloud, id: &str) -> f64 {
    let stream = cloud.turn(turn(id, "look", &[&[9; IMAGE_BYTES]])).await.unwrap();
    let bytes = stream.bytes.clone();
    assert!(text_of(&events(stream).await).is_some());
    bytes.upload_ms().expect("all of it was acknowledged before the answer came")
}

#[tokio::test]
async fn transfers_tell_the_rate_and_the_rate_tells_the_next_transfer() {
    let gateway = Gateway::start();
    let (relay, cloud) = through(&gateway, RATE_BYTES_PER_S).await;
    cloud.reach().await.unwrap();
    assert_eq!(link(&cloud).uplink_bits_per_s, None, "a handshake tells no rate");
    for number in 0..4 {
        upload_ms(&cloud, &format!("t{number}")).await;
    }
    let learned = link(&cloud);
    let (delivered, pictures) = (learned.delivered_bytes.unwrap(), 4 * IMAGE_BYTES as u64);
    assert!((pictures..pictures * 3 / 2).contains(&delivered), "{delivered} for {pictures}");
    let (rate, expected) = (learned.uplink_bits_per_s.unwrap(), RATE_BYTES_PER_S as f64 * 8.0);
    // The congestion window's start and a busy machine take a part of it; nothing adds to it.
    assert!(rate > 0.5 * expected && rate < 1.2 * expected, "{rate} of {expected}");
    let predicted = send_time(&learned, IMAGE_BYTES as u64 * 104 / 100).unwrap();
    let measured_s = upload_ms(&cloud, "t9").await / 1e3;
    assert!(
        measured_s > 0.4 * predicted.median_s && measured_s < 2.5 * predicted.median_s,
        "{measured_s} {predicted:?}"
    );
    assert!(predicted.low_s <= predicted.median_s && predicted.median_s <= predicted.high_s);
    // A tenth of the rate: after a few transfers the link is known to be bad.
    relay.set(Faults { up_bytes_per_s: Some(RATE_BYTES_PER_S / 10), ..Faults::default() });
    let slowed = async {
        for number in 0.. {
            upload_ms(&cloud, &format!("slow{number}")).await;
            if link(&cloud).state == LinkState::Degraded {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), slowed).await.expect("a slow link is noticed");
}

#[tokio::test]
async fn a_probe_tells_the_rate_without_a_turn_and_is_counted() {
    let gateway = Gateway::start();
    let (_relay, cloud) = through(&gateway, 20_000).await;
    cloud.measure().await.unwrap();
    let rate = link(&cloud).uplink_bits_per_s.unwrap();
    // 8 KiB at 160 kbit/s take 0.4 s; a round trip of 30 ms is hardly seen.
    assert!(rate > 80e3 && rate < 200e3, "{rate}");
    let probed = cloud.probe_bytes();
    assert!((8_192..12_000).contains(&probed), "{probed}");
}
