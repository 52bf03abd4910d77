//! How many bytes a turn puts on the network: what its streams carry, what QUIC adds, and what follows the upload.
//! Learned from the turns before it, on the same connection. Pure.

/// Of each datagram that carries a stream: header, connection id and packet number (11), the stream frame's own header (7),
/// the seal (16). What is left over or missing is learned.
const DATAGRAM_OVERHEAD: u64 = 34;
/// QUIC starts with this payload, and finds out how much more passes.
pub const LEAST_MTU: u16 = 1_200;
/// A datagram that only acknowledges; one for every other that arrives.
const ACKNOWLEDGEMENT_BYTES: f64 = 40.0;
/// Acknowledgements of a short answer, and a probe: measured on loopback, 300 to 700.
const FIRST_TAIL_BYTES: f64 = 400.0;
/// A token travels in a frame, and often a datagram, of its own.
const FIRST_TOKEN_BYTES: f64 = 64.0;
/// Share of the newest turn in what is learned.
const WEIGHT: f64 = 0.25;
/// The newest turn moves the expansion by at most this: losses in one turn say little about the next.
const MAX_STEP: f64 = 0.04;
/// Bodies of HTTP: JSON around the text, and pictures in base64.
const HTTP_OVERHEAD_BYTES: u64 = 512;
const HTTP_TOKEN_BYTES: u64 = 200;

/// How a turn travels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire {
    Quic { model: QuicModel, mtu: u16 },
    Http,
}

impl Wire {
    /// Bytes that go up with a turn of `text_bytes` of request and these pictures.
    pub fn uplink_bytes(&self, text_bytes: u64, picture_bytes: u64) -> u64 {
        match self {
            Wire::Quic { model, mtu } => model.uplink_bytes(text_bytes + picture_bytes, *mtu),
            Wire::Http => text_bytes + picture_bytes.div_ceil(3) * 4 + HTTP_OVERHEAD_BYTES,
        }
    }

    /// Bytes that come down with an answer of `tokens` to an upload of `uplink_bytes`.
    pub fn downlink_bytes(&self, tokens: u32, uplink_bytes: u64) -> u64 {
        match self {
            Wire::Quic { model, mtu } => model.downlink_bytes(tokens, uplink_bytes, *mtu),
            Wire::Http => u64::from(tokens) * HTTP_TOKEN_BYTES + HTTP_OVERHEAD_BYTES,
        }
    }
}

/// A turn that had the connection to itself, measured: UDP payload, but for `stream_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Travelled {
    /// Of the request and the pictures, with their frames.
    pub stream_bytes: u64,
    /// Sent until all of that was acknowledged.
    pub upload_bytes: u64,
    /// Sent until the answer's end.
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
    /// Of the answer.
    pub tokens: u32,
    pub mtu: u16,
}

/// What a connection's turns have taught.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuicModel {
    /// What an upload sent over what it should have: retransmissions, probes, acknowledgements meanwhile.
    expansion: f64,
    /// Sent after the upload, until the answer's end.
    tail_bytes: f64,
    /// What an answer's token costs on the way down.
    token_bytes: f64,
    /// Nothing was learned yet.
    fresh: bool,
}

impl Default for QuicModel {
    fn default() -> Self {
        Self { expansion: 1.0, tail_bytes: FIRST_TAIL_BYTES, token_bytes: FIRST_TOKEN_BYTES, fresh: true }
    }
}

impl QuicModel {
    pub fn uplink_bytes(&self, stream_bytes: u64, mtu: u16) -> u64 {
        (ideal(stream_bytes, mtu) as f64 * self.expansion + self.tail_bytes).round() as u64
    }

    pub fn downlink_bytes(&self, tokens: u32, uplink_bytes: u64, mtu: u16) -> u64 {
        (f64::from(tokens) * self.token_bytes + acknowledgements(uplink_bytes, mtu)).round() as u64
    }

    pub fn learn(&mut self, turn: &Travelled) {
        let Travelled { stream_bytes, upload_bytes, uplink_bytes, downlink_bytes, tokens, mtu } = *turn;
        if stream_bytes == 0 || upload_bytes < stream_bytes || uplink_bytes < upload_bytes {
            return;
        }
        let expansion = upload_bytes as f64 / ideal(stream_bytes, mtu) as f64;
        let tail = (uplink_bytes - upload_bytes) as f64;
        let fresh = std::mem::take(&mut self.fresh);
        let weight = if fresh { 1.0 } else { WEIGHT };
        // A short request's expansion is mostly probes and acknowledgements that a long one has as few of.
        let meant = (stream_bytes as f64 / f64::from(mtu.max(LEAST_MTU)) / 8.0).min(1.0);
        self.expansion += meant * weight * (expansion - self.expansion).clamp(-MAX_STEP, MAX_STEP);
        self.tail_bytes += weight * (tail - self.tail_bytes);
        if tokens > 0 {
            let answer = (downlink_bytes as f64 - acknowledgements(uplink_bytes, mtu)).max(0.0);
            self.token_bytes += weight * (answer / f64::from(tokens) - self.token_bytes);
        }
    }
}

/// Without losses, full datagrams but for the last.
fn ideal(stream_bytes: u64, mtu: u16) -> u64 {
    let room = u64::from(mtu.max(LEAST_MTU)) - DATAGRAM_OVERHEAD;
    stream_bytes + stream_bytes.div_ceil(room) * DATAGRAM_OVERHEAD
}

fn acknowledgements(bytes: u64, mtu: u16) -> f64 {
    bytes as f64 / f64::from(mtu.max(LEAST_MTU)) / 2.0 * ACKNOWLEDGEMENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A network that adds 3 % and then 900 bytes, and 70 bytes for each token.
    fn travelled(stream_bytes: u64) -> Travelled {
        let upload_bytes = (ideal(stream_bytes, 1_452) as f64 * 1.03) as u64;
        let uplink_bytes = upload_bytes + 900;
        let downlink_bytes = 70 * 50 + acknowledgements(uplink_bytes, 1_452) as u64;
        Travelled { stream_bytes, upload_bytes, uplink_bytes, downlink_bytes, tokens: 50, mtu: 1_452 }
    }

    fn error(model: &QuicModel, turn: &Travelled) -> f64 {
        (model.uplink_bytes(turn.stream_bytes, turn.mtu) as f64 / turn.uplink_bytes as f64 - 1.0).abs()
    }

    #[test]
    fn what_the_connection_adds_is_learned_for_every_size() {
        let mut model = QuicModel::default();
        assert!(error(&model, &travelled(20_000)) > 0.04);
        for bytes in [30_000, 60_000, 20_000, 90_000, 40_000] {
            model.learn(&travelled(bytes));
        }
        for bytes in [15_000, 50_000, 400_000] {
            assert!(error(&model, &travelled(bytes)) < 0.01, "{bytes}: {model:?}");
        }
        let down = model.downlink_bytes(100, 50_000, 1_452);
        assert!(down.abs_diff(7_000 + 689) < 20, "{down}");
    }

    #[test]
    fn one_bad_turn_moves_it_little_and_nonsense_not_at_all() {
        let mut model = QuicModel::default();
        (0..20).for_each(|_| model.learn(&travelled(50_000)));
        let before = model;
        let bad = travelled(50_000);
        model.learn(&Travelled { upload_bytes: bad.upload_bytes * 2, uplink_bytes: bad.upload_bytes * 2 + 900, ..bad });
        assert!(error(&model, &bad) < 0.02, "{model:?}");
        model = before;
        model.learn(&Travelled::default());
        model.learn(&Travelled { stream_bytes: 10, ..Travelled::default() });
        assert_eq!(model, before);
    }

    #[test]
    fn pictures_grow_by_a_third_over_http() {
        assert_eq!(Wire::Http.uplink_bytes(1_000, 3_000), 5_512);
        assert!(Wire::Http.downlink_bytes(10, 5_512) >= 2_000);
    }

    proptest! {
        #[test]
        fn predictions_grow_with_what_is_sent(
            turns in prop::collection::vec((1u64..1 << 24, 1.0f64..3.0, 0u64..100_000, 0u32..5_000), 0..20),
            bytes in 0u64..1 << 24,
            mtu in 0u16..9_000,
        ) {
            let mut model = QuicModel::default();
            for (stream_bytes, factor, tail, tokens) in turns {
                let upload_bytes = (stream_bytes as f64 * factor) as u64;
                let uplink_bytes = upload_bytes + tail;
                model.learn(&Travelled { stream_bytes, upload_bytes, uplink_bytes, downlink_bytes: tail, tokens, mtu });
            }
            let predicted = model.uplink_bytes(bytes, mtu);
            prop_assert!(predicted >= bytes / 2 && predicted <= bytes * 4 + 200_000, "{} for {}", predicted, bytes);
            prop_assert!(model.uplink_bytes(bytes + 1_000, mtu) > predicted);
        }
    }
}
