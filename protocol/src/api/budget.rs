//! `GET /v1/budgets`, and what sets and resets one.

use serde::{Deserialize, Serialize};

/// `GET /v1/budgets`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetList {
    pub budgets: Vec<BudgetStatus>,
    /// `refuse` or `cheapest`
    pub on_exhausted: String,
    pub pacing: bool,
}

/// One budget. Amounts are in the resource's unit: USD, joules, bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Such as `usd_per_day`.
    pub name: String,
    pub cap: f64,
    pub spent: f64,
    /// By turns under way.
    pub reserved: f64,
    pub left: f64,
    /// The part of `spent` that nobody measured: reservations of turns that were cut off, or of unknown cost.
    pub unknown: f64,
    /// Turns that spent something in this window.
    pub turns: u64,
    pub window_start_ms: i64,
    /// `None`: a mission lasts until it is reset.
    pub window_end_ms: Option<i64>,
    /// What spending on the straight line would have come to by now; `None`: not paced.
    pub line: Option<f64>,
    /// The shadow price of a turn of typical cost, in rewards.
    pub price: Option<f64>,
    /// With the battery at or below it, off mains, nothing is given from the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_percent: Option<f64>,
    /// Whether that is so now.
    #[serde(default)]
    pub at_floor: bool,
    /// `settings`, or `set` while running.
    pub source: String,
}

/// `PUT /v1/budgets/{name}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBudget {
    pub cap: f64,
}
