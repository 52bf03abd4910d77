//! The fuzz targets on any toolchain: random bytes, and valid frames with a few bytes changed. `protocol/fuzz` drives
//! the same functions with libFuzzer for as long as you like.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::time::{Duration, Instant};
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

/// Cases of one round, which takes well under a second.
const ROUND: u32 = 2_000;

/// One round, or as many as begin within `TETHER_FUZZ_SECONDS`, each with another seed.
fn fuzz<S: Strategy>(name: &'static str, strategy: &S, check: impl Fn(S::Value)) {
    let seconds = std::env::var("TETHER_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(0)));
    let mut rounds = 0;
    while rounds == 0 || begun.elapsed() < limit {
        let config = ProptestConfig { test_name: Some(name), source_file: Some(file!()), ..ProptestConfig::default() };
        let mut runner = TestRunner::new(ProptestConfig { cases: ROUND, ..config });
        let run = runner.run(strategy, |value| {
            check(value);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{error}"));
        rounds += 1;
    }
    println!("{name}: {} cases in {:.1} s", rounds * ROUND, begun.elapsed().as_secs_f64());
}

#[test]
fn random_bytes() {
    fuzz("random_bytes", &prop::collection::vec(any::<u8>(), 0..512), |bytes| all(&bytes));
}

#[test]
fn damaged_frames() {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    fuzz("damaged_frames", &(0usize..5, changes, any::<prop::sample::Index>()), |(seed, changes, cut)| {
        let mut bytes = seeds().swap_remove(seed);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(1 + cut.index(bytes.len()));
        all(&bytes);
    });
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
