//! The codec against generated messages: round trips, truncation, and each limit from both sides.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use proptest::prelude::*;
use tether_protocol::limits::*;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::*;
use tether_protocol::{TurnId, ViewName};

fn any_name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}"
}

fn any_turn_id() -> impl Strategy<Value = TurnId> {
    any_name().prop_map(|name| TurnId::new(name).unwrap())
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let float = || prop::option::of(0.0f32..1e6);
    (
        prop::option::of(0..=MAX_ANSWER_TOKENS),
        (float(), float(), float(), float()),
        prop::option::of(any::<u32>()),
        prop::option::of(any::<u64>()),
        prop::collection::vec(".{0,60}", 0..=MAX_STOP_STRINGS),
    )
        .prop_map(|(max_tokens, floats, top_k, seed, stop)| Sampling {
            max_tokens,
            temperature: floats.0,
            top_p: floats.1,
            top_k,
            min_p: floats.2,
            repetition_penalty: floats.3,
            seed,
            stop,
        })
}

fn any_image() -> impl Strategy<Value = ImageHeader> {
    let format = prop_oneof![Just(ImageFormat::Jpeg), Just(ImageFormat::Png)];
    (any_name(), format, 1u32..=4000, 1u32..=6000, 1..=MAX_IMAGE_BYTES as u32).prop_map(
        |(view, format, width, height, byte_count)| ImageHeader {
            view: ViewName::new(view).unwrap(),
            format,
            width,
            height,
            byte_count,
        },
    )
}

fn any_message(images: u8) -> impl Strategy<Value = Message> {
    let part = if images == 0 {
        ".{0,200}".prop_map(Part::Text).boxed()
    } else {
        prop_oneof![".{0,200}".prop_map(Part::Text), (0..images).prop_map(Part::Image)].boxed()
    };
    let role = prop_oneof![Just(Role::System), Just(Role::User), Just(Role::Assistant)];
    (role, prop::collection::vec(part, 0..5)).prop_map(|(role, parts)| Message { role, parts })
}

fn any_request() -> impl Strategy<Value = TurnRequest> {
    prop::collection::vec(any_image(), 0..=MAX_IMAGES).prop_flat_map(|images| {
        let messages = prop::collection::vec(any_message(images.len() as u8), 1..6);
        let deadline = prop::option::of(0..=MAX_DEADLINE_MS as u32);
        let model = prop::option::of(".{0,16}");
        (any_turn_id(), model, deadline, any_sampling(), messages, Just(images)).prop_map(
            |(turn_id, model, deadline_ms, sampling, messages, images)| TurnRequest {
                turn_id,
                model,
                deadline_ms,
                sampling,
                messages,
                images,
            },
        )
    })
}

fn any_event() -> impl Strategy<Value = TurnEvent> {
    let vision = prop_oneof![Just(Vision::None), Just(Vision::Measured), Just(Vision::Native)];
    let finish = prop_oneof![Just(FinishReason::Stop), Just(FinishReason::Length)];
    let usage = (any::<u32>(), any::<u32>())
        .prop_map(|(prompt_tokens, completion_tokens)| Usage { prompt_tokens, completion_tokens });
    prop_oneof![
        (".{0,16}", vision).prop_map(|(model, vision)| TurnEvent::Accepted(Accepted { model, vision })),
        ".{0,2000}".prop_map(TurnEvent::Text),
        (finish, usage, 0.0f64..1e9, any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
            |(finish_reason, usage, cost_usd, dropped_messages, queue_ms, usage_estimated)| {
                TurnEvent::Done(Done { finish_reason, usage, usage_estimated, cost_usd, dropped_messages, queue_ms })
            }
        ),
        (0u64..10, ".{0,250}", prop::option::of(any::<u32>())).prop_map(|(code, message, retry_after_ms)| {
            TurnEvent::Error(WireError { code: ErrorCode::from_number(code), message, retry_after_ms })
        }),
    ]
}

/// A frame, and a kind of stream on which it may stand.
fn any_frame() -> impl Strategy<Value = (StreamKind, Frame)> {
    use StreamKind::*;
    let token = prop::option::of("[!-~]{1,100}".prop_map(|token| Token::new(token).unwrap()));
    let reply =
        prop_oneof![Just(FeedbackReply::Recorded), Just(FeedbackReply::Unsupported), Just(FeedbackReply::UnknownTurn)];
    prop_oneof![
        (".{0,16}", token).prop_map(|(software, token)| (ControlToServer, Frame::Hello(Hello { software, token }))),
        (".{0,16}", ".{0,16}", 0u64..1 << 40).prop_map(|(software, client, max_turn_bytes)| {
            (ControlToClient, Frame::Welcome(Welcome { software, client, max_turn_bytes }))
        }),
        any::<u32>().prop_map(|count| (ControlToServer, Frame::Ping(count))),
        any::<u32>().prop_map(|count| (ControlToClient, Frame::Pong(count))),
        (0..=MAX_CONTROL_BYTES as u16).prop_map(|bytes| (ControlToServer, Frame::Padding(bytes))),
        (any_turn_id(), 0.0f32..=1.0)
            .prop_map(|(turn_id, rating)| (ControlToServer, Frame::Feedback(Feedback { turn_id, rating }))),
        (any_turn_id(), reply).prop_map(|(turn_id, reply)| (ControlToClient, Frame::FeedbackReply(turn_id, reply))),
        any_request().prop_map(|request| (TurnToServer, Frame::Turn(Box::new(request)))),
        (any_turn_id(), 0..MAX_IMAGES as u8)
            .prop_map(|(turn_id, index)| (ImageToServer, Frame::Image(ImageStart { turn_id, index }))),
        any_event().prop_map(|event| (TurnToClient, Frame::Event(event))),
    ]
}

fn decode(kind: StreamKind, bytes: &[u8]) -> Result<Option<Frame>, CodecError> {
    let mut buffer = FrameBuffer::new(kind);
    buffer.push(bytes);
    buffer.next_frame()
}

/// Puts another payload into the frame that `frame` encodes to: type and length are made to fit.
fn with_payload(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![frame_type];
    put_varint(&mut bytes, payload.len() as u64);
    bytes.extend(payload);
    bytes
}

fn payload_of(encoded: &[u8]) -> &[u8] {
    let (_, length_bytes) = get_varint(&encoded[1..]).unwrap().unwrap();
    &encoded[1 + length_bytes..]
}

proptest! {
    #[test]
    fn every_frame_round_trips((kind, frame) in any_frame()) {
        let encoded = frame.encode().unwrap();
        if let Frame::Turn(request) = &frame {
            prop_assert_eq!(request.frame_bytes(), encoded.len());
        }
        prop_assert_eq!(decode(kind, &encoded), Ok(Some(frame)));
    }

    #[test]
    fn a_truncated_stream_never_gives_a_frame((kind, frame) in any_frame(), cut in any::<prop::sample::Index>()) {
        let encoded = frame.encode().unwrap();
        prop_assert_eq!(decode(kind, &encoded[..cut.index(encoded.len())]), Ok(None));
    }

    #[test]
    fn a_truncated_or_prolonged_payload_is_an_error((kind, frame) in any_frame(), cut in any::<prop::sample::Index>()) {
        // A TEXT frame is nothing but text; any of its prefixes at a character is legal. PADDING means nothing at any length.
        prop_assume!(!matches!(frame, Frame::Event(TurnEvent::Text(_)) | Frame::Padding(_)));
        let encoded = frame.encode().unwrap();
        let payload = payload_of(&encoded);
        let short = with_payload(encoded[0], &payload[..cut.index(payload.len())]);
        prop_assert!(decode(kind, &short).is_err());
        let long = with_payload(encoded[0], &[payload, &[0]].concat());
        prop_assert!(decode(kind, &long).is_err());
    }

    #[test]
    fn a_frame_is_refused_where_it_does_not_belong((kind, frame) in any_frame(), other in 0usize..5) {
        let other = StreamKind::ALL[other];
        let shared = matches!(frame, Frame::Event(TurnEvent::Error(_))) && other == StreamKind::ControlToClient;
        prop_assume!(other != kind && !shared);
        let refused = decode(other, &frame.encode().unwrap());
        prop_assert!(matches!(refused, Err(CodecError::MisplacedFrame { .. })), "{:?}", refused);
    }
}

fn request() -> TurnRequest {
    let part = Part::Text("Is the stove off?".into());
    TurnRequest {
        turn_id: TurnId::new("t1").unwrap(),
        model: None,
        deadline_ms: None,
        sampling: Sampling::default(),
        messages: vec![Message { role: Role::User, parts: vec![part] }],
        images: Vec::new(),
    }
}

fn image(byte_count: usize, width: u32, height: u32) -> ImageHeader {
    let view = ViewName::new("front").unwrap();
    ImageHeader { view, format: ImageFormat::Jpeg, width, height, byte_count: byte_count as u32 }
}

/// `build(n)` must cross the wire at `limit` and be refused, by name, one above it.
fn at_the_limit(what: &str, limit: usize, build: impl Fn(usize) -> TurnRequest) {
    let at = Frame::Turn(Box::new(build(limit)));
    assert_eq!(decode(StreamKind::TurnToServer, &at.encode().unwrap()), Ok(Some(at)), "{what}");
    let above = Frame::Turn(Box::new(build(limit + 1))).encode().unwrap_err();
    assert!(matches!(above, CodecError::TooLarge { what: named, .. } if named == what), "{what}: {above}");
}

#[test]
fn every_limit_of_a_turn_is_exact() {
    let text = |bytes: usize| Part::Text("x".repeat(bytes));
    let message = |parts: Vec<Part>| Message { role: Role::User, parts };
    at_the_limit("model", MAX_NAME_BYTES, |n| TurnRequest { model: Some("m".repeat(n)), ..request() });
    at_the_limit("deadline_ms", MAX_DEADLINE_MS as usize, |n| TurnRequest { deadline_ms: Some(n as u32), ..request() });
    at_the_limit("max_tokens", MAX_ANSWER_TOKENS as usize, |n| {
        let sampling = Sampling { max_tokens: Some(n as u32), ..Sampling::default() };
        TurnRequest { sampling, ..request() }
    });
    at_the_limit("stop strings", MAX_STOP_STRINGS, |n| {
        let sampling = Sampling { stop: vec!["s".into(); n], ..Sampling::default() };
        TurnRequest { sampling, ..request() }
    });
    at_the_limit("stop", MAX_STOP_BYTES, |n| {
        let sampling = Sampling { stop: vec!["s".repeat(n)], ..Sampling::default() };
        TurnRequest { sampling, ..request() }
    });
    at_the_limit("images", MAX_IMAGES, |n| TurnRequest { images: vec![image(9, 2, 2); n], ..request() });
    at_the_limit("image bytes", MAX_IMAGE_BYTES, |n| TurnRequest { images: vec![image(n, 2, 2)], ..request() });
    at_the_limit("image pixels", MAX_IMAGE_PIXELS as usize, |n| TurnRequest {
        images: vec![image(9, n as u32, 1)],
        ..request()
    });
    at_the_limit("messages", MAX_MESSAGES, |n| TurnRequest { messages: vec![message(vec![]); n], ..request() });
    at_the_limit("parts of a message", MAX_PARTS, |n| TurnRequest {
        messages: vec![message(vec![text(1); n])],
        ..request()
    });
    at_the_limit("text of all messages", MAX_TEXT_BYTES, |n| TurnRequest {
        messages: vec![message(vec![text(n / 2)]), message(vec![text(n - n / 2)])],
        ..request()
    });
}

#[test]
fn the_largest_legal_turn_fits_its_frame() {
    let parts = |total: usize| (0..MAX_PARTS).map(|_| Part::Text("x".repeat(total / MAX_PARTS))).collect();
    let per_message = MAX_TEXT_BYTES / MAX_MESSAGES;
    let messages = vec![Message { role: Role::User, parts: parts(per_message) }; MAX_MESSAGES];
    let name = "n".repeat(MAX_NAME_BYTES);
    let view = ViewName::new(name.clone()).unwrap();
    let largest = TurnRequest {
        turn_id: TurnId::new(name.clone()).unwrap(),
        model: Some(name),
        deadline_ms: Some(MAX_DEADLINE_MS as u32),
        sampling: Sampling { stop: vec!["s".repeat(MAX_STOP_BYTES); MAX_STOP_STRINGS], ..Sampling::default() },
        messages,
        images: vec![ImageHeader { view, ..image(MAX_IMAGE_BYTES, 6000, 4000) }; MAX_IMAGES],
    };
    let frame = Frame::Turn(Box::new(largest));
    assert_eq!(decode(StreamKind::TurnToServer, &frame.encode().unwrap()), Ok(Some(frame)));
}

#[test]
fn values_that_no_turn_may_have_are_refused_by_name() {
    let sampling = |temperature: f32| Sampling { temperature: Some(temperature), ..Sampling::default() };
    let unannounced = Message { role: Role::User, parts: vec![Part::Image(0)] };
    for (what, bad) in [
        ("temperature", TurnRequest { sampling: sampling(f32::NAN), ..request() }),
        ("temperature", TurnRequest { sampling: sampling(-0.1), ..request() }),
        ("messages", TurnRequest { messages: vec![], ..request() }),
        ("image part", TurnRequest { messages: vec![unannounced], ..request() }),
        ("image", TurnRequest { images: vec![image(0, 2, 2)], ..request() }),
        ("image", TurnRequest { images: vec![image(9, 0, 2)], ..request() }),
    ] {
        let error = Frame::Turn(Box::new(bad)).encode().unwrap_err();
        assert!(matches!(error, CodecError::Invalid { what: named, .. } if named == what), "{what}: {error}");
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_before_its_payload_comes() {
    for (kind, frame_type, limit) in [
        (StreamKind::ControlToServer, 0x02, MAX_CONTROL_BYTES),
        (StreamKind::TurnToServer, 0x10, MAX_TURN_FRAME_BYTES),
        (StreamKind::TurnToClient, 0x22, MAX_TEXT_FRAME_BYTES),
        (StreamKind::TurnToClient, 0x77, MAX_CONTROL_BYTES),
    ] {
        let header = |length: usize| {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, frame_type);
            put_varint(&mut bytes, length as u64);
            bytes
        };
        assert_eq!(decode(kind, &header(limit)), Ok(None));
        assert!(matches!(decode(kind, &header(limit + 1)), Err(CodecError::TooLarge { what: "frame", .. })));
    }
}

#[test]
fn unknown_odd_frames_are_skipped_up_to_a_limit_and_even_ones_refused() {
    let skipped = with_payload(0x21, b"later");
    let text = Frame::Event(TurnEvent::Text("hello".into()));
    let mut stream = skipped.repeat(MAX_SKIPPED_FRAMES);
    stream.extend(text.encode().unwrap());
    assert_eq!(decode(StreamKind::TurnToClient, &stream), Ok(Some(text)));
    let flood = skipped.repeat(MAX_SKIPPED_FRAMES + 1);
    assert!(matches!(decode(StreamKind::TurnToClient, &flood), Err(CodecError::TooLarge { .. })));
    let must = with_payload(0x2e, b"");
    assert_eq!(decode(StreamKind::TurnToClient, &must), Err(CodecError::UnknownFrame { frame_type: 0x2e }));
}

#[test]
fn text_must_be_utf8_and_a_token_is_never_printed() {
    assert_eq!(
        decode(StreamKind::TurnToClient, &with_payload(0x22, &[0xff])),
        Err(CodecError::NotUtf8 { what: "text" })
    );
    let hello = Hello { software: "tether/1".into(), token: Some(Token::new("secret").unwrap()) };
    assert!(!format!("{hello:?}").contains("secret"));
    assert!(Token::new("t".repeat(MAX_TOKEN_BYTES)).is_ok());
    assert!(Token::new("t".repeat(MAX_TOKEN_BYTES + 1)).is_err());
}

#[test]
fn an_errors_message_is_cut_rather_than_lost() {
    let error = WireError::new(ErrorCode::Internal, "é".repeat(MAX_ERROR_BYTES));
    let sent = Frame::Event(TurnEvent::Error(error)).encode().unwrap();
    let Ok(Some(Frame::Event(TurnEvent::Error(got)))) = decode(StreamKind::TurnToClient, &sent) else { panic!() };
    assert_eq!(got.message, "é".repeat(MAX_ERROR_BYTES / 2));
}
