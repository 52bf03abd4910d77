//! What a flight, or a real log, came to: made from the ledger's records alone, in the order in which they began.

use serde::Serialize;
use std::collections::BTreeMap;
use tether_policies::budget::{Accounts, Amounts, Budget, BudgetName, counts};
use tether_protocol::record::Outcome as Ending;
use tether_protocol::{Route, TurnRecord};

/// Points of a line over time.
const POINTS: i64 = 48;

/// A moment, for plots. Shares and means are over the turns since the point before.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Point {
    pub at_h: f64,
    pub battery_percent: Option<f64>,
    /// What the device took the link for.
    pub uplink_mbps: Option<f64>,
    /// What it was, in a replay.
    pub trace_mbps: Option<f64>,
    pub uplink_bytes: u64,
    pub cost_usd: f64,
    pub energy_j: f64,
    pub cloud_share: Option<f64>,
    pub views: Option<f64>,
    pub rating: Option<f64>,
    pub reward: Option<f64>,
    /// The furthest that any budget was ahead of its line, as a share of its cap.
    pub lead: Option<f64>,
}

/// One policy over one trace with one seed; or a log.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Outcome {
    pub policy: String,
    pub trace: String,
    pub seed: u64,
    pub turns: u64,
    pub local: u64,
    pub cloud: u64,
    /// Cloud turns that failed before their first token; the local model answered.
    pub fell_back: u64,
    /// No action fitted the budgets.
    pub refused: u64,
    /// Nobody answered to the end: both sides failed, or the client went away.
    pub failed: u64,
    /// The battery was empty.
    pub unserved: u64,
    pub views: u64,
    /// Mean over all turns, those included that nobody answered; only a replay knows it.
    pub reward: Option<f64>,
    /// Mean of the ratings; in a replay over all turns, whether somebody rated them or not, and 0 where nobody answered.
    pub rating: Option<f64>,
    /// Mean over the answered turns.
    pub latency_s: Option<f64>,
    pub cost_usd: f64,
    pub energy_j: f64,
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
    /// Turns with a part of their cost not known; the sums hold the known parts.
    pub unknown_costs: u64,
    pub battery_left_percent: Option<f64>,
    /// Times that a budget's cap was passed; the promise is none.
    pub caps_exceeded: u64,
    /// The furthest that spending was ahead of its straight line, as a share of the cap; `None`: nothing is paced.
    pub overshoot: Option<f64>,
    /// Left of each budget at the end, in its resource's unit.
    pub budget_left: BTreeMap<String, f64>,
    pub points: Vec<Point>,
}

/// What a turn was worth, of which a real log knows only some ratings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    pub reward: f64,
    pub rating: f64,
}

/// A mean of what is known.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Means, of the whole or since the last point.
#[derive(Debug, Clone, Copy, Default)]
struct Means {
    reward: Mean,
    rating: Mean,
    latency_s: Mean,
    cloud: Mean,
    views: Mean,
}

/// Adds up records.
pub struct Tally {
    start_ms: i64,
    step_ms: i64,
    accounts: Accounts,
    all: Means,
    recent: Means,
    /// What the next point says besides.
    now: Point,
    outcome: Outcome,
}

impl Tally {
    /// The budgets' spending is booked anew from the records, by their measured costs.
    pub fn new(start_ms: i64, length_ms: i64, budgets: &[Budget]) -> Self {
        Self {
            start_ms,
            step_ms: (length_ms / POINTS).max(1),
            accounts: Accounts::new(budgets, &BTreeMap::new(), start_ms),
            all: Means::default(),
            recent: Means::default(),
            now: Point::default(),
            outcome: Outcome::default(),
        }
    }

    /// A new mission began.
    pub fn reset(&mut self, now_ms: i64, name: BudgetName) {
        let _ = self.accounts.reset(now_ms, name);
    }

    /// `worth` and `trace_mbps` are known to a replay alone.
    pub fn turn(&mut self, record: &TurnRecord, worth: Option<Worth>, trace_mbps: Option<f64>) {
        self.points_until(record.started_unix_ms);
        let answered = matches!(record.outcome, Ending::Answered { .. });
        let is_cloud = record.route == Route::Cloud;
        self.outcome.turns += 1;
        self.outcome.cloud += u64::from(answered && is_cloud);
        self.outcome.local += u64::from(answered && !is_cloud);
        let refused = matches!(record.outcome, Ending::Refused { .. });
        self.outcome.refused += u64::from(refused);
        self.outcome.failed += u64::from(!answered && !refused);
        self.outcome.fell_back += u64::from(record.fallback.is_some());
        self.outcome.views += record.views.len() as u64;
        self.book(record);
        let rating = worth.map_or(record.rating, |worth| Some(worth.rating));
        for means in [&mut self.all, &mut self.recent] {
            means.reward.add(worth.map(|worth| worth.reward));
            means.rating.add(rating);
            means.latency_s.add(record.timings.total_ms.filter(|_| answered).map(|ms| ms / 1e3));
            means.cloud.add(Some(f64::from(u8::from(is_cloud))));
            means.views.add(Some(record.views.len() as f64));
        }
        let battery = record.context.battery.value();
        self.now.battery_percent = battery.map(|battery| battery.percent).or(self.now.battery_percent);
        let bits_per_s = record.context.link.value().and_then(|link| link.uplink_bits_per_s);
        self.now.uplink_mbps = bits_per_s.map(|bits| bits / 1e6).or(self.now.uplink_mbps);
        self.now.trace_mbps = trace_mbps;
    }

    /// A turn that came while the battery was empty.
    pub fn unserved(&mut self, at_ms: i64, worth: Worth) {
        self.points_until(at_ms);
        self.outcome.turns += 1;
        self.outcome.unserved += 1;
        self.now.battery_percent = Some(0.0);
        for means in [&mut self.all, &mut self.recent] {
            means.reward.add(Some(worth.reward));
            means.rating.add(Some(worth.rating));
        }
    }

    fn book(&mut self, record: &TurnRecord) {
        let cost = &record.measured;
        let parts = counts(cost);
        // As the books have it: an unknown cost counts as all that was reserved.
        let reserved_usd = record.reserved.and_then(|reserved| reserved.cost_usd);
        self.outcome.cost_usd += cost.cost_usd.or(reserved_usd).unwrap_or(0.0);
        self.outcome.energy_j += cost.energy_j.unwrap_or(0.0);
        self.outcome.uplink_bytes += cost.uplink_bytes.unwrap_or(0);
        self.outcome.downlink_bytes += cost.downlink_bytes.unwrap_or(0);
        self.outcome.unknown_costs += u64::from(parts.iter().any(Option::is_none));
        if self.accounts.is_empty() {
            return;
        }
        let reserved = counts(&record.reserved.unwrap_or_default());
        let spent = std::array::from_fn(|at| parts[at].or(reserved[at]).unwrap_or(0));
        let end_ms = record.started_unix_ms + record.timings.total_ms.unwrap_or(0.0) as i64;
        let reservation = self.accounts.reserve_anyway(record.started_unix_ms, Amounts(spent));
        let _ = self.accounts.settle(end_ms, reservation, spent.map(Some));
        let is_over = |account: &tether_policies::budget::Account| account.spending.spent > account.budget.cap;
        self.outcome.caps_exceeded += u64::from(self.accounts.accounts().iter().any(is_over));
        let lead = self.accounts.accounts().iter().filter_map(|account| account.lead(end_ms, 0)).reduce(f64::max);
        let furthest = |so_far: Option<f64>| lead.map(|lead| so_far.map_or(lead, |far: f64| far.max(lead)));
        self.outcome.overshoot = furthest(self.outcome.overshoot).or(self.outcome.overshoot);
        self.now.lead = furthest(self.now.lead).or(self.now.lead);
    }

    fn points_until(&mut self, at_ms: i64) {
        while at_ms >= self.next_ms() {
            self.point();
        }
    }

    fn next_ms(&self) -> i64 {
        self.start_ms + self.step_ms * (self.outcome.points.len() as i64 + 1)
    }

    fn point(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        self.outcome.points.push(Point {
            at_h: (self.next_ms() - self.start_ms) as f64 / 3.6e6,
            uplink_bytes: self.outcome.uplink_bytes,
            cost_usd: self.outcome.cost_usd,
            energy_j: self.outcome.energy_j,
            cloud_share: recent.cloud.value(),
            views: recent.views.value(),
            rating: recent.rating.value(),
            reward: recent.reward.value(),
            ..self.now
        });
        self.now.lead = None;
    }

    /// `battery_percent`: at the end, where that is known better than from the last record.
    pub fn end(mut self, battery_percent: Option<f64>) -> Outcome {
        self.now.battery_percent = battery_percent.or(self.now.battery_percent);
        while (self.outcome.points.len() as i64) < POINTS {
            self.point();
        }
        self.outcome.budget_left = self.accounts.remaining();
        self.outcome.reward = self.all.reward.value();
        self.outcome.rating = self.all.rating.value();
        self.outcome.latency_s = self.all.latency_s.value();
        self.outcome.battery_left_percent = self.now.battery_percent;
        self.outcome
    }
}
