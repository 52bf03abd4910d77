//! What the ledger and the budgets add to a turn, and how long a million turns take to ask.

use crate::bench::median;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether::budget::Keeper;
use tether::budget::lease::boot_id;
use tether::config::{Settings, load_from};
use tether::store::{Limits, Settling, Store};
use tether_policies::budget::{Amounts, counts};
use tether_protocol::context::ViewContext;
use tether_protocol::record::{FinishReason, Outcome};
use tether_protocol::{Action, Cost, Reading, Route, SessionId, TurnId, TurnRecord, ViewName};

pub const TURNS: usize = 2_000;
const MILLION: usize = 1_000_000;
/// Turns of one transaction while the million is written.
const BATCH: usize = 2_000;

#[derive(Debug, Clone, Copy)]
pub struct Added {
    pub cloud_us: f64,
    pub cloud_p90_us: f64,
    pub local_us: f64,
}

fn settings(folder: &Path) -> Result<Settings> {
    let file = folder.join("bench.toml");
    let text = "[model]\nname = \"none\"\n[cloud]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\nmodel = \"none\"\n\
                [budgets]\nusd_per_day = 100\nuplink_bytes_per_day = 100_000_000_000\ndownlink_bytes_per_hour = 100_000_000_000\n";
    std::fs::write(&file, text)?;
    Ok(load_from(Some(&file), &BTreeMap::new())?.settings)
}

fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// A turn as the daemon records it: four views, and 16 actions with their predicted costs.
fn record(number: usize, views: usize, route: Route) -> Result<TurnRecord> {
    let mut record = tether::testing::turn_record(&format!("0199a1b2-{number:012x}"));
    record.session = Some(SessionId::new(format!("session-{}", number % 1_000))?);
    for name in ["front", "side", "overhead", "sensors"].into_iter().take(views) {
        record.context.views.push(ViewContext {
            name: ViewName::new(name)?,
            encoded_bytes: Reading::known(41_234, 120, "encoded"),
            attached: false,
            is_text: false,
            local_only: false,
            association: Some(0.3),
        });
    }
    let actions = 1 << views;
    record.permitted = (0..actions).map(Action).collect();
    let predicted = Cost { cost_usd: Some(0.001_234), uplink_bytes: Some(41_746), ..Cost::ZERO };
    record.predicted_costs = vec![predicted; actions as usize];
    record.probabilities = Some(vec![1.0 / f64::from(actions); actions as usize]);
    record.route = route;
    record.action = if route == Route::Local { Action::LOCAL } else { Action(1) };
    record.measured = Cost { cost_usd: Some(0.000_987), energy_j: None, ..predicted };
    record.outcome = Outcome::Answered { finish_reason: FinishReason::Stop };
    Ok(record)
}

/// Times exactly what a turn waits for, the records made beforehand.
///
/// # Errors
/// The ledger cannot be used.
pub async fn added_us(folder: &Path) -> Result<Added> {
    let settings = settings(folder)?;
    let opened = Store::open(&folder.join("added.db"))?;
    let store = opened.store;
    let (keeper, _, _) =
        Keeper::open(&settings.budgets, opened.budgets, folder.join("added.lease"), boot_id(), wall_ms);
    let (keeper, store) = (Arc::new(keeper), Arc::new(store));
    // As the daemon does, beside the turns.
    let syncing = tokio::spawn({
        let (keeper, store) = (keeper.clone(), store.clone());
        async move {
            loop {
                keeper.wants_sync(Duration::from_secs(1)).await;
                let (keeper, store) = (keeper.clone(), store.clone());
                let synced = tokio::task::spawn_blocking(move || (keeper.sync(), store.sync())).await;
                if let Ok((Err(error), _)) = synced {
                    eprintln!("the lease: {error}");
                }
            }
        }
    });
    let (mut cloud, mut local) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let record = record(2 * turn, 4, Route::Cloud)?;
        let begun = Instant::now();
        let reservation = keeper.reserve(Amounts([2_000_000, 0, 64_000, 65_000]), None);
        let reservation = reservation.map_err(|refused| anyhow::anyhow!("{refused}"))?;
        let windows = keeper.new_windows();
        if !windows.is_empty() {
            store.open_windows(windows);
        }
        store.begin(&record, reservation.amounts()).await?;
        keeper.covered().await;
        let charges = keeper.settle(reservation, counts(&record.measured)).charges;
        store.settle(&record, Settling { charges, ..Settling::default() }).await?;
        cloud.push(begun.elapsed().as_secs_f64() * 1e6);

        let record = self::record(2 * turn + 1, 4, Route::Local)?;
        let begun = Instant::now();
        store.begin_soon(&record, &Amounts::ZERO);
        let begin_us = begun.elapsed().as_secs_f64() * 1e6;
        // The model works for longer than a write takes.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let begun = Instant::now();
        store.settle(&record, Settling::default()).await?;
        local.push(begin_us + begun.elapsed().as_secs_f64() * 1e6);
    }
    syncing.abort();
    let cloud_us = median(&mut cloud);
    Ok(Added { cloud_us, cloud_p90_us: cloud[cloud.len() * 9 / 10], local_us: median(&mut local) })
}

#[derive(Debug, Clone)]
pub struct Queries {
    pub turns: u64,
    pub written_s: f64,
    pub bytes: u64,
    /// Each query by its name, the first time it is asked after the ledger was opened.
    pub seconds: Vec<(&'static str, f64)>,
}

/// # Errors
/// The ledger cannot be used.
pub async fn million(folder: &Path) -> Result<Queries> {
    let path = folder.join("million.db");
    let limits = Limits { max_turns: u64::MAX, max_age_ms: i64::MAX, max_bytes: u64::MAX };
    let store = Store::open_with(&path, limits)?.store;
    let begun = Instant::now();
    for batch in 0..MILLION / BATCH {
        let turns = (batch * BATCH..(batch + 1) * BATCH).map(|number| {
            let route = if number % 3 == 0 { Route::Cloud } else { Route::Local };
            Ok((record(number, 2, route)?, Settling::default()))
        });
        store.settle_all(turns.collect::<Result<Vec<_>>>()?).await?;
        if batch % 50 == 49 {
            eprintln!("{} turns written", (batch + 1) * BATCH);
        }
    }
    drop(store);
    let written_s = begun.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    let mut timed = |name, begun: Instant| seconds.push((name, begun.elapsed().as_secs_f64()));
    let begun = Instant::now();
    let store = Store::open_with(&path, limits)?.store;
    timed("open", begun);
    let begun = Instant::now();
    let turns = store.turn_count().await?;
    timed("count", begun);
    let begun = Instant::now();
    let newest = store.turns(1_000, None, None).await?;
    timed("newest thousand", begun);
    let begun = Instant::now();
    let middle = TurnId::new(format!("0199a1b2-{:012x}", MILLION / 2))?;
    let older = store.turns(20, Some(middle.clone()), None).await?;
    timed("page in the middle", begun);
    let begun = Instant::now();
    let one = store.turn(middle).await?.context("the middle turn is missing")?;
    timed("one turn", begun);
    let begun = Instant::now();
    let session = store.turns(1_000, None, one.session.clone()).await?;
    timed("one session", begun);
    let begun = Instant::now();
    let totals = store.totals(0).await?;
    timed("totals of all by route", begun);
    let summed: u64 = totals.iter().map(|totals| totals.turns).sum();
    anyhow::ensure!(
        (newest.len(), older.len(), session.len()) == (1_000, 20, 1_000) && summed == turns && turns == MILLION as u64,
        "the queries do not find what was written"
    );
    Ok(Queries { turns, written_s, bytes: std::fs::metadata(&path)?.len(), seconds })
}
