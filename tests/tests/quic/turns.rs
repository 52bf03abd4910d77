//! Turns that go well, and turns that somebody ends.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tether::cloud::CloudError;
use tether_cloud::server::ServerLimits;
use tether_protocol::context::LinkState;
use tether_protocol::wire::*;
use tether_protocol::{Reading, TurnId};
use tether_tests::quic::*;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_turn_with_images_arrives_whole_and_is_counted() {
    let mut gateway = Gateway::start();
    let cloud = gateway.client();
    let (front, side) = (vec![7; 300_000], vec![9; 1_234]);
    let stream = cloud.turn(turn("t1", "look", &[&front, &side])).await.unwrap();
    let bytes = stream.bytes.clone();
    let events = events(stream).await;
    let expected = [
        TurnEvent::Accepted(Accepted { model: "puppet".into(), vision: Vision::Native }),
        TurnEvent::Text("look 301234;".into()),
        TurnEvent::Done(done()),
    ];
    assert_eq!(events, expected);
    assert_eq!(gateway.saw().await, Seen::Began { peer: "robot".into(), text: "look".into() });
    assert_eq!(gateway.saw().await, Seen::Images(Ok(vec![front.into(), side.into()])));
    let request = 301_234..302_000;
    assert!(request.contains(&bytes.uplink_bytes()), "{} bytes up", bytes.uplink_bytes());
    let downlink: usize = expected.iter().map(|event| Frame::Event(event.clone()).encode().unwrap().len()).sum();
    assert_eq!(bytes.downlink_bytes(), downlink as u64);
    // Its datagrams: headers above the streams' bytes, and acknowledgements on the way down.
    let (up, down) = bytes.travelled();
    assert!((304_000..360_000).contains(&up), "{up} bytes of datagrams up");
    assert!(down > downlink as u64 + 500, "{down} bytes of datagrams down");
}

#[tokio::test]
async fn two_hundred_turns_share_one_connection() {
    let gateway = Gateway::start();
    let cloud = std::sync::Arc::new(gateway.client());
    let mut turns = tokio::task::JoinSet::new();
    for number in 0..200 {
        let cloud = cloud.clone();
        turns.spawn(async move {
            let image = vec![number as u8; 2_000];
            let text = format!("turn {number}");
            let answer = ask(&cloud, turn(&format!("t{number}"), &text, &[&image])).await.unwrap();
            assert_eq!(text_of(&answer), Some(format!("{text} 2000;")));
        });
    }
    while let Some(ended) = turns.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn dropping_the_stream_reaches_the_handler_at_once() {
    let mut gateway = Gateway::start();
    let cloud = gateway.client();
    let stream = cloud.turn(turn("t1", "hang", &[])).await.unwrap();
    gateway.began("hang").await;
    drop(stream);
    assert_eq!(gateway.saw().await, Seen::Cancelled);
    // The connection and its other turns live on.
    assert!(text_of(&ask(&cloud, turn("t2", "hello", &[])).await.unwrap()).is_some());
}

#[tokio::test]
async fn dropping_the_stream_in_mid_answer_stops_the_handler() {
    let mut gateway = Gateway::start();
    let mut stream = gateway.client().turn(turn("t1", "endless", &[])).await.unwrap();
    while !matches!(stream.events.recv().await.unwrap(), TurnEvent::Text(_)) {}
    drop(stream);
    gateway.began("endless").await;
    assert!(matches!(gateway.saw().await, Seen::Images(_)));
    assert_eq!(gateway.saw().await, Seen::Cancelled);
}

#[tokio::test]
async fn a_handler_that_panics_or_stops_short_fails_only_its_turn() {
    let gateway = Gateway::start();
    let cloud = gateway.client();
    for text in ["panic", "drop"] {
        let answer = ask(&cloud, turn(text, text, &[])).await.unwrap();
        assert_eq!(error_of(&answer).code, ErrorCode::Internal);
    }
    assert!(text_of(&ask(&cloud, turn("t3", "hello", &[])).await.unwrap()).is_some());
}

#[tokio::test]
async fn the_deadline_ends_a_turn_on_both_sides() {
    let mut gateway = Gateway::start();
    let cloud = gateway.client();
    // Connected first, so that the deadline is spent waiting for the answer.
    ask(&cloud, turn("t0", "hello", &[])).await.unwrap();
    let mut late = turn("t1", "hang", &[]);
    late.deadline = Instant::now() + Duration::from_millis(300);
    let answer = ask(&cloud, late).await.unwrap();
    assert_eq!(error_of(&answer).code, ErrorCode::DeadlineExceeded);
    while gateway.saw().await != Seen::Cancelled {}
}

#[tokio::test]
async fn a_deadline_in_the_past_is_told_without_sending() {
    let gateway = Gateway::start();
    let cloud = gateway.client();
    let mut late = turn("t1", "hello", &[]);
    late.deadline = Instant::now();
    assert!(matches!(cloud.turn(late).await, Err(CloudError::Deadline)));
}

#[tokio::test]
async fn draining_ends_what_runs_and_refuses_what_is_new() {
    let mut gateway = Gateway::start();
    let cloud = gateway.client();
    let running = cloud.turn(turn("t1", "hang", &[])).await.unwrap();
    gateway.began("hang").await;
    gateway.shutdown.cancel();
    let refused = ask(&cloud, turn("t2", "hello", &[])).await.unwrap();
    assert_eq!(error_of(&refused).code, ErrorCode::Draining);
    drop(running);
    gateway.stopped().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_off_and_the_client_notices() {
    let mut gateway = Gateway::with(ServerLimits { drain_timeout: Duration::ZERO, ..ServerLimits::default() });
    let stream = gateway.client().turn(turn("t1", "hang", &[])).await.unwrap();
    gateway.began("hang").await;
    gateway.shutdown.cancel();
    assert_eq!(events(stream).await, []);
    gateway.stopped().await;
}

#[tokio::test]
async fn a_rating_reaches_the_handler_and_its_reply_the_client() {
    let gateway = Gateway::start();
    let cloud = gateway.client();
    let rate = |id: &str, rating| cloud.feedback(Feedback { turn_id: TurnId::new(id).unwrap(), rating });
    assert_eq!(rate("known", 0.5).await.unwrap(), FeedbackReply::Recorded);
    assert_eq!(rate("other", 1.0).await.unwrap(), FeedbackReply::UnknownTurn);
}

#[tokio::test]
async fn two_hundred_ratings_at_once_all_get_their_reply() {
    let gateway = Gateway::start();
    let cloud = Arc::new(gateway.client());
    let mut ratings = JoinSet::new();
    for n in 0..200 {
        let (cloud, turn_id) = (cloud.clone(), TurnId::new(format!("t{n}")).unwrap());
        ratings.spawn(async move { cloud.feedback(Feedback { turn_id, rating: 1.0 }).await.unwrap() });
    }
    assert_eq!(ratings.join_all().await, vec![FeedbackReply::UnknownTurn; 200]);
}

#[tokio::test]
async fn the_link_is_unknown_before_and_measured_after_a_turn() {
    let gateway = Gateway::start();
    let cloud = gateway.client();
    assert!(matches!(cloud.link(), Reading::Unknown { .. }));
    ask(&cloud, turn("t1", "hello", &[])).await.unwrap();
    let link = *cloud.link().value().unwrap();
    assert_ne!(link.state, LinkState::Down);
    assert!(link.rtt_ms.is_some_and(|rtt| rtt > 0.0) && link.uplink_bits_per_s.is_none(), "a few bytes tell no rate");
    ask(&cloud, turn("t2", "look", &[&[1; 50_000]])).await.unwrap();
    assert!(cloud.link().value().unwrap().uplink_bits_per_s.is_some_and(|rate| rate > 0.0));
}
