//! Pacing: spending follows a straight line from nothing to nine tenths of the cap over the window; the last tenth is
//! left for turns that cannot wait.
//!
//! The virtual queue of a budget is how far spending is ahead of its line (MESS+ and Lyapunov optimisation: Q grows by
//! what is spent and shrinks by what the line allows). Its shadow price is the exponential of the queue, which is
//! dual mirror descent with the entropy as its mirror map (Balseiro, Lu and Mirrokni, "The best of many worlds: dual
//! mirror descent for online allocation problems", Operations Research 2023): multiplicative steps, and no state
//! besides the account itself, so that a crash forgets nothing. A turn that would be ahead by more than
//! [`MAX_LEAD`] waits for the line to come up; that bounds the overshoot whatever a policy makes of the prices.

use super::account::Account;
use super::accounts::{Accounts, Refused, Why};
use super::amount::{Amounts, Resource, counts};
use tether_protocol::Cost;

/// The part of a cap that the line reaches at the window's end.
pub const PACED_SHARE: f64 = 0.9;
/// How far spending may be ahead of its line, as a part of the cap.
pub const MAX_LEAD: f64 = 0.004;
/// The price grows by a factor of e for each of these parts of the cap ahead, where turns are small: over the band from
/// `-MAX_LEAD` to `MAX_LEAD` from 1/55 to 55, which turns the dearest turns away and lets the cheapest pass.
const LEAST_PRICE_STEP: f64 = 0.001;
/// Where turns are large, for so many typical ones: a price that one turn moves by orders of magnitude lets whoever comes
/// next pass, not whoever is worth it. Of 0 (always the least), 1, 2, 4, 8 and 16, four earned most in replays of
/// eight hours over recorded links, 2 to 4 % more than 0.
const TURNS_A_STEP: f64 = 4.0;
/// Beyond twenty steps a price is nothing or prohibitive.
const MAX_STEPS: f64 = 20.0;

impl Account {
    /// What may have been spent by now on the straight line, in counts; `None`: nothing to pace against.
    pub fn line(&self, now_ms: i64) -> Option<f64> {
        let length = self.budget.length_ms()? as f64;
        let passed = (now_ms - self.spending.start_ms).max(0) as f64;
        Some(PACED_SHARE * self.budget.cap as f64 * (passed / length).min(1.0))
    }

    /// How far spending with `more` would be ahead of the line, as a part of the cap; negative: behind.
    pub fn lead(&self, now_ms: i64, more: u64) -> Option<f64> {
        let spent = self.spending.spent.saturating_add(more) as f64;
        Some((spent - self.line(now_ms)?) / (self.budget.cap as f64).max(1.0))
    }

    /// The mean cost of the window's turns, in counts; 0 before the first.
    fn typical(&self) -> f64 {
        self.spending.spent as f64 / (self.spending.turns as f64).max(1.0)
    }

    /// What a turn of typical cost should be worth, in rewards: 1 when spending is on its line.
    pub fn level(&self, now_ms: i64) -> Option<f64> {
        let typical = self.typical() / (self.budget.cap as f64).max(1.0);
        let step = (TURNS_A_STEP * typical).max(LEAST_PRICE_STEP);
        let lead = self.lead(now_ms, self.reserved)?;
        Some((lead / step).clamp(-MAX_STEPS, MAX_STEPS).exp())
    }

    /// When the line will allow `more`, if it will in this window.
    fn on_pace_at(&self, more: u64) -> Option<i64> {
        let cap = self.budget.cap as f64;
        let wanted = self.spending.spent.saturating_add(more) as f64 - MAX_LEAD * cap;
        let share = wanted / (PACED_SHARE * cap);
        let passed = share * self.budget.length_ms()? as f64;
        (share <= 1.0).then(|| self.spending.start_ms.saturating_add(passed.ceil() as i64))
    }
}

/// The shadow price of one budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    pub resource: Resource,
    /// What a turn of typical cost should be worth, in rewards: 1 when spending is on its line.
    pub level: f64,
    /// The mean cost of the window's turns, in the resource's unit.
    pub typical: f64,
}

/// The shadow prices of all paced budgets. A policy with values takes the action of the greatest value minus price.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prices(pub Vec<Price>);

impl Prices {
    /// Whether there are prices, and one for each thing that is limited.
    pub fn cover(&self, remaining: &Cost) -> bool {
        let limited = counts(remaining);
        let priced = |resource| self.0.iter().any(|price| price.resource == resource);
        let all = Resource::ALL.into_iter().all(|resource| limited[resource as usize].is_none() || priced(resource));
        // A latency has no price.
        all && !self.0.is_empty() && remaining.latency_ms.is_none()
    }

    /// The price of an action, in rewards. A part of its cost that is not known counts as a typical one.
    pub fn of(&self, cost: &Cost) -> f64 {
        let known = |resource| match resource {
            Resource::Usd => cost.cost_usd,
            Resource::EnergyJ => cost.energy_j,
            Resource::UplinkBytes => cost.uplink_bytes.map(|bytes| bytes as f64),
            Resource::DownlinkBytes => cost.downlink_bytes.map(|bytes| bytes as f64),
        };
        let one = |price: &Price| price.level * known(price.resource).map_or(1.0, |cost| cost / price.typical);
        self.0.iter().map(one).sum()
    }
}

impl Accounts {
    /// The shadow prices now. Until a budget's first turn in a window its typical cost is not known and its price
    /// is none.
    pub fn prices(&self, now_ms: i64) -> Prices {
        let price = |account: &Account| {
            let resource = account.budget.name.resource;
            let typical = account.typical() / resource.scale();
            (typical > 0.0).then_some(Price { resource, level: account.level(now_ms)?, typical })
        };
        Prices(self.accounts().iter().filter_map(price).collect())
    }

    /// Whether `amounts` keep every budget within [`MAX_LEAD`] of its line.
    ///
    /// # Errors
    /// The budget that would be furthest ahead in time.
    pub fn on_pace(&self, now_ms: i64, amounts: &Amounts) -> Result<(), Refused> {
        let refusal = |account: &Account| {
            let name = account.budget.name;
            let needed = amounts[name.resource];
            let more = account.reserved.saturating_add(needed);
            let ahead = needed > 0 && account.lead(now_ms, more)? > MAX_LEAD;
            let refused = || Refused {
                name,
                needed,
                left: account.left(),
                possible_ms: account.on_pace_at(more).or(account.end_ms()),
                why: Why::Pace,
            };
            ahead.then(refused)
        };
        let refusals = self.accounts().iter().filter_map(refusal);
        match refusals.max_by_key(|refused| refused.possible_ms.unwrap_or(i64::MAX)) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }
}
