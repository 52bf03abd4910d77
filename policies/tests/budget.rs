//! The accounts against a simple model, and the pacer against the best that knows the future.

use proptest::prelude::*;
use std::collections::BTreeMap;
use tether_policies::budget::pacing::{MAX_LEAD, PACED_SHARE};
use tether_policies::budget::{
    Accounts, Amounts, Budget, BudgetName, Charge, Reservation, Resource, Spending, Why, Window,
};
use tether_protocol::Cost;

const HOUR_MS: i64 = 3_600_000;

fn budget(resource: Resource, window: Window, cap: u64) -> Budget {
    Budget { name: BudgetName { resource, window }, cap, mission_ms: None, floor_percent: None }
}

fn usd(count: u64) -> Amounts {
    Amounts([count, 0, 0, 0])
}

#[derive(Debug, Clone)]
enum Step {
    Reserve([u64; 4]),
    /// Settles one of the open reservations, with parts of what it reserved (of 100) or unknown.
    Settle(usize, [Option<u64>; 4]),
    Wait(i64),
    Reset(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let part = prop::option::of(0u64..=100);
    prop_oneof![
        4 => prop::array::uniform4(0u64..40).prop_map(Step::Reserve),
        4 => (any::<usize>(), prop::array::uniform4(part)).prop_map(|(which, parts)| Step::Settle(which, parts)),
        2 => (0i64..HOUR_MS).prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Reset),
        1 => Just(Step::Restart),
    ]
}

/// A reservation, with the windows that it began in: when they began, and after how many resets.
type Open = (Reservation, BTreeMap<BudgetName, (i64, u64)>);

/// The model: every charge that was ever made, and nothing else.
#[derive(Default)]
struct Model {
    now_ms: i64,
    /// Of each budget: when its window began, which of that start it is, and what was spent by turns that began in it.
    spent: BTreeMap<BudgetName, (i64, u64, u64)>,
    disk: BTreeMap<(BudgetName, u64), Spending>,
}

impl Model {
    fn roll(&mut self, budgets: &[Budget]) {
        for Budget { name, .. } in budgets {
            let start = name.window.start_of(self.now_ms);
            let entry = self.spent.entry(*name).or_insert((start, 0, 0));
            if name.window != Window::Mission && start > entry.0 {
                *entry = (start, 0, 0);
            }
        }
    }

    fn write(&mut self, charge: &Charge) {
        let Charge { name, generation, start_ms, spent, unknown } = *charge;
        let row = Spending { generation, start_ms, spent: 0, unknown: 0, turns: 0 };
        let row = self.disk.entry((name, generation)).or_insert(row);
        row.spent += spent;
        row.unknown += unknown;
        row.turns += 1;
    }

    fn newest(&self) -> BTreeMap<BudgetName, Spending> {
        self.disk.iter().map(|((name, _), spending)| (*name, *spending)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_accounts_do_what_the_model_says(
        caps in prop::collection::btree_map((0usize..4, 0usize..3), 0u64..200, 1..6),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let budgets: Vec<Budget> = caps.iter()
            .map(|((resource, window), cap)| budget(Resource::ALL[*resource], Window::ALL[*window], *cap)).collect();
        let mut model = Model { now_ms: 100 * HOUR_MS, ..Model::default() };
        let mut accounts = Accounts::new(&budgets, &BTreeMap::new(), model.now_ms);
        // Each with the windows that it began in.
        let mut open: Vec<Open> = Vec::new();
        model.roll(&budgets);
        for step in steps {
            model.roll(&budgets);
            let reserved = |open: &[Open], model: &Model, name: &BudgetName| {
                let (start, reset, _) = model.spent[name];
                let here = open.iter().filter(|(_, windows)| windows.get(name) == Some(&(start, reset)));
                here.map(|(reservation, _)| reservation.amounts()[name.resource]).sum::<u64>()
            };
            match step {
                Step::Wait(ms) => model.now_ms += ms,
                Step::Reserve(amounts) => {
                    let fits = budgets.iter().all(|budget| {
                        let resource = budget.name.resource as usize;
                        let held = model.spent[&budget.name].2 + reserved(&open, &model, &budget.name);
                        amounts[resource] == 0 || held + amounts[resource] <= budget.cap
                    });
                    match accounts.reserve(model.now_ms, Amounts(amounts), None) {
                        Ok(reservation) => {
                            prop_assert!(fits, "accepted what does not fit");
                            let windows = model.spent.iter().map(|(name, (start, reset, _))| (*name, (*start, *reset)));
                            open.push((reservation, windows.collect()));
                        }
                        Err(refused) => {
                            prop_assert!(!fits, "refused what fits: {}", refused);
                            prop_assert_eq!(refused.why, Why::Cap);
                            prop_assert!(refused.possible_ms.is_none_or(|at| at > model.now_ms));
                        }
                    }
                }
                Step::Settle(which, parts) => if !open.is_empty() {
                    let (reservation, windows) = open.swap_remove(which % open.len());
                    let amounts = reservation.amounts().0;
                    let measured: [Option<u64>; 4] =
                        std::array::from_fn(|r| parts[r].map(|part| amounts[r] * part / 100));
                    let settled = accounts.settle(model.now_ms, reservation, measured);
                    prop_assert_eq!(settled.over, Amounts::ZERO);
                    settled.charges.iter().for_each(|charge| model.write(charge));
                    for (name, window) in windows {
                        let at = name.resource as usize;
                        let entry = model.spent.get_mut(&name).unwrap();
                        if (entry.0, entry.1) == window {
                            entry.2 += measured[at].unwrap_or(amounts[at]);
                        }
                    }
                },
                Step::Reset(which) => {
                    let name = budgets[which % budgets.len()].name;
                    let spending = accounts.reset(model.now_ms, name).unwrap().spending;
                    let (_, reset, _) = model.spent[&name];
                    model.spent.insert(name, (name.window.start_of(model.now_ms), reset + 1, 0));
                    model.disk.insert((name, spending.generation), spending);
                }
                // What is settled is on the disk; turns under way end as cut off, with all that they reserved.
                Step::Restart => {
                    for (reservation, windows) in open.drain(..) {
                        let amounts = reservation.amounts().0;
                        let settled = accounts.settle(model.now_ms, reservation, [None; 4]);
                        settled.charges.iter().for_each(|charge| model.write(charge));
                        for (name, window) in windows {
                            let entry = model.spent.get_mut(&name).unwrap();
                            if (entry.0, entry.1) == window {
                                entry.2 += amounts[name.resource as usize];
                            }
                        }
                    }
                    // A window that nothing was spent of has no row, and begins again.
                    let fresh = Accounts::new(&budgets, &model.newest(), model.now_ms);
                    accounts = fresh;
                }
            }
            accounts.roll(model.now_ms);
            model.roll(&budgets);
            for account in accounts.accounts() {
                let name = account.budget.name;
                prop_assert_eq!(account.spending.spent, model.spent[&name].2, "{}", name);
                prop_assert_eq!(account.reserved, reserved(&open, &model, &name), "{}", name);
                prop_assert!(account.spending.spent + account.reserved <= account.budget.cap);
                prop_assert!(account.spending.unknown <= account.spending.spent);
            }
        }
    }

    /// A pacer that obeys the gate is never further ahead than it says, whatever the turns cost and whenever they come.
    #[test]
    fn the_gate_bounds_the_lead(
        turns in prop::collection::vec((1i64..60_000, 1u64..30_000), 1..400),
    ) {
        let mut accounts = Accounts::new(&[budget(Resource::Usd, Window::Hour, 1_000_000)], &BTreeMap::new(), 0);
        let mut now_ms = 0;
        for (wait, cost) in turns {
            now_ms += wait;
            accounts.roll(now_ms);
            if accounts.on_pace(now_ms, &usd(cost)).is_ok() {
                let reservation = accounts.reserve(now_ms, usd(cost), None).unwrap();
                let _ = accounts.settle(now_ms, reservation, [Some(cost), None, None, None]);
            }
            prop_assert!(accounts.accounts()[0].lead(now_ms, 0).unwrap() <= MAX_LEAD);
        }
    }
}

#[test]
fn of_several_budgets_the_one_that_refuses_longest_is_named() {
    let hour = budget(Resource::Usd, Window::Hour, 10);
    let day = budget(Resource::Usd, Window::Day, 15);
    let mut accounts = Accounts::new(&[hour, day], &BTreeMap::new(), 0);
    let reservation = accounts.reserve(0, usd(10), None).unwrap();
    let refused = accounts.fits(&usd(6), None).unwrap_err();
    assert_eq!((refused.name.window, refused.left, refused.possible_ms), (Window::Day, 5, Some(24 * HOUR_MS)));
    assert_eq!(refused.to_string(), "usd_per_day: 0.000000006 needed, 0.000000005 left");
    let refused = accounts.fits(&usd(1), None).unwrap_err();
    assert_eq!((refused.name.window, refused.possible_ms), (Window::Hour, Some(HOUR_MS)));
    // More than a whole cap is never possible, and what costs nothing always.
    assert_eq!(accounts.fits(&usd(16), None).unwrap_err().possible_ms, None);
    assert!(accounts.fits(&Amounts::ZERO, None).is_ok());
    let _ = accounts.settle(0, reservation, [Some(0), None, None, None]);
    assert!(accounts.fits(&usd(10), None).is_ok());
}

#[test]
fn the_floor_uses_a_budget_up() {
    let floor = Budget { floor_percent: Some(20.0), ..budget(Resource::EnergyJ, Window::Day, 1_000) };
    let accounts = Accounts::new(&[floor], &BTreeMap::new(), 0);
    let joule = Amounts([0, 1, 0, 0]);
    assert!(accounts.fits(&joule, Some(20.5)).is_ok() && accounts.fits(&joule, None).is_ok());
    assert!(matches!(accounts.fits(&joule, Some(20.0)).unwrap_err().why, Why::Floor { .. }));
    assert!(accounts.fits(&usd(5), Some(1.0)).is_ok(), "money is not energy");
}

#[test]
fn every_budget_may_have_a_floor_of_its_own() {
    for resource in Resource::ALL {
        let budget = |window, floor_percent| Budget { floor_percent, ..budget(resource, window, 1_000) };
        let both = [budget(Window::Hour, Some(30.0)), budget(Window::Mission, Some(10.0))];
        let mut accounts = Accounts::new(&both, &BTreeMap::new(), 0);
        let mut one = Amounts::ZERO;
        one[resource] = 1;
        let held = accounts.reserve(0, one, Some(30.5)).unwrap();
        let refused = accounts.reserve(0, one, Some(30.0)).unwrap_err();
        assert_eq!((refused.name.window, refused.possible_ms, refused.left), (Window::Hour, None, 999));
        let told = format!(
            "{}_per_hour: nothing is given from it while the battery is at or below its floor of 30 %",
            resource.name()
        );
        assert!(refused.to_string().starts_with(&told), "{refused}");
        // What costs nothing of it is not held back, nor is anything on mains.
        assert!(accounts.fits(&Amounts::ZERO, Some(1.0)).is_ok() && accounts.fits(&one, None).is_ok());
        // What was given before the battery came down is settled as ever.
        let mut cost = [Some(0); 4];
        cost[resource as usize] = Some(1);
        assert_eq!(accounts.settle(0, held, cost).charges.len(), 2);
    }
}

#[test]
fn a_cost_above_its_reservation_is_counted_and_told() {
    let mut accounts = Accounts::new(&[budget(Resource::Usd, Window::Day, 100)], &BTreeMap::new(), 0);
    let reservation = accounts.reserve(0, usd(60), None).unwrap();
    let settled = accounts.settle(0, reservation, [Some(75), Some(9), Some(9), None]);
    assert_eq!(settled.over, usd(15), "what has no budget is not looked at");
    assert_eq!(accounts.left(Resource::Usd), Some(25));
}

#[test]
fn other_caps_keep_what_was_spent() {
    let day = budget(Resource::Usd, Window::Day, 100);
    let mut accounts = Accounts::new(&[day], &BTreeMap::new(), 0);
    let first = accounts.reserve(0, usd(60), None).unwrap();
    let _ = accounts.settle(0, first, [Some(60), None, None, None]);
    let second = accounts.reserve(0, usd(40), None).unwrap();
    accounts.configure(&[Budget { cap: 80, ..day }, budget(Resource::Usd, Window::Hour, 50)], &BTreeMap::new(), 0);
    assert_eq!(accounts.left(Resource::Usd), Some(0));
    assert_eq!(accounts.accounts()[1].left(), 50);
    let _ = accounts.settle(0, second, [Some(5), None, None, None]);
    assert_eq!(accounts.left(Resource::Usd), Some(15));
}

/// Turns with values and costs drawn from one seed; a policy takes the cloud where its value is above its price.
/// It must use what the line gives, and earn nearly what the best threshold earns that knows all turns.
#[test]
fn the_price_finds_the_turns_that_are_worth_it() {
    use rand::{Rng, SeedableRng};
    let (cap, window_ms, turns) = (1_000_000_000u64, HOUR_MS, 4_000);
    for seed in 0..5 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        // On average three times as much as the line has room for.
        let mean = 3.0 * PACED_SHARE * cap as f64 / f64::from(turns);
        let drawn: Vec<(f64, f64)> =
            (0..turns).map(|_| (random.random_range(0.0..1.0), mean * random.random_range(0.2..1.8))).collect();
        let mut accounts = Accounts::new(&[budget(Resource::Usd, Window::Hour, cap)], &BTreeMap::new(), 0);
        let (mut earned, mut highest) = (0.0, f64::MIN);
        for (turn, (value, cost)) in drawn.iter().enumerate() {
            let now_ms = window_ms * turn as i64 / i64::from(turns);
            let cost_usd = Some(Resource::Usd.value(*cost as u64));
            let price = accounts.prices(now_ms).of(&Cost { cost_usd, ..Cost::ZERO });
            if *value > price && accounts.on_pace(now_ms, &usd(*cost as u64)).is_ok() {
                let reservation = accounts.reserve(now_ms, usd(*cost as u64), None).unwrap();
                let _ = accounts.settle(now_ms, reservation, [Some(*cost as u64), None, None, None]);
                earned += value;
            }
            highest = highest.max(accounts.accounts()[0].lead(now_ms, 0).unwrap());
        }
        let mut best: Vec<(f64, f64)> = drawn.clone();
        best.sort_by(|a, b| (b.0 / b.1).total_cmp(&(a.0 / a.1)));
        let mut room = PACED_SHARE * cap as f64;
        let best: f64 = best
            .iter()
            .take_while(|turn| {
                room -= turn.1;
                room >= 0.0
            })
            .map(|turn| turn.0)
            .sum();
        let spent = accounts.accounts()[0].spending.spent as f64 / cap as f64;
        assert!(highest <= MAX_LEAD, "seed {seed}: ahead by {highest}");
        assert!((0.88..=PACED_SHARE + MAX_LEAD).contains(&spent), "seed {seed}: spent {spent}");
        assert!(earned >= 0.9 * best, "seed {seed}: earned {earned:.1}, the best {best:.1}");
    }
}
