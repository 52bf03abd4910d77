//! Whose bytes are a connection's datagrams? What quinn's UDP counters grow by (headers, acknowledgements,
//! retransmissions and probes included) is divided among the turns that are under way, by what their streams carried
//! meanwhile, equally where they carried nothing. What crosses while no turn is under way is nobody's.

use crate::cloud::ByteCount;
use std::sync::Arc;

/// The two counters of a connection, bytes of UDP payload: sent, received.
pub(super) type Counters = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Shares {
    divided: Counters,
    turns: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    bytes: Arc<ByteCount>,
    /// Of its streams, at the last division.
    divided: Counters,
    /// No other turn has been under way beside it.
    alone: bool,
}

impl Shares {
    pub(super) fn begin(&mut self, counters: Counters, bytes: Arc<ByteCount>) {
        self.divide(counters);
        let divided = (bytes.uplink_bytes(), bytes.downlink_bytes());
        self.turns.iter_mut().for_each(|turn| turn.alone = false);
        let alone = self.turns.is_empty();
        self.turns.push(Turn { bytes, divided, alone });
    }

    /// Whether all that crossed since this turn began is its own.
    pub(super) fn is_alone(&self, bytes: &Arc<ByteCount>) -> bool {
        self.turns.iter().any(|turn| turn.alone && Arc::ptr_eq(&turn.bytes, bytes))
    }

    pub(super) fn end(&mut self, counters: Counters, bytes: &Arc<ByteCount>) {
        self.divide(counters);
        self.turns.retain(|turn| !Arc::ptr_eq(&turn.bytes, bytes));
    }

    /// Divides the growth since the last division.
    pub(super) fn divide(&mut self, counters: Counters) {
        let grown = (counters.0.saturating_sub(self.divided.0), counters.1.saturating_sub(self.divided.1));
        self.divided = counters;
        let carried = |turn: &mut Turn| {
            let now = (turn.bytes.uplink_bytes(), turn.bytes.downlink_bytes());
            let before = std::mem::replace(&mut turn.divided, now);
            (now.0 - before.0, now.1 - before.1)
        };
        let carried: Vec<Counters> = self.turns.iter_mut().map(carried).collect();
        let up = portions(grown.0, carried.iter().map(|carried| carried.0).collect());
        let down = portions(grown.1, carried.iter().map(|carried| carried.1).collect());
        for ((turn, up), down) in self.turns.iter().zip(up).zip(down) {
            turn.bytes.add_share((up, down));
        }
    }
}

/// `total` in parts as `weights` say, equal ones if all are zero. The parts' sum is exactly the total.
fn portions(total: u64, weights: Vec<u64>) -> Vec<u64> {
    let all: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let (weights, all) = if all == 0 { (vec![1; weights.len()], weights.len() as u128) } else { (weights, all) };
    let (mut sum, mut given) = (0u128, 0u64);
    let part = |weight| {
        sum += u128::from(weight);
        // At most `total`, because the running sum is at most `all`.
        let upto = (u128::from(total) * sum / all) as u64;
        upto - std::mem::replace(&mut given, upto)
    };
    weights.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_bear_what_they_cause_and_nobody_the_rest() {
        let (mut shares, a, b) = (Shares::default(), Arc::new(ByteCount::default()), Arc::new(ByteCount::default()));
        shares.begin((5_000, 4_000), a.clone());
        assert!(a.take_uplink(900));
        assert!(shares.is_alone(&a));
        shares.begin((6_000, 4_100), b.clone());
        assert!(!shares.is_alone(&a) && !shares.is_alone(&b));
        assert_eq!((a.travelled(), b.travelled()), ((1_000, 100), (0, 0)));
        assert!(a.take_uplink(100));
        assert!(b.take_uplink(300));
        shares.divide((6_800, 4_200));
        assert_eq!((a.travelled(), b.travelled()), ((1_200, 150), (600, 50)));
        shares.end((6_800, 4_200), &a);
        shares.end((7_000, 4_200), &b);
        shares.divide((9_000, 9_000));
        assert_eq!((a.travelled(), b.travelled()), ((1_200, 150), (800, 50)));
    }

    #[test]
    fn a_stream_that_is_ahead_of_the_datagrams_counts() {
        let (mut shares, a) = (Shares::default(), Arc::new(ByteCount::default()));
        shares.begin((0, 0), a.clone());
        assert!(a.take_uplink(10_000));
        shares.divide((1_200, 0));
        assert_eq!(a.travelled().0, 10_000);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_dividing(total in 0u64..u64::MAX, weights in prop::collection::vec(0u64..u64::MAX / 8, 1..8)) {
            let parts = portions(total, weights.clone());
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(total));
            prop_assert_eq!(parts.len(), weights.len());
        }
    }
}
