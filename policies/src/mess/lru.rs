//! A map of bounded size that forgets what was used longest ago.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Lru<T> {
    limit: usize,
    clock: u64,
    entries: HashMap<String, (u64, T)>,
    /// Last use -> key; rebuilt from `entries` when a snapshot is loaded.
    #[serde(skip)]
    order: BTreeMap<u64, String>,
}

impl<T> Lru<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), clock: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The value without counting as a use.
    pub(super) fn peek_mut(&mut self, key: &str) -> Option<&mut T> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> T) -> &mut T {
        self.clock += 1;
        let now = self.clock;
        if let Some((used, _)) = self.entries.get(key) {
            self.order.remove(used);
        } else if self.entries.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.order.insert(now, key.to_owned());
        let entry = self.entries.entry(key.to_owned()).or_insert_with(|| (now, make()));
        entry.0 = now;
        &mut entry.1
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut().map(|(_, value)| value)
    }

    pub(super) fn retune(&mut self, mut change: impl FnMut(&str, &mut T)) {
        self.entries.iter_mut().for_each(|(key, (_, value))| change(key, value));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.entries.iter().map(|(key, (_, value))| (key.as_str(), value))
    }

    /// Takes all out, each with its last use.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (String, (u64, T))> + use<T> {
        self.order.clear();
        std::mem::take(&mut self.entries).into_iter()
    }

    /// Puts back what [`Lru::take_all`] took; the order is rebuilt afterwards.
    pub(super) fn put(&mut self, key: String, entry: (u64, T)) {
        self.entries.insert(key, entry);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn rebuild_order(&mut self) {
        self.order = self.entries.iter().map(|(key, (used, _))| (*used, key.clone())).collect();
        self.clock = self.order.keys().next_back().copied().unwrap_or(0).max(self.clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_longest_unused_and_nothing_else() {
        let mut lru = Lru::new(2);
        *lru.get_or_insert_with("a", || 0) += 1;
        lru.get_or_insert_with("b", || 0);
        *lru.get_or_insert_with("a", || 0) += 1;
        lru.get_or_insert_with("c", || 0);
        assert_eq!((lru.get("a"), lru.get("b"), lru.get("c"), lru.len()), (Some(&2), None, Some(&0), 2));
    }

    #[test]
    fn the_order_survives_a_snapshot() {
        let mut lru = Lru::new(2);
        lru.get_or_insert_with("old", || 0);
        lru.get_or_insert_with("new", || 0);
        let mut loaded: Lru<i32> = serde_json::from_str(&serde_json::to_string(&lru).unwrap()).unwrap();
        loaded.rebuild_order();
        loaded.get_or_insert_with("newer", || 0);
        assert!(loaded.get("old").is_none() && loaded.get("new").is_some());
    }
}
