//! The fuzz targets on any toolchain: random bytes, and valid frames with a few bytes changed. `protocol/fuzz` drives
//! the same functions with libFuzzer for as long as you like.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use proptest::prelude::*;
use tether_protocol::wire::*;
use tether_protocol::{TurnId, ViewName};

/// One valid stream of each kind, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let turn_id = TurnId::new("0198f2b4").unwrap();
    let view = ViewName::new("front").unwrap();
    let image = ImageHeader { view, format: ImageFormat::Png, width: 640, height: 480, byte_count: 9_000 };
    let parts = vec![Part::Text("What is on the table?".into()), Part::Image(0)];
    let request = TurnRequest {
        turn_id: turn_id.clone(),
        model: Some("small".into()),
        deadline_ms: Some(4_000),
        sampling: Sampling { temperature: Some(0.2), seed: Some(7), stop: vec!["\n".into()], ..Sampling::default() },
        messages: vec![Message { role: Role::User, parts }],
        images: vec![image],
    };
    let hello = Hello { software: "tether/0.1.0".into(), token: Some(Token::new("token").unwrap()) };
    let welcome = Welcome { software: "tether-cloud/0.1.0".into(), client: "robot".into(), max_turn_bytes: 1 << 24 };
    let error = WireError { code: ErrorCode::Overloaded, message: "full".into(), retry_after_ms: Some(250) };
    let streams = [
        vec![Frame::Hello(hello), Frame::Ping(1), Frame::Feedback(Feedback { turn_id: turn_id.clone(), rating: 0.5 })],
        vec![Frame::Welcome(welcome), Frame::Pong(1), Frame::FeedbackReply(turn_id.clone(), FeedbackReply::Recorded)],
        vec![Frame::Turn(Box::new(request))],
        vec![
            Frame::Event(TurnEvent::Accepted(Accepted { model: "small".into(), vision: Vision::Measured })),
            Frame::Event(TurnEvent::Text("A red mug.".into())),
            Frame::Event(TurnEvent::Error(error)),
        ],
        vec![Frame::Image(ImageStart { turn_id, index: 0 })],
    ];
    let encode = |frames: &Vec<Frame>| frames.iter().flat_map(|frame| frame.encode().unwrap()).collect();
    streams.iter().map(encode).collect()
}

fn all(bytes: &[u8]) {
    StreamKind::ALL.iter().for_each(|kind| fuzzing::stream(*kind, bytes));
    fuzzing::varint(bytes);
}

/// A second's worth, or as many as asked for.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        all(&bytes);
    }

    #[test]
    fn damaged_frames(
        seed in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(1 + cut.index(bytes.len()));
        all(&bytes);
    }
}

#[test]
fn the_seeds_are_valid_and_pass() {
    for (kind, bytes) in StreamKind::ALL.into_iter().zip(seeds()) {
        let mut buffer = FrameBuffer::new(kind);
        buffer.push(&bytes);
        assert!(buffer.next_frame().unwrap().is_some());
        all(&bytes);
    }
}
