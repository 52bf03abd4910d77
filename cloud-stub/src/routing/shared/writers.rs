//! The last record of each writer: what makes a record that was written twice count once.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Gateways remembered. Each start of one is a new writer; one that has been silent for so many others' starts is over.
const MAX_WRITERS: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Writers {
    /// Counts records of all.
    clock: u64,
    /// Writer -> its last number, and the clock then.
    last: BTreeMap<String, (u64, u64)>,
}

impl Writers {
    /// Whether this record has not been here yet; it has been now.
    pub(super) fn is_next(&mut self, writer: &str, number: u64) -> bool {
        if number <= self.last(writer) {
            return false;
        }
        self.clock += 1;
        if !self.last.contains_key(writer) && self.last.len() >= MAX_WRITERS {
            let silent = self.last.iter().min_by_key(|(_, (_, clock))| *clock).map(|(name, _)| name.clone());
            silent.and_then(|name| self.last.remove(&name));
        }
        self.last.insert(writer.to_owned(), (number, self.clock));
        true
    }

    /// The number of a writer's last record; 0 before its first.
    pub(super) fn last(&self, writer: &str) -> u64 {
        self.last.get(writer).map_or(0, |(number, _)| *number)
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once_however_often_it_is_written() {
        let mut writers = Writers::default();
        // An append of three failed half-way and was made again.
        let taken: Vec<bool> = [1, 2, 1, 2, 3, 3].iter().map(|&number| writers.is_next("a", number)).collect();
        assert_eq!(taken, [true, true, false, false, true, false]);
        assert!(writers.is_next("b", 1), "another writer counts for itself");
    }

    #[test]
    fn holds_exactly_the_limit_and_forgets_the_longest_silent() {
        let mut writers = Writers::default();
        (0..MAX_WRITERS).for_each(|n| assert!(writers.is_next(&n.to_string(), 1)));
        assert!(writers.is_next("0", 2), "the oldest has spoken again");
        assert!(writers.is_next("new", 1));
        assert_eq!((writers.len(), writers.last("0"), writers.last("1")), (MAX_WRITERS, 2, 0));
    }
}
