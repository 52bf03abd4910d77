//! The properties that must hold for any bytes, one function for each decoder: `protocol/fuzz` drives them with
//! libFuzzer, `tests/fuzz_decoders.rs` with mutated frames on any toolchain. Each panics when a property is broken.

use super::{CodecError, Frame, FrameBuffer, MAX_TURN_FRAME_BYTES, StreamKind, get_varint, put_varint};

/// A stream of frames: decoding never panics, does not depend on how the bytes are cut, and every frame that is
/// accepted survives encoding and decoding unchanged.
pub fn stream(kind: StreamKind, bytes: &[u8]) {
    let (whole, whole_end) = decode(kind, [bytes]);
    let cut = bytes.first().map_or(0, |first| usize::from(*first) % bytes.len());
    let (first, second) = bytes.split_at(cut);
    let (pieces, pieces_end) = decode(kind, [first, second]);
    assert_eq!(whole, pieces, "frames depend on how the bytes were cut");
    assert_eq!(whole_end, pieces_end);
    for frame in whole {
        let encoded = frame.encode().unwrap_or_else(|error| panic!("accepted {frame:?} but cannot write it: {error}"));
        assert!(encoded.len() <= MAX_TURN_FRAME_BYTES + 16);
        assert_eq!(decode(kind, [encoded.as_slice()]), (vec![frame], None));
    }
}

fn decode<const N: usize>(kind: StreamKind, pieces: [&[u8]; N]) -> (Vec<Frame>, Option<CodecError>) {
    let (mut buffer, mut frames) = (FrameBuffer::new(kind), Vec::new());
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
            // What follows an image's header is the image, not frames.
            if kind == StreamKind::ImageToServer {
                return (frames, None);
            }
        }
    }
    (frames, None)
}

/// A varint: one number has one form.
pub fn varint(bytes: &[u8]) {
    if let Ok(Some((value, length))) = get_varint(bytes) {
        let mut again = Vec::new();
        put_varint(&mut again, value);
        assert_eq!(again, bytes[..length]);
    }
}
