//! Format, dimensions and completeness, from the file's structure alone. Decoders paint the missing part of a
//! truncated JPEG grey; here it is an error, found by walking the markers to the end.

use super::{ImageError, ImageInfo, check_size};
use tether_protocol::limits::MAX_IMAGE_BYTES;
use tether_protocol::wire::ImageFormat;

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_MAGIC: &[u8] = &[0xFF, 0xD8, 0xFF];

/// Reads format and dimensions and checks every limit, without decoding. Linear in the bytes, no allocation.
pub fn probe(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    if bytes.len() > MAX_IMAGE_BYTES {
        return Err(ImageError::TooManyBytes { given: bytes.len() });
    }
    let (format, size) = if bytes.starts_with(PNG_MAGIC) {
        (ImageFormat::Png, png_size(bytes))
    } else if bytes.starts_with(JPEG_MAGIC) {
        (ImageFormat::Jpeg, jpeg_size(bytes))
    } else {
        return Err(ImageError::WrongMagic { begins: begins(bytes) });
    };
    let (width, height) = size?;
    Ok(ImageInfo { format, width, height })
}

fn begins(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing (no bytes)".into();
    }
    let hex: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}

/// Walks the chunks (length, type, data, checksum) to `IEND`.
fn png_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let cut = |missing| ImageError::Truncated { format: ImageFormat::Png, missing };
    let header = bytes.get(8..24).ok_or_else(|| cut("the header chunk (IHDR) is incomplete"))?;
    if &header[..8] != b"\0\0\0\x0dIHDR" {
        let problem = "it does not begin with a header chunk (IHDR)".into();
        return Err(ImageError::Damaged { format: ImageFormat::Png, problem });
    }
    let (width, height) = (be32(&header[8..]), be32(&header[12..]));
    // Before the walk: a bomb is named as such even where it is cut short.
    check_size(width, height)?;
    let mut at = 8;
    loop {
        let chunk = bytes.get(at..at + 8).ok_or_else(|| cut("the end chunk (IEND) is missing"))?;
        at += 12 + be32(chunk) as usize;
        if at > bytes.len() {
            return Err(cut("a chunk goes beyond the end"));
        }
        if &chunk[4..] == b"IEND" {
            return Ok((width, height));
        }
    }
}

/// Walks the segments and the entropy-coded data behind each scan header to the end-of-image marker.
fn jpeg_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let cut = |missing| ImageError::Truncated { format: ImageFormat::Jpeg, missing };
    let damaged = |problem: &str| ImageError::Damaged { format: ImageFormat::Jpeg, problem: problem.into() };
    let mut size = None;
    let mut at = 2;
    loop {
        let (marker, after) = next_marker(bytes, at).ok_or_else(|| cut("the end-of-image marker is missing"))?;
        at = after;
        match marker {
            0xD9 => return size.ok_or_else(|| damaged("it has no frame header")),
            // Restart markers and TEM stand alone.
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let length = bytes.get(at..at + 2).map(be16).ok_or_else(|| cut("a segment is incomplete"))?;
        let segment = bytes.get(at..at + length).ok_or_else(|| cut("a segment goes beyond the end"))?;
        if length < 2 {
            return Err(damaged("a segment has no length"));
        }
        // SOF0 to SOF15 without DHT, JPG and DAC, which share the range.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            let frame = segment.get(..7).ok_or_else(|| damaged("its frame header is too short"))?;
            let (height, width) = (be16(&frame[3..]) as u32, be16(&frame[5..]) as u32);
            check_size(width, height)?;
            size = Some((width, height));
        }
        at += length;
    }
}

/// The next marker at or behind `from`, and the place behind it. `FF 00` is a stuffed data byte, `FF FF` is filling.
fn next_marker(bytes: &[u8], from: usize) -> Option<(u8, usize)> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)? + 1;
        match *bytes.get(at)? {
            0x00 => at += 1,
            0xFF => {}
            marker => return Some((marker, at + 1)),
        }
    }
}

fn be16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
