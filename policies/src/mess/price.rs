//! The shadow price of satisfaction: what one more satisfied answer is worth, in the unit of cost.
//!
//! With a price of `lambda`, each request takes the model of least `cost - lambda x satisfaction`. The price is the
//! lowest at which this rule would have reached the target over the recent requests, by what was predicted for them.

use super::model::Tally;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What one model was predicted to give one request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Forecast {
    pub(super) satisfaction: f64,
    /// `None` while the model was never asked.
    pub(super) cost: Option<f64>,
}

/// The forecasts of recent requests, one per model of the zoo in the ladder's order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    rows: VecDeque<Vec<Forecast>>,
}

/// Doublings and halvings of the unit of cost between which the price is searched.
const SEARCH: f64 = 40.0;
const STEPS: usize = 28;

impl Recent {
    pub(super) fn push(&mut self, row: Vec<Forecast>, limit: usize) {
        while self.rows.len() >= limit.max(1) {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    pub(super) fn is_sound(&self, models: usize) -> bool {
        let finite = |f: &Forecast| f.satisfaction.is_finite() && f.cost.is_none_or(f64::is_finite);
        self.rows.iter().all(|row| row.len() == models && row.iter().all(finite))
    }

    /// The mean over recent requests of the best satisfaction that any of `usable` was predicted to give.
    pub(super) fn reachable(&self, usable: &[usize]) -> f64 {
        let best = |row: &Vec<Forecast>| usable.iter().map(|&m| row[m].satisfaction).fold(0.0, f64::max);
        let mut tally = Tally::default();
        self.rows.iter().for_each(|row| tally.add(best(row)));
        tally.mean().unwrap_or(0.0)
    }

    /// The lowest price at which the rule reaches `target` over the recent requests; very high where it cannot.
    /// `unit` is the order of magnitude of one request's cost.
    pub(super) fn shadow_price(&self, usable: &[usize], target: f64, unit: f64) -> f64 {
        let (mut low, mut high) = (-SEARCH, SEARCH);
        for _ in 0..STEPS {
            let middle = (low + high) / 2.0;
            if self.satisfaction_at(usable, unit * middle.exp2()) < target { low = middle } else { high = middle }
        }
        unit * high.exp2()
    }

    fn satisfaction_at(&self, usable: &[usize], price: f64) -> f64 {
        let chosen = |row: &Vec<Forecast>| {
            let worth = |m: usize| row[m].cost.map_or(f64::INFINITY, |cost| cost - price * row[m].satisfaction);
            let best = usable.iter().copied().min_by(|&a, &b| worth(a).total_cmp(&worth(b)));
            best.map_or(0.0, |m| row[m].satisfaction)
        };
        self.rows.iter().map(chosen).sum::<f64>() / self.rows.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten requests; model 1 costs ten times as much and satisfies more, by a tenth more on each next request.
    fn recent() -> Recent {
        let mut recent = Recent::default();
        for i in 0..10 {
            let cheap = Forecast { satisfaction: 0.9 - 0.05 * f64::from(i), cost: Some(1.0) };
            recent.push(vec![cheap, Forecast { satisfaction: 0.95, cost: Some(10.0) }], 10);
        }
        recent
    }

    #[test]
    fn reaches_the_target_and_no_more_than_one_request_beyond_it() {
        let recent = recent();
        for target in [0.70, 0.75, 0.85, 0.94] {
            let price = recent.shadow_price(&[0, 1], target, 1.0);
            assert!(recent.satisfaction_at(&[0, 1], price) >= target);
            assert!(recent.satisfaction_at(&[0, 1], price * 0.999) < target + 0.05);
        }
    }

    #[test]
    fn the_price_is_nothing_below_what_the_cheapest_gives_and_high_where_nothing_reaches() {
        let recent = recent();
        assert!(recent.shadow_price(&[0, 1], 0.5, 1.0) < 1e-9);
        assert!(recent.shadow_price(&[0, 1], 0.99, 1.0) > 1e9);
        assert!((recent.reachable(&[0, 1]) - 0.95).abs() < 1e-12);
    }

    #[test]
    fn keeps_the_newest() {
        let mut recent = recent();
        recent.push(vec![Forecast { satisfaction: 1.0, cost: None }; 2], 3);
        assert_eq!(recent.len(), 3);
    }
}
