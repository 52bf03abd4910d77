//! The keeper of the accounts: one lock, one clock, one lease.
//!
//! Nothing here waits under the lock, and nothing here writes the database: it says what to write (`Charge`s, new
//! windows), and the turn writes it with its own record. A turn that is about to act waits for [`Keeper::covered`],
//! which is at once unless the lease is used up, or the database cannot be written: then the lease is written for every
//! turn, and says exactly what is spent.

use super::guard::Guard;
use super::lease::{Lease, LeaseError};
use crate::config::BudgetSettings;
use crate::store::{SavedBudgets, Signs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tether_policies::budget::{
    Account, Accounts, Amounts, Budget, BudgetName, Clock, Counts, Most, Offer, Refused, Reservation, Settled, Spending,
};
use tether_protocol::Route;
use tether_protocol::api::{BudgetList, BudgetStatus};
use tokio::sync::{Notify, watch};

/// The lease reaches ahead by this part of a cap, or by [`LEASE_TURNS`] of the largest turn so far. A power cut costs at
/// most that much of a budget.
const LEASE_SHARE: u64 = 64;
const LEASE_TURNS: u64 = 4;

#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("there is no budget {0} in force; set one first: tether budget set {0} CAP")]
    NotInForce(BudgetName),
}

pub struct Keeper {
    state: Mutex<State>,
    started: Instant,
    lease_path: PathBuf,
    boot_id: String,
    /// Of the database; whatever changes here is told there, too.
    signs: Arc<Signs>,
    /// Somebody waits for a lease.
    urgent: Notify,
    /// Counts the syncs.
    synced: watch::Sender<u64>,
}

struct State {
    accounts: Accounts,
    clock: Clock,
    settings: BudgetSettings,
    /// Caps that were set while running.
    caps: BTreeMap<BudgetName, u64>,
    /// Spending of budgets that are not in force now.
    idle: BTreeMap<BudgetName, Spending>,
    /// What the lease file says, as far as it is synced.
    leased: Leased,
    /// Windows that have their row in the database.
    opened: BTreeMap<BudgetName, u64>,
    largest: Amounts,
    /// Reads a wall clock; tests bring their own.
    wall_ms: fn() -> i64,
}

/// What a lease says of the budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Leased {
    ahead: BTreeMap<BudgetName, Spending>,
    /// What the database lacks, and if that is anything, what is spent and reserved.
    unwritten: u64,
    held: BTreeMap<BudgetName, Spending>,
}

impl Keeper {
    /// Takes up what the database and the lease say. Returns what the operator should know, and what the database has to
    /// be told.
    pub fn open(
        settings: &BudgetSettings,
        mut saved: SavedBudgets,
        lease_path: PathBuf,
        boot_id: String,
        wall_ms: fn() -> i64,
    ) -> (Self, Vec<String>, BTreeMap<BudgetName, Spending>) {
        let mut notices = Vec::new();
        let lease = Lease::read(&lease_path).unwrap_or_else(|error| {
            notices.push(format!("{error}; the database's word is taken, and a new lease is begun"));
            None
        });
        let lease = lease.unwrap_or_default();
        let (raised, unwritten) = (lease.settle(&boot_id, &saved.spending), lease.unwritten);
        for (name, spending) in &raised {
            let before = saved.spending.insert(*name, *spending).map_or(0, |before| before.spent);
            let [now, before] = [spending.spent, before].map(|count| name.resource.value(count));
            notices.push(match unwritten {
                0 => format!(
                    "{name}: after a power cut or a lost database {now} count as spent instead of {before}, the most it \
                     can have been"
                ),
                _ => format!(
                    "{name}: {unwritten} turns or windows could not be written before the last stop; the lease counts: \
                     {now} are spent instead of {before}"
                ),
            });
        }
        let windows = saved.spending.values().map(|spending| spending.start_ms);
        // Ids sort by time, so a turn of now must not have one of before the newest turn.
        let newest = windows.chain(saved.newest_ms.map(|ms| ms.saturating_add(1))).max().unwrap_or(i64::MIN);
        let mut clock = Clock::new(wall_ms(), 0, newest);
        let now_ms = clock.now(wall_ms(), 0);
        let budgets = budgets(settings, &saved.caps);
        let state = State {
            accounts: Accounts::new(&budgets, &saved.spending, now_ms),
            clock,
            settings: settings.clone(),
            caps: saved.caps,
            idle: saved.spending,
            leased: Leased::default(),
            opened: BTreeMap::new(),
            largest: Amounts::ZERO,
            wall_ms,
        };
        let keeper = Self {
            state: Mutex::new(state),
            started: Instant::now(),
            lease_path,
            boot_id,
            signs: saved.signs,
            urgent: Notify::new(),
            synced: watch::Sender::new(0),
        };
        // So that the lease soon has its room on the disk, before that may be full.
        keeper.signs.changed.notify_one();
        (keeper, notices, raised)
    }

    /// The accounts now, their windows begun.
    fn lock(&self) -> (MutexGuard<'_, State>, i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall_ms = (state.wall_ms)();
        let now_ms = state.clock.now(wall_ms, passed);
        state.accounts.roll(now_ms);
        (state, now_ms)
    }

    /// Takes up other settings. Caps that were set while running stay.
    pub fn configure(&self, settings: &BudgetSettings) {
        let (mut state, now_ms) = self.lock();
        state.settings = settings.clone();
        state.reconfigure(now_ms);
        drop(state);
        self.signs.changed.notify_one();
    }

    /// Whether any budget is in force.
    pub fn is_empty(&self) -> bool {
        self.lock().0.accounts.is_empty()
    }

    /// The most that an action may cost, by `most`, which gets the accounts to see what is limited.
    pub fn with_accounts<T>(&self, work: impl FnOnce(&Accounts) -> T) -> T {
        work(&self.lock().0.accounts)
    }

    /// Which of these actions fit, by the most that each may cost, and the prices.
    pub fn offer(&self, most: &[Most], battery_percent: Option<f64>) -> Offer {
        let (state, now_ms) = self.lock();
        state.accounts.offer(now_ms, most, battery_percent, state.settings.pacing)
    }

    /// # Errors
    /// The budget that refuses.
    pub fn reserve(&self, amounts: Amounts, battery_percent: Option<f64>) -> Result<Reservation, Refused> {
        let (mut state, now_ms) = self.lock();
        let reservation = state.accounts.reserve(now_ms, amounts, battery_percent)?;
        state.note_largest(&amounts);
        Ok(reservation)
    }

    /// For a turn that is answered although nothing fits.
    pub fn reserve_anyway(&self, amounts: Amounts) -> Reservation {
        let (mut state, now_ms) = self.lock();
        state.note_largest(&amounts);
        state.accounts.reserve_anyway(now_ms, amounts)
    }

    /// What to write for the windows that have begun; each is told once.
    pub fn new_windows(&self) -> Vec<(BudgetName, Spending)> {
        let (mut state, _) = self.lock();
        let State { accounts, opened, .. } = &mut *state;
        let new = |account: &Account| {
            let (name, spending) = (account.budget.name, account.spending);
            (opened.insert(name, spending.generation) != Some(spending.generation)).then_some((name, spending))
        };
        accounts.accounts().iter().filter_map(new).collect()
    }

    /// Ends a reservation; the charges are to be written with the turn's record.
    pub fn settle(&self, reservation: Reservation, measured: Counts) -> Settled {
        let (mut state, now_ms) = self.lock();
        let settled = state.accounts.settle(now_ms, reservation, measured);
        drop(state);
        self.signs.changed.notify_one();
        settled
    }

    /// By how many parts of a cap these amounts would exceed the budgets, all together.
    pub fn excess(&self, amounts: &Amounts) -> f64 {
        let (state, _) = self.lock();
        let over = |account: &Account| {
            let resource = account.budget.name.resource;
            let over = amounts[resource].saturating_sub(account.left());
            over as f64 / (account.budget.cap as f64).max(1.0)
        };
        state.accounts.accounts().iter().map(over).sum()
    }

    pub fn guard(&self, reserved: &Amounts, route: Route, now: Instant) -> Guard {
        let (state, _) = self.lock();
        let energy = &state.settings.energy;
        let power_w = if route == Route::Local { energy.local_power_w } else { energy.cloud_power_w };
        Guard::new(reserved, &state.accounts, route, power_w, now)
    }

    pub fn remaining(&self) -> BTreeMap<String, f64> {
        self.lock().0.accounts.remaining()
    }

    /// Sets a cap while running, or goes back to the settings'.
    pub fn set(&self, name: BudgetName, cap: Option<u64>) {
        let (mut state, now_ms) = self.lock();
        match cap {
            Some(cap) => state.caps.insert(name, cap),
            None => state.caps.remove(&name),
        };
        state.reconfigure(now_ms);
        drop(state);
        self.signs.changed.notify_one();
    }

    /// Begins a new window; returns what to write.
    ///
    /// # Errors
    /// No such budget is in force.
    pub fn reset(&self, name: BudgetName) -> Result<Spending, SetError> {
        let (mut state, now_ms) = self.lock();
        let spending = state.accounts.reset(now_ms, name).ok_or(SetError::NotInForce(name))?.spending;
        state.opened.insert(name, spending.generation);
        drop(state);
        self.signs.changed.notify_one();
        Ok(spending)
    }

    /// `battery_percent` is `None` on mains or where it is unknown.
    pub fn status(&self, battery_percent: Option<f64>) -> BudgetList {
        let (state, now_ms) = self.lock();
        let status = |account: &Account| {
            let name = account.budget.name;
            let value = |count| name.resource.value(count);
            BudgetStatus {
                name: name.to_string(),
                cap: value(account.budget.cap),
                spent: value(account.spending.spent),
                reserved: value(account.reserved),
                left: value(account.left()),
                unknown: value(account.spending.unknown),
                turns: account.spending.turns,
                window_start_ms: account.spending.start_ms,
                window_end_ms: account.end_ms(),
                line: account.line(now_ms).filter(|_| state.settings.pacing).map(|line| value(line as u64)),
                price: account.level(now_ms).filter(|_| state.settings.pacing),
                floor_percent: account.budget.floor_percent,
                at_floor: account.budget.at_floor(battery_percent).is_some(),
                source: if state.caps.contains_key(&name) { "set" } else { "settings" }.into(),
            }
        };
        BudgetList {
            budgets: state.accounts.accounts().iter().map(status).collect(),
            on_exhausted: format!("{:?}", state.settings.on_exhausted).to_lowercase(),
            pacing: state.settings.pacing,
        }
    }

    /// The wall clock, made monotonic: never before the newest turn of the ledger, so that ids and times of turns keep
    /// their order over a boot without a clock.
    pub fn now_ms(&self) -> i64 {
        self.lock().1
    }

    /// Waits until the lease on the disk covers everything that is spent and reserved, and says it exactly while the
    /// database does not. If it cannot be written, the turn goes on after the attempt: [`sync`](Self::sync) reports it.
    pub async fn covered(&self) {
        let mut synced = self.synced.subscribe();
        self.signs.changed.notify_one();
        if self.is_covered() {
            return;
        }
        // The first sync may have begun before this turn reserved.
        for _ in 0..2 {
            self.urgent.notify_one();
            // The sender lives as long as `self`.
            let _ = synced.changed().await;
            if self.is_covered() {
                return;
            }
        }
    }

    fn is_covered(&self) -> bool {
        let unwritten = self.signs.unwritten();
        self.lock().0.is_covered(unwritten)
    }

    /// Waits for something to sync, and then for the group's second to pass or for somebody who cannot wait.
    pub async fn wants_sync(&self, group: Duration) {
        self.signs.changed.notified().await;
        let _ = tokio::time::timeout(group, self.urgent.notified()).await;
    }

    /// Extends the lease on the disk where it is nearly used up, and tells what the database lacks. Blocks.
    ///
    /// # Errors
    /// The file cannot be written; turns go on without the cover.
    pub fn sync(&self) -> Result<(), LeaseError> {
        let unwritten = self.signs.unwritten();
        if unwritten > 0 {
            // Until it is written, again a group's time later, also where no turn comes.
            self.signs.changed.notify_one();
        }
        let wanted = self.lock().0.wanted_lease(unwritten);
        let written = match &wanted {
            Some(leased) => self.lease(leased, false).write(&self.lease_path),
            None => Ok(()),
        };
        if let (Some(leased), Ok(())) = (wanted, &written) {
            self.lock().0.leased = leased;
        }
        self.synced.send_modify(|count| *count += 1);
        written
    }

    fn lease(&self, leased: &Leased, clean: bool) -> Lease {
        let named = |spending: &BTreeMap<BudgetName, Spending>| {
            spending.iter().map(|(name, spending)| (name.to_string(), *spending)).collect()
        };
        let Leased { ahead, unwritten, held } = leased;
        let (budgets, held) = (named(ahead), named(held));
        Lease { number: 0, boot_id: self.boot_id.clone(), clean, budgets, unwritten: *unwritten, held }
    }

    /// Writes that the daemon stopped in order, unless the database lacks something. It must be closed by then.
    pub fn close(&self) -> Result<(), LeaseError> {
        // Whoever waits for something to sync sees that the daemon is gone.
        self.signs.changed.notify_one();
        let unwritten = self.signs.unwritten();
        let spent = self.lock().0.held();
        if spent.is_empty() && !self.lease_path.exists() {
            return Ok(());
        }
        let held = if unwritten > 0 { spent.clone() } else { BTreeMap::new() };
        self.lease(&Leased { ahead: spent, unwritten, held }, unwritten == 0).write(&self.lease_path)
    }
}

impl State {
    fn reconfigure(&mut self, now_ms: i64) {
        let State { accounts, settings, caps, idle, .. } = self;
        idle.extend(accounts.accounts().iter().map(|account| (account.budget.name, account.spending)));
        accounts.configure(&budgets(settings, caps), idle, now_ms);
    }

    fn note_largest(&mut self, amounts: &Amounts) {
        self.largest.0.iter_mut().zip(amounts.0).for_each(|(largest, amount)| *largest = (*largest).max(amount));
    }

    /// What is spent, and reserved: should the process end now, nobody will know better of it.
    fn held(&self) -> BTreeMap<BudgetName, Spending> {
        let held = |account: &Account| {
            let unknown = account.spending.unknown.saturating_add(account.reserved);
            (account.budget.name, Spending { spent: account.held(), unknown, ..account.spending })
        };
        self.accounts.accounts().iter().map(held).collect()
    }

    fn is_covered(&self, unwritten: u64) -> bool {
        let unsaid = self.leased.unwritten == 0 || self.leased.held != self.held();
        if unwritten > 0 && unsaid && !self.accounts.is_empty() {
            return false;
        }
        self.accounts.accounts().iter().all(|account| self.lease_left(account).is_some())
    }

    /// How far the lease reaches beyond what is spent and reserved; `None`: not even so far.
    fn lease_left(&self, account: &Account) -> Option<u64> {
        let needed = account.held();
        let leased = self.leased.ahead.get(&account.budget.name);
        match leased.filter(|leased| leased.generation == account.spending.generation) {
            Some(leased) => leased.spent.checked_sub(needed),
            // Nothing is spent: nothing has to be covered.
            None => (needed == 0).then_some(0),
        }
    }

    /// What the lease should say, if it has to say something else than it does.
    fn wanted_lease(&self, unwritten: u64) -> Option<Leased> {
        let held = if unwritten > 0 { self.held() } else { BTreeMap::new() };
        // The first one of a run is written at once.
        let mut extend = self.leased.ahead.is_empty() || unwritten != self.leased.unwritten || held != self.leased.held;
        let lease = |account: &Account| {
            let (name, cap) = (account.budget.name, account.budget.cap);
            let ahead = (cap / LEASE_SHARE).max(self.largest[name.resource].saturating_mul(LEASE_TURNS)).max(1);
            let left = self.lease_left(account);
            let needed = account.held();
            // At the cap there is nothing more to cover.
            let reached = left.is_some() && needed + left.unwrap_or(0) >= cap.max(needed);
            extend |= needed > 0 && !reached && left.is_none_or(|left| left < ahead / 2);
            let spent = needed.saturating_add(ahead).min(cap.max(needed));
            (name, Spending { spent, ..account.spending })
        };
        let ahead: BTreeMap<_, _> = self.accounts.accounts().iter().map(lease).collect();
        (extend && !ahead.is_empty()).then_some(Leased { ahead, unwritten, held })
    }
}

/// The settings' budgets, with the caps that were set while running.
fn budgets(settings: &BudgetSettings, caps: &BTreeMap<BudgetName, u64>) -> Vec<Budget> {
    let mut all: BTreeMap<BudgetName, Budget> = settings.budgets.iter().map(|budget| (budget.name, *budget)).collect();
    all.extend(caps.iter().map(|(name, cap)| (*name, settings.budget(*name, *cap))));
    all.into_values().collect()
}

#[cfg(test)]
mod tests;
