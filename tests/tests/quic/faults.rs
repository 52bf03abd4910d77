//! Bad networks and gateways that die.

use std::time::{Duration, Instant};
use tether::cloud::CloudError;
use tether::cloud::quic::{QuicCloud, QuicConfig};
use tether_protocol::context::LinkState;
use tether_protocol::wire::*;
use tether_tests::quic::*;
use tether_tests::relay::{Faults, Relay};

/// A client that reaches the gateway through a relay.
async fn through(gateway: &Gateway, faults: Faults, connect_timeout_ms: u64) -> (Relay, QuicCloud) {
    let relay = Relay::start(gateway.address, 42, faults).await.unwrap();
    let config = QuicConfig { address: relay.address().to_string(), connect_timeout_ms, ..gateway.client_config() };
    (relay, QuicCloud::new(config).unwrap())
}

const BLACK_HOLE: Faults =
    Faults { black_hole: true, loss_ratio: 0.0, delay: Duration::ZERO, up_bytes_per_s: None, down_bytes_per_s: None };

#[tokio::test]
async fn turns_survive_loss_and_delay() {
    let gateway = Gateway::start();
    let faults = Faults { loss_ratio: 0.05, delay: Duration::from_millis(20), ..Faults::default() };
    let (_relay, cloud) = through(&gateway, faults, 10_000).await;
    let image = vec![5; 100_000];
    for number in 0..3 {
        let answer = ask(&cloud, turn(&format!("t{number}"), "look", &[&image])).await.unwrap();
        assert_eq!(text_of(&answer).as_deref(), Some("look 100000;"));
    }
    assert!(cloud.link().value().unwrap().rtt_ms.is_some_and(|rtt| rtt >= 40.0));
}

#[tokio::test]
async fn an_unreachable_gateway_fails_fast_and_the_next_turn_at_once() {
    let gateway = Gateway::start();
    let (relay, cloud) = through(&gateway, BLACK_HOLE, 400).await;
    let begun = Instant::now();
    let error = cloud.turn(turn("t1", "hello", &[])).await.unwrap_err();
    assert!(matches!(error, CloudError::Unreachable { .. }), "{error}");
    // Well within any deadline, even on a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The keeper's own attempt ends about when the turn's patience does; from then on it is known.
    while cloud.link().value().is_none() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    let error = cloud.turn(turn("t2", "hello", &[])).await.unwrap_err();
    assert!(matches!(error, CloudError::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(cloud.link().value().unwrap().state, LinkState::Down);
    // The network heals; nobody has to restart anything.
    relay.set(Faults::default());
    let healed = async {
        while ask(&cloud, turn("t3", "hello", &[])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, healed).await.unwrap();
    assert_ne!(cloud.link().value().unwrap().state, LinkState::Down);
}

#[tokio::test]
async fn a_path_that_dies_in_mid_turn_is_noticed_in_about_two_seconds() {
    let mut gateway = Gateway::start();
    let (relay, cloud) = through(&gateway, Faults::default(), 10_000).await;
    let stream = cloud.turn(turn("t1", "hang", &[])).await.unwrap();
    gateway.began("hang").await;
    relay.set(BLACK_HOLE);
    let begun = Instant::now();
    assert_eq!(events(stream).await, []);
    let noticed = begun.elapsed();
    assert!(noticed < Duration::from_secs(6), "{noticed:?}");
}

#[tokio::test]
async fn a_long_silent_turn_on_a_good_path_is_left_alone() {
    let mut gateway = Gateway::start();
    let cloud = gateway.client();
    let mut quiet = turn("t1", "hang", &[]);
    quiet.deadline = Instant::now() + Duration::from_millis(3_500);
    // Longer than the silence that counts as dead, ended by the deadline and not by the probe.
    let answer = ask(&cloud, quiet).await.unwrap();
    assert_eq!(error_of(&answer).code, ErrorCode::DeadlineExceeded);
    gateway.began("hang").await;
}

#[tokio::test]
async fn a_restarted_gateway_is_found_again() {
    let mut gateway = Gateway::start();
    let (relay, cloud) = through(&gateway, Faults::default(), 10_000).await;
    ask(&cloud, turn("t1", "hello", &[])).await.unwrap();
    gateway.shutdown.cancel();
    gateway.stopped().await;
    drop(relay);
    let error = cloud.turn(CloudTurnSoon::turn("t2")).await.unwrap_err();
    assert!(matches!(error, CloudError::Unreachable { .. } | CloudError::Deadline), "{error}");
}

/// A turn that cannot wait for long.
struct CloudTurnSoon;

impl CloudTurnSoon {
    fn turn(id: &str) -> tether::cloud::CloudTurn {
        let mut soon = turn(id, "hello", &[]);
        soon.deadline = Instant::now() + Duration::from_secs(1);
        soon
    }
}

#[tokio::test]
async fn text_overtakes_images_on_a_slow_link() {
    let mut gateway = Gateway::start();
    // The image alone takes about three seconds.
    let slow = Faults { up_bytes_per_s: Some(100_000), delay: Duration::from_millis(5), ..Faults::default() };
    let (_relay, cloud) = through(&gateway, slow, 10_000).await;
    ask(&cloud, turn("t0", "hello", &[])).await.unwrap();
    assert!(matches!(gateway.saw().await, Seen::Began { .. }));
    assert!(matches!(gateway.saw().await, Seen::Images(_)));
    let image = vec![1; 300_000];
    let picture = cloud.turn(turn("t1", "picture", &[&image])).await.unwrap();
    // Its text is there long before its image.
    gateway.began("picture").await;
    // And the text of a later turn overtakes the image, too.
    let answer = ask(&cloud, turn("t2", "words", &[])).await.unwrap();
    assert_eq!(text_of(&answer).as_deref(), Some("words 0;"));
    gateway.began("words").await;
    assert_eq!(gateway.saw().await, Seen::Images(Ok(vec![])));
    assert_eq!(text_of(&events(picture).await).as_deref(), Some("picture 300000;"));
    assert_eq!(gateway.saw().await, Seen::Images(Ok(vec![image.into()])));
}
