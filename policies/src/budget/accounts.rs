//! Reserve, then settle. All budgets of a device are one value; whoever holds it decides alone, so that turns at the
//! same time can neither share a remainder nor be refused one that is free.

use super::account::{Account, Budget, BudgetName, Spending};
use super::amount::{Amounts, Counts, Resource};
use std::collections::BTreeMap;

/// The budgets and what is reserved of them.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    accounts: Vec<Account>,
}

/// The most that one turn may cost; it must be settled. One that is lost stays reserved.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved must be settled"]
pub struct Reservation {
    amounts: Amounts,
    /// A turn counts in the windows in which it began.
    parts: Vec<Part>,
}

/// What is reserved of one window of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    name: BudgetName,
    generation: u64,
    start_ms: i64,
    amount: u64,
}

impl Reservation {
    pub fn amounts(&self) -> &Amounts {
        &self.amounts
    }

    /// Another reservation of the same turn, settled with this one.
    pub fn join(&mut self, other: Reservation) {
        self.amounts.plus(&other.amounts);
        self.parts.extend(other.parts);
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
    /// By how much the turn cost more than was reserved of what has a budget, which whoever executes it must prevent.
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
                write!(
                    f,
                    "{name}: nothing is given from it while the battery is at or below its floor of {floor_percent} %; it is \
                     at {battery_percent:.0} %"
                )
            }
        }
    }
}

impl Accounts {
    /// `saved` is the newest window of each budget, from the disk.
    pub fn new(budgets: &[Budget], saved: &BTreeMap<BudgetName, Spending>, now_ms: i64) -> Self {
        let account = |budget: &Budget| Account::new(*budget, saved.get(&budget.name).copied(), now_ms);
        Self { accounts: budgets.iter().map(account).collect() }
    }

    /// Takes up other caps. What is spent and reserved stays; a cap may now lie below it, and then nothing fits.
    /// `saved` knows the spending of budgets that were not in force before.
    pub fn configure(&mut self, budgets: &[Budget], saved: &BTreeMap<BudgetName, Spending>, now_ms: i64) {
        let account = |budget: &Budget| match self.get(budget.name) {
            Some(account) => Account { budget: *budget, ..*account },
            None => Account::new(*budget, saved.get(&budget.name).copied(), now_ms),
        };
        self.accounts = budgets.iter().map(account).collect();
        self.roll(now_ms);
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

    /// Whether some budget limits this resource.
    pub fn limits(&self, resource: Resource) -> bool {
        self.accounts.iter().any(|account| account.budget.name.resource == resource)
    }

    /// The least that is left of a resource over all its budgets; `None`: there is no budget.
    pub fn left(&self, resource: Resource) -> Option<u64> {
        let of = self.accounts.iter().filter(|account| account.budget.name.resource == resource);
        of.map(Account::left).min()
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
        let refusals = self.accounts.iter().filter_map(|account| refusal(account, amounts, battery_percent));
        // Never comes after every moment.
        match refusals.max_by_key(|refused| refused.possible_ms.unwrap_or(i64::MAX)) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
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
        Ok(self.hold(amounts))
    }

    /// Reserves whatever the budgets say: for turns that are answered although nothing fits.
    pub fn reserve_anyway(&mut self, now_ms: i64, amounts: Amounts) -> Reservation {
        self.roll(now_ms);
        self.hold(amounts)
    }

    fn hold(&mut self, amounts: Amounts) -> Reservation {
        let hold = |account: &mut Account| {
            let (name, amount) = (account.budget.name, amounts[account.budget.name.resource]);
            account.reserved = account.reserved.saturating_add(amount);
            Part { name, generation: account.spending.generation, start_ms: account.spending.start_ms, amount }
        };
        Reservation { amounts, parts: self.accounts.iter_mut().map(hold).collect() }
    }

    /// Ends a reservation with what the turn did cost, which counts in the windows in which it was reserved, also if
    /// they are over. An unknown cost counts as all that was reserved.
    pub fn settle(&mut self, now_ms: i64, reservation: Reservation, measured: Counts) -> Settled {
        self.roll(now_ms);
        let Reservation { amounts, parts } = reservation;
        let mut settled = Settled::default();
        let spent = |resource: Resource| measured[resource as usize].unwrap_or(amounts[resource]);
        let limited = |resource: &Resource| parts.iter().any(|part| part.name.resource == *resource);
        for resource in Resource::ALL.into_iter().filter(limited) {
            settled.over[resource] = spent(resource).saturating_sub(amounts[resource]);
        }
        for (at, part) in parts.iter().enumerate() {
            let of_budget = |other: &&Part| other.name == part.name;
            // Of a turn that reserved twice, each part bears as much as it reserved, and the last one the rest.
            let before: u64 = parts[..at].iter().filter(of_budget).map(|other| other.amount).sum();
            let rest = spent(part.name.resource).saturating_sub(before);
            let is_last = !parts[at + 1..].iter().any(|other| other.name == part.name);
            let count = if is_last { rest } else { rest.min(part.amount) };
            let unknown = if measured[part.name.resource as usize].is_none() { count } else { 0 };
            settled.charges.extend(self.charge(part, count, unknown));
        }
        settled
    }

    fn charge(&mut self, part: &Part, spent: u64, unknown: u64) -> Option<Charge> {
        let Part { name, generation, start_ms, amount } = *part;
        let account = self.accounts.iter_mut().find(|account| account.budget.name == name);
        if let Some(account) = account.filter(|account| account.spending.generation == generation) {
            account.reserved = account.reserved.saturating_sub(amount);
            let spending = &mut account.spending;
            spending.spent = spending.spent.saturating_add(spent);
            spending.unknown = spending.unknown.saturating_add(unknown);
            spending.turns += u64::from(spent > 0);
        }
        (spent > 0).then_some(Charge { name, generation, start_ms, spent, unknown })
    }

    /// Begins a new window of this budget now: nothing is spent of it, and turns under way count in the one before.
    pub fn reset(&mut self, now_ms: i64, name: BudgetName) -> Option<&Account> {
        self.roll(now_ms);
        let account = self.accounts.iter_mut().find(|account| account.budget.name == name)?;
        account.renew(name.window.start_of(now_ms));
        Some(account)
    }
}

fn refusal(account: &Account, amounts: &Amounts, battery_percent: Option<f64>) -> Option<Refused> {
    let Budget { name, cap, .. } = account.budget;
    let (needed, left) = (amounts[name.resource], account.left());
    let refused = |why, possible_ms| Some(Refused { name, needed, left, possible_ms, why });
    if needed == 0 {
        return None;
    }
    if let Some((battery_percent, floor_percent)) = account.budget.at_floor(battery_percent) {
        return refused(Why::Floor { battery_percent, floor_percent }, None);
    }
    if needed <= left {
        return None;
    }
    refused(Why::Cap, account.end_ms().filter(|_| needed <= cap))
}
