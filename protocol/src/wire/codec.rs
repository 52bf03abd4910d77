//! The primitives: QUIC's variable-length integers (RFC 9000, section 16), byte strings, IEEE floats. Reading is
//! total: any input gives a value or a [`CodecError`], and nothing is allocated before its length is checked.

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{what}: the bytes end too early")]
    Truncated { what: &'static str },
    #[error("{what}: {given} is above the limit of {limit}")]
    TooLarge { what: &'static str, given: u64, limit: u64 },
    #[error("{what}: not UTF-8")]
    NotUtf8 { what: &'static str },
    #[error("{what}: {problem}")]
    Invalid { what: &'static str, problem: String },
    #[error("an integer is not in its shortest form")]
    NotShortest,
    #[error("{bytes} bytes follow the end of the message")]
    Trailing { bytes: usize },
    #[error("frame type {frame_type:#x} is unknown and must be understood")]
    UnknownFrame { frame_type: u64 },
    #[error("frame type {frame_type:#x} does not belong on this stream")]
    MisplacedFrame { frame_type: u64 },
    #[error("extension {key:#x} is unknown and must be understood")]
    UnknownExtension { key: u64 },
}

impl CodecError {
    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { what, problem: problem.into() }
    }
}

/// Fails if `given` is above `limit`.
pub(crate) fn at_most(what: &'static str, given: u64, limit: u64) -> Result<(), CodecError> {
    if given <= limit { Ok(()) } else { Err(CodecError::TooLarge { what, given, limit }) }
}

/// Fails if there are more than `limit` bytes or things.
pub(crate) fn fits(what: &'static str, given: usize, limit: usize) -> Result<(), CodecError> {
    at_most(what, given as u64, limit as u64)
}

/// The largest number that a varint holds.
pub const MAX_VARINT: u64 = (1 << 62) - 1;

/// Appends a varint: the two highest bits of the first byte tell the length, 1, 2, 4 or 8 bytes; big-endian.
///
/// # Panics
/// Above [`MAX_VARINT`]; every number on the wire is checked against a smaller limit first, or is a `u32`.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        0x4000_0000..=MAX_VARINT => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
        _ => panic!("{value} does not fit a varint"),
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// No extension is defined yet; a later version appends pairs of (key, bytes) here.
pub(crate) fn put_no_extensions(out: &mut Vec<u8>) {
    put_varint(out, 0);
}

/// Reads a varint at the start of `bytes`: the value and its length, or `None` if bytes are missing.
///
/// # Errors
/// [`CodecError::NotShortest`]: one number has one form.
pub fn get_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, CodecError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let length = 1usize << (first >> 6);
    let Some(encoded) = bytes.get(..length) else { return Ok(None) };
    let value = encoded[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    let shortest = match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    };
    if length == shortest { Ok(Some((value, length))) } else { Err(CodecError::NotShortest) }
}

/// Takes a payload apart.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    fn take(&mut self, what: &'static str, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CodecError::Truncated { what })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::invalid(what, format!("{other} is neither 0 nor 1"))),
        }
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let (value, length) = get_varint(self.0)?.ok_or(CodecError::Truncated { what })?;
        self.0 = &self.0[length..];
        Ok(value)
    }

    /// A number that is at most `limit`.
    pub(crate) fn number(&mut self, what: &'static str, limit: u64) -> Result<u64, CodecError> {
        let given = self.varint(what)?;
        at_most(what, given, limit)?;
        Ok(given)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        Ok(self.number(what, u64::from(u32::MAX))? as u32)
    }

    /// Eight bytes, for numbers that a varint cannot hold.
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// A count of things that take at least one byte each, so that no memory is reserved for things that cannot come.
    pub(crate) fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, CodecError> {
        let count = self.number(what, limit as u64)? as usize;
        if count <= self.0.len() { Ok(count) } else { Err(CodecError::Truncated { what }) }
    }

    pub(crate) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], CodecError> {
        let length = self.number(what, limit as u64)? as usize;
        self.take(what, length)
    }

    pub(crate) fn string(&mut self, what: &'static str, limit: usize) -> Result<String, CodecError> {
        let text = std::str::from_utf8(self.bytes(what, limit)?).map_err(|_| CodecError::NotUtf8 { what })?;
        Ok(text.to_owned())
    }

    pub(crate) fn rest_as_string(&mut self, what: &'static str) -> Result<String, CodecError> {
        let rest = std::mem::take(&mut self.0);
        std::str::from_utf8(rest).map(str::to_owned).map_err(|_| CodecError::NotUtf8 { what })
    }

    pub(crate) fn f32(&mut self, what: &'static str) -> Result<f32, CodecError> {
        Ok(f32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn f64(&mut self, what: &'static str) -> Result<f64, CodecError> {
        Ok(f64::from_be_bytes(self.array(what)?))
    }

    /// Skips what a newer peer adds: an odd key may be ignored, an even one must be understood.
    pub(crate) fn extensions(&mut self) -> Result<(), CodecError> {
        for _ in 0..self.count("extensions", super::MAX_EXTENSIONS)? {
            let key = self.varint("extension key")?;
            self.bytes("extension", super::MAX_EXTENSION_BYTES)?;
            if key % 2 == 0 {
                return Err(CodecError::UnknownExtension { key });
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Trailing { bytes: self.0.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_varints_of_rfc_9000() {
        for (value, hex) in [
            (37, vec![0x25]),
            (15_293, vec![0x7b, 0xbd]),
            (494_878_333, vec![0x9d, 0x7f, 0x3e, 0x7d]),
            (151_288_809_941_952_652, vec![0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, hex);
            assert_eq!(get_varint(&out), Ok(Some((value, out.len()))));
        }
        // RFC 9000 also lets 37 be 0x4025; here one number has one form.
        assert_eq!(get_varint(&[0x40, 0x25]), Err(CodecError::NotShortest));
        assert_eq!(get_varint(&[0x40]), Ok(None));
    }

    #[test]
    fn a_count_beyond_the_bytes_that_follow_reserves_nothing() {
        let mut payload = Vec::new();
        put_varint(&mut payload, 500);
        assert_eq!(Reader::new(&payload).count("things", 512), Err(CodecError::Truncated { what: "things" }));
    }

    #[test]
    fn odd_extensions_are_skipped_and_even_ones_refused() {
        let odd = [1, 7, 2, b'h', b'i'];
        let mut reader = Reader::new(&odd);
        assert_eq!(reader.extensions(), Ok(()));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(Reader::new(&[1, 8, 0]).extensions(), Err(CodecError::UnknownExtension { key: 8 }));
    }
}
