//! Reserve, then settle. All budgets of a device are one value; whoever holds it decides alone, so that turns at the
//! same time can neither share a remainder nor be refused one that is free.

use super::account::{Account, Budget, BudgetName, Spending};
use super::amount::{Amounts, Counts, Resource};
use std::collections::BTreeMap;

/// The budgets and what is reserved of them.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    accounts: Vec<Account>,
    /// By all turns under way. A resource's budgets share it: each turn reserves the same of all of them.
    reserved: Amounts,
}

/// The most that one turn may cost; it must be settled. One that is lost stays reserved.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved must be settled"]
pub struct Reservation {
    amounts: Amounts,
}

impl Reservation {
    pub fn amounts(&self) -> &Amounts {
        &self.amounts
    }

    /// Another reservation of the same turn, settled with this one.
    pub fn join(&mut self, other: Reservation) {
        self.amounts.plus(&other.amounts);
    }
}

/// What a settlement adds to one budget, to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    pub name: BudgetName,
    pub generation: u64,
    pub start_ms: i64,
    pub spent: u64,
    pub unknown: u64,
}

/// The outcome of a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    pub charges: Vec<Charge>,
    /// By how much the turn cost more than was reserved, which whoever executes it must prevent.
    pub over: Amounts,
}

/// Why a budget refuses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// The cap, with what is reserved by turns under way.
    Cap,
    /// The battery is at or below the budget's floor.
    Floor { battery_percent: f64, floor_percent: f64 },
    /// Only the pace: the cap would allow it.
    Pace,
}

/// A reservation that does not fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refused {
    pub name: BudgetName,
    pub needed: u64,
    pub left: u64,
    /// When it may fit; `None`: not by waiting alone.
    pub possible_ms: Option<i64>,
    pub why: Why,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = |count: u64| self.name.resource.value(count);
        let (name, needed, left) = (self.name, value(self.needed), value(self.left));
        match self.why {
            Why::Cap => write!(f, "{name}: {needed} needed, {left} left"),
            Why::Pace => write!(f, "{name}: {needed} needed, {left} left until later in the window"),
            Why::Floor { battery_percent, floor_percent } => {
                write!(f, "{name}: the battery is at {battery_percent:.0} %, the floor is {floor_percent:.0} %")
            }
        }
    }
}

impl Accounts {
    /// `saved` is the newest window of each budget, from the disk.
    pub fn new(budgets: &[Budget], saved: &BTreeMap<BudgetName, Spending>, now_ms: i64) -> Self {
        let account = |budget: &Budget| Account::new(*budget, saved.get(&budget.name).copied(), now_ms);
        Self { accounts: budgets.iter().map(account).collect(), reserved: Amounts::ZERO }
    }

    /// Takes up other caps. What is spent and reserved stays; a cap may now lie below it, and then nothing fits.
    /// `saved` knows the spending of budgets that were not in force before.
    pub fn configure(&mut self, budgets: &[Budget], saved: &BTreeMap<BudgetName, Spending>, now_ms: i64) {
        let known = |name| self.get(name).map(|account| account.spending).or_else(|| saved.get(&name).copied());
        let accounts = budgets.iter().map(|budget| Account::new(*budget, known(budget.name), now_ms));
        self.accounts = accounts.collect();
    }

    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub fn get(&self, name: BudgetName) -> Option<&Account> {
        self.accounts.iter().find(|account| account.budget.name == name)
    }

    pub fn reserved(&self) -> &Amounts {
        &self.reserved
    }

    /// Whether some budget limits this resource.
    pub fn limits(&self, resource: Resource) -> bool {
        self.accounts.iter().any(|account| account.budget.name.resource == resource)
    }

    /// The least that is left of a resource over all its budgets; `None`: there is no budget.
    pub fn left(&self, resource: Resource) -> Option<u64> {
        let of = self.accounts.iter().filter(|account| account.budget.name.resource == resource);
        of.map(|account| account.left(self.reserved[resource])).min()
    }

    /// Begins the windows whose time has come.
    pub fn roll(&mut self, now_ms: i64) {
        self.accounts.iter_mut().for_each(|account| account.roll(now_ms));
    }

    /// Whether `amounts` could be reserved now. `battery_percent` is `None` on mains or where it is unknown.
    ///
    /// # Errors
    /// The budget that refuses; of several the one that refuses for longest.
    pub fn fits(&self, amounts: &Amounts, battery_percent: Option<f64>) -> Result<(), Refused> {
        let refusals = self.accounts.iter().filter_map(|account| self.refusal(account, amounts, battery_percent));
        // Never comes after every moment.
        match refusals.max_by_key(|refused| refused.possible_ms.unwrap_or(i64::MAX)) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    fn refusal(&self, account: &Account, amounts: &Amounts, battery_percent: Option<f64>) -> Option<Refused> {
        let Budget { name, cap, floor_percent, .. } = account.budget;
        let (needed, left) = (amounts[name.resource], account.left(self.reserved[name.resource]));
        let refused = |why, possible_ms| Some(Refused { name, needed, left, possible_ms, why });
        if needed == 0 {
            return None;
        }
        if let (Some(battery_percent), Some(floor_percent)) = (battery_percent, floor_percent)
            && battery_percent <= floor_percent
        {
            return refused(Why::Floor { battery_percent, floor_percent }, None);
        }
        if needed <= left {
            return None;
        }
        refused(Why::Cap, account.end_ms().filter(|_| needed <= cap))
    }

    /// Reserves `amounts` of every budget, or of none.
    ///
    /// # Errors
    /// As [`fits`](Self::fits).
    pub fn reserve(
        &mut self,
        now_ms: i64,
        amounts: Amounts,
        battery_percent: Option<f64>,
    ) -> Result<Reservation, Refused> {
        self.roll(now_ms);
        self.fits(&amounts, battery_percent)?;
        self.reserved.plus(&amounts);
        Ok(Reservation { amounts })
    }

    /// Reserves whatever the budgets say: for turns that are answered although nothing fits.
    pub fn reserve_anyway(&mut self, now_ms: i64, amounts: Amounts) -> Reservation {
        self.roll(now_ms);
        self.reserved.plus(&amounts);
        Reservation { amounts }
    }

    /// Ends a reservation with what the turn did cost. An unknown cost counts as all that was reserved. The charge
    /// goes to the window of this moment, also if the turn began in the one before.
    pub fn settle(&mut self, now_ms: i64, reservation: Reservation, measured: Counts) -> Settled {
        self.roll(now_ms);
        let Reservation { amounts } = reservation;
        self.reserved.minus(&amounts);
        let mut settled = Settled::default();
        for resource in Resource::ALL {
            let known = measured[resource as usize];
            let spent = known.unwrap_or(amounts[resource]);
            let unknown = if known.is_none() { spent } else { 0 };
            settled.over[resource] = spent.saturating_sub(amounts[resource]);
            if spent > 0 {
                let of = self.accounts.iter_mut().filter(|account| account.budget.name.resource == resource);
                settled.charges.extend(of.map(|account| charge(account, spent, unknown)));
            }
        }
        settled
    }

    /// Begins a new window of this budget now: nothing is spent of it. Reservations stay.
    pub fn reset(&mut self, now_ms: i64, name: BudgetName) -> Option<&Account> {
        self.roll(now_ms);
        let account = self.accounts.iter_mut().find(|account| account.budget.name == name)?;
        account.renew(name.window.start_of(now_ms));
        Some(account)
    }
}

fn charge(account: &mut Account, spent: u64, unknown: u64) -> Charge {
    let spending = &mut account.spending;
    spending.spent = spending.spent.saturating_add(spent);
    spending.unknown = spending.unknown.saturating_add(unknown);
    spending.turns += 1;
    let Spending { generation, start_ms, .. } = *spending;
    Charge { name: account.budget.name, generation, start_ms, spent, unknown }
}
