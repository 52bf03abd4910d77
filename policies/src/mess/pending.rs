//! Turns that were routed and can still be rated: bounded in number and in age.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use tether_protocol::limits::{MAX_PENDING_RATINGS, MAX_RATING_AGE_MS};

/// One model asked for one turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) model: u32,
    /// The probability with which it was asked.
    pub(super) propensity: f64,
    /// Its answer is the one that was returned.
    pub(super) served: bool,
    /// It was asked whatever the features said, so its label measures a mean.
    pub(super) blind: bool,
    pub(super) answered: bool,
    pub(super) rated: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) tenant: String,
    /// Features and a final 1.
    pub(super) x: Vec<f32>,
    pub(super) asked: Vec<Asked>,
    routed_ms: i64,
}

impl Pending {
    pub(super) fn new(tenant: &str, x: Vec<f32>, asked: Vec<Asked>, routed_ms: i64) -> Self {
        Self { tenant: tenant.to_owned(), x, asked, routed_ms }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct PendingTurns {
    turns: HashMap<String, Pending>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl PendingTurns {
    /// False if a turn of this id is already here.
    pub(super) fn insert(&mut self, turn: &str, pending: Pending) -> bool {
        if self.turns.contains_key(turn) {
            return false;
        }
        self.expire(pending.routed_ms);
        while self.turns.len() >= MAX_PENDING_RATINGS {
            self.drop_oldest();
        }
        self.order.push_back(turn.to_owned());
        self.turns.insert(turn.to_owned(), pending);
        true
    }

    pub(super) fn contains(&self, turn: &str) -> bool {
        self.turns.contains_key(turn)
    }

    pub(super) fn get(&self, turn: &str) -> Option<&Pending> {
        self.turns.get(turn)
    }

    /// The turn, unless it is too old at `now_ms`.
    pub(super) fn get_mut(&mut self, turn: &str, now_ms: i64) -> Option<&mut Pending> {
        self.expire(now_ms);
        self.turns.get_mut(turn)
    }

    pub(super) fn remove(&mut self, turn: &str) -> Option<Pending> {
        let pending = self.turns.remove(turn)?;
        // The newest are withdrawn, as a rule.
        if let Some(place) = self.order.iter().rposition(|known| known == turn) {
            self.order.remove(place);
        }
        Some(pending)
    }

    /// Takes the turns out; their order stays.
    pub(super) fn take_all(&mut self) -> HashMap<String, Pending> {
        std::mem::take(&mut self.turns)
    }

    /// Puts them back; one that is missing leaves the order too.
    pub(super) fn put_all(&mut self, turns: BTreeMap<String, Pending>) {
        self.turns = turns.into_iter().collect();
        self.order.retain(|turn| self.turns.contains_key(turn));
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    fn expire(&mut self, now_ms: i64) {
        let old = |turn: &String, turns: &HashMap<String, Pending>| {
            turns.get(turn).is_none_or(|p| now_ms.saturating_sub(p.routed_ms) > MAX_RATING_AGE_MS)
        };
        while self.order.front().is_some_and(|turn| old(turn, &self.turns)) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(turn) = self.order.pop_front() {
            self.turns.remove(&turn);
        }
    }

    pub(super) fn is_sound(&self, width: usize) -> bool {
        let finite = |p: &Pending| p.x.len() == width + 1 && p.x.iter().all(|x| x.is_finite());
        self.turns.len() <= MAX_PENDING_RATINGS
            && self.turns.len() == self.order.len()
            && self.order.iter().all(|turn| self.turns.contains_key(turn))
            && self.turns.values().all(finite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(routed_ms: i64) -> Pending {
        Pending::new("t", vec![1.0], vec![], routed_ms)
    }

    #[test]
    fn holds_exactly_the_limit_and_drops_the_oldest() {
        let mut turns = PendingTurns::default();
        (0..=MAX_PENDING_RATINGS).for_each(|i| assert!(turns.insert(&i.to_string(), pending(0))));
        assert_eq!(turns.len(), MAX_PENDING_RATINGS);
        assert!(!turns.contains("0") && turns.contains("1"));
    }

    #[test]
    fn a_turn_can_be_rated_for_a_day_and_not_a_millisecond_longer() {
        let mut turns = PendingTurns::default();
        turns.insert("a", pending(5));
        assert!(turns.get_mut("a", 5 + MAX_RATING_AGE_MS).is_some());
        assert!(turns.get_mut("a", 6 + MAX_RATING_AGE_MS).is_none());
    }
}
