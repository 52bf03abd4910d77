//! The hexadecimal blocks of docs/PROTOCOL.md, held against the code in both directions.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::collections::BTreeMap;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::*;
use tether_protocol::{TurnId, ViewName};

const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

/// The blocks that begin with "```hex NAME".
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let parts = PAGE.split("```hex ").skip(1);
    let block = |part: &'static str| {
        let (name, rest) = part.split_once('\n').unwrap();
        let hex = rest.split("```").next().unwrap();
        let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        (name, bytes)
    };
    parts.map(block).collect()
}

fn turn() -> TurnRequest {
    let view = ViewName::new("front").unwrap();
    let text = |text: &str| Part::Text(text.into());
    TurnRequest {
        turn_id: TurnId::new("t1").unwrap(),
        model: None,
        deadline_ms: Some(4_000),
        sampling: Sampling {
            max_tokens: Some(64),
            temperature: Some(0.5),
            seed: Some(7),
            stop: vec!["\n".into()],
            ..Sampling::default()
        },
        messages: vec![
            Message { role: Role::System, parts: vec![text("Be brief.")] },
            Message { role: Role::User, parts: vec![text("Is the stove off?"), Part::Image(0)] },
        ],
        images: vec![ImageHeader { view, format: ImageFormat::Jpeg, width: 640, height: 480, byte_count: 3 }],
    }
}

fn examples() -> Vec<(&'static str, StreamKind, Frame)> {
    use StreamKind::*;
    let t1 = || TurnId::new("t1").unwrap();
    let token = Some(Token::new("tether_demo").unwrap());
    let done = Done {
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 21, completion_tokens: 6 },
        usage_estimated: false,
        cost_usd: 0.25,
        dropped_messages: 0,
        queue_ms: 2,
    };
    let error = WireError { code: ErrorCode::Overloaded, message: "queue full".into(), retry_after_ms: Some(250) };
    let accepted = Accepted { model: "smollm2".into(), vision: Vision::Measured };
    let welcome = Welcome { software: "tether-cloud/0.1.0".into(), client: "robot".into(), max_turn_bytes: 16 << 20 };
    vec![
        ("hello", ControlToServer, Frame::Hello(Hello { software: "tether/0.1.0".into(), token })),
        ("welcome", ControlToClient, Frame::Welcome(welcome)),
        ("ping", ControlToServer, Frame::Ping(1)),
        ("pong", ControlToClient, Frame::Pong(1)),
        ("padding", ControlToServer, Frame::Padding(3)),
        ("feedback", ControlToServer, Frame::Feedback(Feedback { turn_id: t1(), rating: 0.75 })),
        ("feedback-reply", ControlToClient, Frame::FeedbackReply(t1(), FeedbackReply::Recorded)),
        ("turn", TurnToServer, Frame::Turn(Box::new(turn()))),
        ("image", ImageToServer, Frame::Image(ImageStart { turn_id: t1(), index: 0 })),
        ("accepted", TurnToClient, Frame::Event(TurnEvent::Accepted(accepted))),
        ("text", TurnToClient, Frame::Event(TurnEvent::Text("Yes, it is off.".into()))),
        ("done", TurnToClient, Frame::Event(TurnEvent::Done(done))),
        ("error", TurnToClient, Frame::Event(TurnEvent::Error(error))),
    ]
}

#[test]
fn the_page_and_the_code_agree_on_every_byte() {
    let mut blocks = blocks();
    for (name, kind, frame) in examples() {
        let written = blocks.remove(name).unwrap_or_else(|| panic!("PROTOCOL.md has no block {name}"));
        assert_eq!(frame.encode().unwrap(), written, "{name}");
        let mut buffer = FrameBuffer::new(kind);
        buffer.push(&written);
        assert_eq!(buffer.next_frame(), Ok(Some(frame)), "{name}");
        assert!(buffer.is_empty());
    }
    assert!(blocks.is_empty(), "blocks without a test: {:?}", blocks.keys());
}

#[test]
fn the_pages_limits_are_the_codes() {
    for (limit, shown) in [
        (MAX_TURN_FRAME_BYTES, "| 0x10 | `TURN` | 1310720 |"),
        (MAX_TEXT_FRAME_BYTES, "| 0x22 | `TEXT` | 65536 |"),
        (MAX_CONTROL_BYTES, "| 0x02 | `HELLO` | 4096 |"),
    ] {
        assert!(shown.contains(&limit.to_string()) && PAGE.contains(shown), "{shown}");
    }
}
