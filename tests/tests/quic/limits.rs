//! The listener's limits, each from both sides.

use crate::raw::{RawClient, error_code, next, request};
use std::time::Duration;
use tether::cloud::CloudError;
use tether_cloud::server::ServerLimits;
use tether_protocol::wire::*;
use tether_tests::quic::*;

#[tokio::test]
async fn the_bytes_of_a_turn_are_limited_on_both_sides() {
    let gateway = Gateway::with(ServerLimits { max_turn_bytes: 1_000, ..ServerLimits::default() });
    let cloud = gateway.client();
    // "look" and an image of 996 bytes are exactly 1,000.
    assert!(text_of(&ask(&cloud, turn("t1", "look", &[&[1; 996]])).await.unwrap()).is_some());
    let refused = ask(&cloud, turn("t2", "look", &[&[1; 997]])).await.unwrap_err();
    assert!(matches!(&refused, CloudError::Refused(error) if error.message.contains("1000")), "{refused}");
    let client = RawClient::greeted(&gateway).await;
    let answer = client.turn(&request(turn("t3", "look", &[&[1; 997]]))).await;
    assert_eq!(error_code(answer), ErrorCode::BadRequest);
}

#[tokio::test]
async fn images_held_at_once_are_limited() {
    let mut gateway = Gateway::with(ServerLimits { max_held_bytes: 2 * 1024, ..ServerLimits::default() });
    let client = RawClient::greeted(&gateway).await;
    let kib = [1; 1024];
    let (mut send, _receive) = client.connection.open_bi().await.unwrap();
    send.write_all(&request(turn("t1", "hang", &[&kib]))).await.unwrap();
    send.finish().unwrap();
    gateway.began("hang").await;
    let answer = client.turn(&request(turn("t2", "look", &[&kib, &[1]]))).await;
    assert_eq!(error_code(answer), ErrorCode::Overloaded);
    let answer = client.turn(&request(turn("t3", "look", &[&kib]))).await;
    assert!(matches!(answer, Some(Frame::Event(TurnEvent::Accepted(_)))), "{answer:?}");
}

#[tokio::test]
async fn one_connection_has_so_many_turns_and_the_next_waits() {
    let mut gateway = Gateway::with(ServerLimits { max_turns: 2, ..ServerLimits::default() });
    let cloud = gateway.client();
    let first = cloud.turn(turn("t1", "hang", &[])).await.unwrap();
    let _second = cloud.turn(turn("t2", "hang", &[])).await.unwrap();
    gateway.began("hang").await;
    gateway.began("hang").await;
    let third = ask(&cloud, turn("t3", "hello", &[]));
    tokio::pin!(third);
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
    assert!(waits.is_err(), "a third turn ran beside two");
    drop(first);
    assert!(text_of(&third.await.unwrap()).is_some());
}

#[tokio::test]
async fn connections_are_limited_and_free_themselves() {
    let gateway = Gateway::with(ServerLimits { max_connections: 1, ..ServerLimits::default() });
    let first = RawClient::greeted(&gateway).await;
    let client = RawClient::connect(&gateway, ALPN).await.unwrap();
    let (mut send, mut receive) = client.connection.open_bi().await.unwrap();
    let token = std::fs::read_to_string(gateway.file("robot.token")).unwrap();
    let hello = Hello { software: "second".into(), token: Some(Token::new(token.trim()).unwrap()) };
    send.write_all(&Frame::Hello(hello).encode().unwrap()).await.unwrap();
    assert_eq!(error_code(next(&mut receive, StreamKind::ControlToClient).await), ErrorCode::Overloaded);
    assert_eq!(client.closed_with().await, close::LIMIT);
    drop(first);
    let cloud = gateway.client();
    let retried = async {
        while ask(&cloud, turn("t1", "hello", &[])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, retried).await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_greets_is_dropped() {
    let limits = ServerLimits { hello_timeout: Duration::from_millis(200), ..ServerLimits::default() };
    let gateway = Gateway::with(limits);
    let client = RawClient::connect(&gateway, ALPN).await.unwrap();
    // A byte now and then does not help: the whole greeting has one limit.
    let (mut send, _receive) = client.connection.open_bi().await.unwrap();
    send.write_all(&[0x02]).await.unwrap();
    tokio::time::timeout(PATIENCE, client.connection.closed()).await.unwrap();
}

#[tokio::test]
async fn images_that_never_come_and_requests_that_never_end_are_given_up() {
    let limits = ServerLimits { image_timeout: Duration::from_millis(300), ..ServerLimits::default() };
    let mut gateway = Gateway::with(limits);
    let client = RawClient::greeted(&gateway).await;
    let (mut send, mut receive) = client.connection.open_bi().await.unwrap();
    send.write_all(&request(turn("t1", "look", &[&[1; 10]]))).await.unwrap();
    send.finish().unwrap();
    gateway.began("look").await;
    assert!(matches!(gateway.saw().await, Seen::Images(Err(error)) if error.message.contains("within")));
    assert!(matches!(next(&mut receive, StreamKind::TurnToClient).await, Some(Frame::Event(TurnEvent::Accepted(_)))));
    let (mut slow, mut answer) = client.connection.open_bi().await.unwrap();
    slow.write_all(&request(turn("t2", "look", &[]))[..5]).await.unwrap();
    assert_eq!(error_code(next(&mut answer, StreamKind::TurnToClient).await), ErrorCode::BadRequest);
}

#[tokio::test]
async fn the_gateway_holds_the_deadline_by_itself() {
    let mut gateway = Gateway::start();
    let client = RawClient::greeted(&gateway).await;
    let mut hanging = turn("t1", "hang", &[]);
    hanging.request.deadline_ms = Some(200);
    assert_eq!(error_code(client.turn(&request(hanging)).await), ErrorCode::DeadlineExceeded);
    gateway.began("hang").await;
    assert_eq!(gateway.saw().await, Seen::Cancelled);
}
