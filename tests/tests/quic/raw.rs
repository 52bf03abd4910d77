//! A client that speaks QUIC but not always `tether/1`.

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use tether_protocol::wire::*;
use tether_tests::quic::*;

/// Greets, unless told not to; everything else is the test's business.
pub(crate) struct RawClient {
    pub(crate) connection: Connection,
    pub(crate) control: Option<(SendStream, RecvStream)>,
    // Closes its connections when dropped.
    _endpoint: Endpoint,
}

impl RawClient {
    pub(crate) async fn connect(gateway: &Gateway, alpn: &[u8]) -> Result<Self, quinn::ConnectionError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(gateway.file("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(TransportConfig::default()));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint.connect_with(config, gateway.address, "localhost").unwrap().await?;
        Ok(Self { connection, control: None, _endpoint: endpoint })
    }

    pub(crate) async fn greeted(gateway: &Gateway) -> Self {
        let mut client = Self::connect(gateway, ALPN).await.unwrap();
        let token = std::fs::read_to_string(gateway.file("robot.token")).unwrap();
        let token = Some(Token::new(token.trim()).unwrap());
        let (mut send, mut receive) = client.connection.open_bi().await.unwrap();
        let hello = Frame::Hello(Hello { software: "raw".into(), token });
        send.write_all(&hello.encode().unwrap()).await.unwrap();
        let welcome = next(&mut receive, StreamKind::ControlToClient).await;
        assert!(matches!(welcome, Some(Frame::Welcome(Welcome { ref client, .. })) if client == "robot"));
        client.control = Some((send, receive));
        client
    }

    /// Sends these bytes on a stream of a turn and returns what comes back first.
    pub(crate) async fn turn(&self, bytes: &[u8]) -> Option<Frame> {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        next(&mut receive, StreamKind::TurnToClient).await
    }

    /// Sends an image's stream.
    pub(crate) async fn image(&self, turn_id: &str, index: u8, content: &[u8]) -> SendStream {
        let turn_id = tether_protocol::TurnId::new(turn_id).unwrap();
        let mut send = self.connection.open_uni().await.unwrap();
        send.write_all(&Frame::Image(ImageStart { turn_id, index }).encode().unwrap()).await.unwrap();
        send.write_all(content).await.unwrap();
        send.finish().unwrap();
        send
    }

    pub(crate) async fn closed_with(&self) -> u32 {
        match tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap() {
            quinn::ConnectionError::ApplicationClosed(close) => u64::from(close.error_code) as u32,
            other => panic!("closed otherwise: {other}"),
        }
    }
}

/// The next frame of a stream; `None` at its end.
pub(crate) async fn next(receive: &mut RecvStream, kind: StreamKind) -> Option<Frame> {
    let mut buffer = FrameBuffer::new(kind);
    loop {
        if let Some(frame) = buffer.next_frame().unwrap() {
            return Some(frame);
        }
        let read = tokio::time::timeout(PATIENCE, receive.read_chunk(1, true)).await.unwrap();
        buffer.push(&read.ok()??.bytes);
    }
}

pub(crate) fn request(turn: tether::cloud::CloudTurn) -> Vec<u8> {
    Frame::Turn(Box::new(turn.request)).encode().unwrap()
}

pub(crate) fn error_code(frame: Option<Frame>) -> ErrorCode {
    match frame {
        Some(Frame::Event(TurnEvent::Error(error))) => error.code,
        other => panic!("expected an error, got {other:?}"),
    }
}

#[tokio::test]
async fn another_alpn_is_refused_by_the_handshake() {
    let gateway = Gateway::start();
    let refused = RawClient::connect(&gateway, b"tether/2").await.err().unwrap();
    assert!(refused.to_string().contains("protocol"), "{refused}");
}

#[tokio::test]
async fn the_first_frame_must_be_a_greeting() {
    let gateway = Gateway::start();
    for first in [Frame::Ping(1).encode().unwrap(), vec![0x7e, 0], request(turn("t1", "hello", &[]))] {
        let client = RawClient::connect(&gateway, ALPN).await.unwrap();
        let (mut send, mut receive) = client.connection.open_bi().await.unwrap();
        send.write_all(&first).await.unwrap();
        assert_eq!(error_code(next(&mut receive, StreamKind::ControlToClient).await), ErrorCode::BadRequest);
        assert_eq!(client.closed_with().await, close::PROTOCOL);
    }
}

#[tokio::test]
async fn a_stranger_can_open_no_turn() {
    let gateway = Gateway::start();
    let client = RawClient::connect(&gateway, ALPN).await.unwrap();
    let (_control, _) = client.connection.open_bi().await.unwrap();
    // QUIC itself gives no second stream before the greeting, and no image's stream.
    let no_turn = tokio::time::timeout(std::time::Duration::from_millis(200), client.connection.open_bi()).await;
    assert!(no_turn.is_err());
    let no_image = tokio::time::timeout(std::time::Duration::from_millis(200), client.connection.open_uni()).await;
    assert!(no_image.is_err());
}

#[tokio::test]
async fn garbage_on_the_control_stream_ends_the_connection() {
    let gateway = Gateway::start();
    let hello = Frame::Hello(Hello { software: "again".into(), token: None }).encode().unwrap();
    for garbage in [hello, vec![0x7e, 0], vec![0x02, 0xbf, 0xff, 0xff, 0xff]] {
        let mut client = RawClient::greeted(&gateway).await;
        client.control.as_mut().unwrap().0.write_all(&garbage).await.unwrap();
        assert_eq!(client.closed_with().await, close::PROTOCOL);
    }
}

#[tokio::test]
async fn garbage_on_a_turns_stream_fails_only_that_turn() {
    let gateway = Gateway::start();
    let client = RawClient::greeted(&gateway).await;
    let good = request(turn("t1", "hello", &[]));
    let mut trailing = good.clone();
    trailing.extend(Frame::Ping(1).encode().unwrap());
    let twice = [good.clone(), good.clone()].concat();
    let oversize = vec![0x10, 0xbf, 0xff, 0xff, 0xff];
    let cut = good[..good.len() - 1].to_vec();
    for bytes in [vec![], vec![0x7e, 0], oversize, cut, trailing, twice] {
        assert_eq!(error_code(client.turn(&bytes).await), ErrorCode::BadRequest);
    }
    let answer = client.turn(&good).await;
    assert!(matches!(answer, Some(Frame::Event(TurnEvent::Accepted(_)))), "{answer:?}");
}

#[tokio::test]
async fn unknown_odd_frames_and_probes_are_taken() {
    let gateway = Gateway::start();
    let mut client = RawClient::greeted(&gateway).await;
    let (send, receive) = client.control.as_mut().unwrap();
    send.write_all(&[0x21, 2, 1, 2]).await.unwrap();
    send.write_all(&Frame::Ping(77).encode().unwrap()).await.unwrap();
    assert_eq!(next(receive, StreamKind::ControlToClient).await, Some(Frame::Pong(77)));
}

#[tokio::test]
async fn images_that_are_not_as_announced_fail_their_turn() {
    let mut gateway = Gateway::start();
    let client = RawClient::greeted(&gateway).await;
    let two = |id: &str| request(turn(id, "look", &[b"1234", b"5678"]));
    type Images = &'static [(u8, &'static [u8])];
    let cases: [(&str, Images, &str); 4] = [
        ("short", &[(0, b"123"), (1, b"5678")], "announced"),
        ("long", &[(0, b"12345"), (1, b"5678")], "announced"),
        ("twice", &[(0, b"1234"), (0, b"1234")], "twice"),
        ("unannounced", &[(2, b"1234")], "not announced"),
    ];
    for (id, images, expected) in cases {
        let (mut send, _receive) = client.connection.open_bi().await.unwrap();
        send.write_all(&two(id)).await.unwrap();
        send.finish().unwrap();
        gateway.began("look").await;
        for (index, content) in images {
            client.image(id, *index, content).await;
        }
        match gateway.saw().await {
            Seen::Images(Err(error)) => assert!(error.message.contains(expected), "{id}: {}", error.message),
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn images_may_come_before_their_turn() {
    let mut gateway = Gateway::start();
    let client = RawClient::greeted(&gateway).await;
    client.image("t1", 1, b"5678").await;
    client.image("t1", 0, b"1234").await;
    let answer = client.turn(&request(turn("t1", "look", &[b"1234", b"5678"]))).await;
    assert!(matches!(answer, Some(Frame::Event(TurnEvent::Accepted(_)))), "{answer:?}");
    gateway.began("look").await;
    assert_eq!(gateway.saw().await, Seen::Images(Ok(vec![(&b"1234"[..]).into(), (&b"5678"[..]).into()])));
}

#[tokio::test]
async fn a_turn_id_is_used_once_and_late_images_are_turned_away() {
    let gateway = Gateway::start();
    let client = RawClient::greeted(&gateway).await;
    let bytes = request(turn("t1", "drop", &[]));
    assert_eq!(error_code(client.turn(&bytes).await), ErrorCode::Internal);
    assert_eq!(error_code(client.turn(&bytes).await), ErrorCode::BadRequest);
    let late = client.image("t1", 0, &[0; 10_000]).await;
    let stopped = tokio::time::timeout(PATIENCE, late.stopped()).await.unwrap().unwrap();
    assert!(stopped.is_none_or(|code| code == quinn::VarInt::from_u32(close::CANCELLED)));
}
