//! One budget, and what has been spent of it in the present window.

use super::amount::Resource;
use super::window::Window;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A resource within a window, such as `usd_per_day`; there is at most one budget of each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetName {
    pub resource: Resource,
    pub window: Window,
}

impl BudgetName {
    /// All twelve.
    pub fn all() -> impl Iterator<Item = BudgetName> {
        let of = |resource| Window::ALL.into_iter().map(move |window| BudgetName { resource, window });
        Resource::ALL.into_iter().flat_map(of)
    }
}

impl fmt::Display for BudgetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_per_{}", self.resource.name(), self.window.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no budget {0:?}; the names are usd, energy_j, uplink_bytes or downlink_bytes, then _per_hour, _per_day or _per_mission"
)]
pub struct UnknownBudget(pub String);

impl FromStr for BudgetName {
    type Err = UnknownBudget;

    fn from_str(text: &str) -> Result<Self, UnknownBudget> {
        BudgetName::all().find(|name| name.to_string() == text).ok_or_else(|| UnknownBudget(text.to_owned()))
    }
}

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    pub name: BudgetName,
    /// In counts of the resource.
    pub cap: u64,
    /// How long a mission is expected to last; without it a mission's spending is capped but not paced.
    pub mission_ms: Option<i64>,
    /// With the battery at or below this many percent, off mains, nothing is given from the budget.
    pub floor_percent: Option<f64>,
}

impl Budget {
    /// The time over which spending is paced.
    pub fn length_ms(&self) -> Option<i64> {
        self.name.window.length_ms().or(self.mission_ms).filter(|length| *length > 0)
    }

    /// The battery's percentage, and the floor, where it is at or below that. `None` on mains or where it is unknown.
    pub fn at_floor(&self, battery_percent: Option<f64>) -> Option<(f64, f64)> {
        battery_percent.zip(self.floor_percent).filter(|(battery, floor)| battery <= floor)
    }
}

/// What was spent in one window, as it is kept on disk. A window that began anew has a new generation, so that a
/// charge that comes late can never count in the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    pub generation: u64,
    pub start_ms: i64,
    pub spent: u64,
    /// The part of `spent` that nobody measured: reservations of turns that were cut off, or whose cost is not known.
    pub unknown: u64,
    /// Turns that spent something.
    pub turns: u64,
}

/// A budget with its spending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Account {
    pub budget: Budget,
    pub spending: Spending,
    /// By turns under way that began in this window.
    pub reserved: u64,
}

impl Account {
    /// `saved` is the newest window's spending, if there was one.
    pub fn new(budget: Budget, saved: Option<Spending>, now_ms: i64) -> Self {
        let start_ms = budget.name.window.start_of(now_ms);
        let fresh = Spending { generation: 0, start_ms, spent: 0, unknown: 0, turns: 0 };
        let mut account = Self { budget, spending: saved.unwrap_or(fresh), reserved: 0 };
        account.roll(now_ms);
        account
    }

    /// Begins the next window if its time has come. Earlier moments change nothing.
    pub(super) fn roll(&mut self, now_ms: i64) {
        let window = self.budget.name.window;
        if window.length_ms().is_some() && window.start_of(now_ms) > self.spending.start_ms {
            self.renew(window.start_of(now_ms));
        }
    }

    /// Begins a new window at this moment.
    pub(super) fn renew(&mut self, start_ms: i64) {
        let generation = self.spending.generation + 1;
        self.spending = Spending { generation, start_ms, spent: 0, unknown: 0, turns: 0 };
        self.reserved = 0;
    }

    /// What may still be reserved.
    pub fn left(&self) -> u64 {
        self.budget.cap.saturating_sub(self.held())
    }

    /// What is spent or may yet be by turns under way.
    pub fn held(&self) -> u64 {
        self.spending.spent.saturating_add(self.reserved)
    }

    /// When the present window ends, if it ends by itself.
    pub fn end_ms(&self) -> Option<i64> {
        self.budget.name.window.length_ms().map(|length| self.spending.start_ms + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_settings() {
        let names: Vec<String> = BudgetName::all().map(|name| name.to_string()).collect();
        assert_eq!(names.len(), 12);
        assert!(names.contains(&"usd_per_day".to_owned()) && names.contains(&"energy_j_per_mission".to_owned()));
        for name in names {
            assert_eq!(name.parse::<BudgetName>().unwrap().to_string(), name);
        }
        assert!("usd_per_week".parse::<BudgetName>().unwrap_err().to_string().contains("_per_mission"));
    }
}
