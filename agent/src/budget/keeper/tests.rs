use super::*;
use crate::budget::lease;
use crate::config::{EnergyFile, OnExhausted};
use std::sync::atomic::{AtomicI64, Ordering};
use tether_policies::budget::{Charge, Resource, Window};

const CAP: u64 = 1_000_000;

fn settings() -> BudgetSettings {
    let mut settings = BudgetSettings {
        budgets: Vec::new(),
        mission_ms: None,
        battery_floor_percent: None,
        floors_percent: BTreeMap::new(),
        latency_ms: None,
        on_exhausted: OnExhausted::Refuse,
        pacing: true,
        prices: None,
        image_tokens: 0,
        energy: EnergyFile::default(),
    };
    settings.budgets = vec![settings.budget(usd(), CAP)];
    settings
}

fn usd() -> BudgetName {
    BudgetName { resource: Resource::Usd, window: Window::Day }
}

fn noon() -> i64 {
    86_400_000 * 20_000 + 43_200_000
}

fn open(folder: &std::path::Path, saved: SavedBudgets, boot: &str) -> (Keeper, Vec<String>) {
    let (keeper, notices, _) = Keeper::open(&settings(), saved, folder.join("lease"), boot.into(), noon);
    (keeper, notices)
}

fn spend(keeper: &Keeper, count: u64) -> Vec<tether_policies::budget::Charge> {
    let reservation = keeper.reserve(Amounts([count, 0, 0, 0]), None).unwrap();
    keeper.settle(reservation, [Some(count), Some(0), Some(0), Some(0)]).charges
}

#[test]
fn the_lease_on_the_disk_is_never_behind_what_may_be_spent() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, notices) = open(folder.path(), SavedBudgets::default(), "boot");
    assert!(notices.is_empty(), "{notices:?}");
    let mut writes = 0;
    for _ in 0..200 {
        let reservation = keeper.reserve(Amounts([2_000, 0, 0, 0]), None).unwrap();
        // What `covered` waits for; here nobody else syncs.
        if !keeper.is_covered() {
            keeper.sync().unwrap();
            writes += 1;
        }
        let said = Lease::read(&folder.path().join("lease")).unwrap().unwrap().budgets["usd_per_day"].spent;
        let account = *keeper.lock().0.accounts.get(usd()).unwrap();
        assert!(said >= account.spending.spent + 2_000, "{said}");
        assert!(said <= CAP, "{said}");
        let _ = keeper.settle(reservation, [Some(1_500), None, None, None]);
    }
    assert!(writes < 40, "the lease reaches ahead: {writes} writes for 200 turns");
}

#[test]
fn after_a_power_cut_the_lease_counts_and_after_a_crash_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path(), SavedBudgets::default(), "boot 1");
    let charges = spend(&keeper, 10_000);
    keeper.sync().unwrap();
    let saved = |spent| {
        let charge = charges[0];
        let spending =
            Spending { generation: charge.generation, start_ms: charge.start_ms, spent, unknown: 0, turns: 1 };
        SavedBudgets { spending: BTreeMap::from([(usd(), spending)]), ..SavedBudgets::default() }
    };
    let spent = |keeper: &Keeper| keeper.lock().0.accounts.get(usd()).unwrap().spending.spent;
    // The same boot: the database has all that the operating system was given.
    assert_eq!(spent(&open(folder.path(), saved(10_000), "boot 1").0), 10_000);
    // Another boot: the last second may be gone.
    let (cut, notices) = open(folder.path(), saved(3_000), "boot 2");
    assert!(spent(&cut) >= 10_000 && notices[0].contains("after a power cut"), "{notices:?}");
    // Closed in order: the database counts, whatever the boot.
    keeper.close().unwrap();
    assert_eq!(spent(&open(folder.path(), saved(10_000), "boot 3").0), 10_000);
    // The database is gone.
    assert_eq!(spent(&open(folder.path(), SavedBudgets::default(), "boot 3").0), 10_000);
    // A damaged lease is told, and the database counts.
    std::fs::write(folder.path().join("lease"), "garbage").unwrap();
    let (damaged, notices) = open(folder.path(), saved(3_000), "boot 4");
    assert!(spent(&damaged) == 3_000 && notices[0].contains("damaged"), "{notices:?}");
}

#[test]
fn a_clock_that_steps_back_gives_no_window_again() {
    static WALL_MS: AtomicI64 = AtomicI64::new(0);
    WALL_MS.store(noon(), Ordering::Relaxed);
    let folder = tempfile::tempdir().unwrap();
    let wall = || WALL_MS.load(Ordering::Relaxed);
    let open = |saved| Keeper::open(&settings(), saved, folder.path().join("lease"), "boot".into(), wall).0;
    let keeper = open(SavedBudgets::default());
    let charge = spend(&keeper, CAP)[0];
    for step_ms in [-3_600_000, -86_400_000, -86_400_000 * 400, 3_600_000] {
        WALL_MS.store(noon() + step_ms, Ordering::Relaxed);
        assert!(keeper.reserve(Amounts([1, 0, 0, 0]), None).is_err(), "{step_ms}");
        // Not after a restart either.
        let Charge { generation, start_ms, spent, .. } = charge;
        let spending = Spending { generation, start_ms, spent, unknown: 0, turns: 1 };
        let again = open(SavedBudgets { spending: BTreeMap::from([(usd(), spending)]), ..SavedBudgets::default() });
        assert!(again.reserve(Amounts([1, 0, 0, 0]), None).is_err(), "{step_ms} and a restart");
    }
    WALL_MS.store(noon() + 43_200_000, Ordering::Relaxed);
    assert!(keeper.reserve(Amounts([CAP, 0, 0, 0]), None).is_ok(), "the next day");
}

#[test]
fn caps_set_while_running_go_before_the_settings_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path(), SavedBudgets::default(), "boot");
    let _ = spend(&keeper, 500);
    keeper.set(usd(), Some(700));
    let status = keeper.status(None);
    assert_eq!((status.budgets[0].left, status.budgets[0].source.as_str()), (200e-9, "set"));
    keeper.configure(&settings());
    assert_eq!(keeper.remaining()["usd_per_day"], 200e-9, "a reload does not undo it");
    keeper.set(usd(), None);
    assert_eq!(keeper.remaining()["usd_per_day"], (CAP - 500) as f64 / 1e9);
    let uplink = BudgetName { resource: Resource::UplinkBytes, window: Window::Hour };
    assert!(matches!(keeper.reset(uplink), Err(SetError::NotInForce(_))));
    keeper.set(uplink, Some(10));
    assert_eq!(keeper.new_windows().len(), 2);
    assert!(keeper.new_windows().is_empty(), "each window is told once");
    assert_eq!(keeper.reset(usd()).unwrap().spent, 0);
    assert_eq!(keeper.remaining()["usd_per_day"], CAP as f64 / 1e9);
}

#[tokio::test]
async fn a_turn_waits_for_the_lease_and_not_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = std::sync::Arc::new(open(folder.path(), SavedBudgets::default(), "boot").0);
    let syncing = keeper.clone();
    let _task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            syncing.wants_sync(Duration::from_secs(1)).await;
            syncing.sync().unwrap();
        }
    }));
    let begun = Instant::now();
    for _ in 0..100 {
        let reservation = keeper.reserve(Amounts([1_000, 0, 0, 0]), None).unwrap();
        keeper.covered().await;
        assert!(keeper.is_covered());
        let _ = keeper.settle(reservation, [Some(1_000), None, None, None]);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(lease::Lease::read(&folder.path().join("lease")).unwrap().is_some());
}

#[tokio::test]
async fn every_begin_and_settlement_is_synced_also_without_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let crate::store::Opened { store, budgets, .. } = crate::store::Store::open(&folder.path().join("t.db")).unwrap();
    let none = BudgetSettings { budgets: Vec::new(), ..settings() };
    let (keeper, _, _) = Keeper::open(&none, budgets, folder.path().join("lease"), "boot".into(), noon);
    let wants_sync = async || {
        let wanted = keeper.wants_sync(Duration::from_millis(1));
        tokio::time::timeout(Duration::from_millis(500), wanted).await.is_ok()
    };
    assert!(wants_sync().await, "once at the start");
    assert!(!wants_sync().await, "nothing was written");
    let record = crate::testing::turn_record("a1");
    store.begin_soon(&record, &Amounts::ZERO);
    assert!(wants_sync().await, "a begin");
    store.settle(&record, None).await.unwrap();
    assert!(wants_sync().await, "a settlement");
    store.turn_count().await.unwrap();
    let _ = wants_sync().await;
    assert!(!wants_sync().await, "reading needs no sync");
    assert!(!folder.path().join("lease").exists(), "without a budget there is no lease");
}
