//! What a turn may choose from, as the budgets are now.

use super::account::Account;
use super::accounts::{Accounts, Refused};
use super::amount::{Amounts, Counts, Resource};
use super::pacing::Prices;
use std::collections::BTreeMap;

/// The most that an action may cost; `Err`: a resource that has a budget and of which it cannot be told.
pub type Most = Result<Amounts, Resource>;

/// Of the actions that were asked about, by the most that each may cost.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Why each does not fit, if it does not.
    pub refused: Vec<Option<Refused>>,
    /// Why each has to wait for the pace, if it has to; whoever reads it looks at `refused` first.
    pub ahead: Vec<Option<Refused>>,
    pub prices: Prices,
    /// Left of each budget, by name, in the resource's unit.
    pub remaining: BTreeMap<String, f64>,
    /// The least that is left of each resource, in counts; `None`: no budget.
    pub left: Counts,
    pub now_ms: i64,
}

impl Accounts {
    /// Which of these actions fit, and the prices. One whose most cannot be told is not refused here. `paced`: whether
    /// spending is held to its line.
    pub fn offer(&self, now_ms: i64, most: &[Most], battery_percent: Option<f64>, paced: bool) -> Offer {
        let refused = |most: &Most| self.fits(most.as_ref().ok()?, battery_percent).err();
        let ahead = |most: &Most| self.on_pace(now_ms, most.as_ref().ok().filter(|_| paced)?).err();
        Offer {
            refused: most.iter().map(refused).collect(),
            ahead: most.iter().map(ahead).collect(),
            prices: if paced { self.prices(now_ms) } else { Prices::default() },
            remaining: self.remaining(),
            left: Resource::ALL.map(|resource| self.left(resource)),
            now_ms,
        }
    }

    /// Left of each budget, by name, in the resource's unit.
    pub fn remaining(&self) -> BTreeMap<String, f64> {
        let left = |account: &Account| {
            let name = account.budget.name;
            (name.to_string(), name.resource.value(account.left()))
        };
        self.accounts().iter().map(left).collect()
    }
}
