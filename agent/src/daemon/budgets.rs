//! The budgets' place in the daemon: opened beside the database, synced at most a second apart, closed after it.

use super::{Daemon, unix_ms};
use crate::budget::Keeper;
use crate::budget::lease::boot_id;
use crate::config::Settings;
use crate::store::{SavedBudgets, Store};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What is not synced for so long is covered by the lease.
const SYNC_GROUP: Duration = Duration::from_secs(1);

/// The keeper; dropping it writes that the daemon stopped in order, if the database has everything by then.
pub(super) struct Budgets(pub(super) Arc<Keeper>);

impl Budgets {
    pub(super) async fn open(
        settings: &Settings,
        store: &Store,
        saved: SavedBudgets,
        notices: &mut Vec<String>,
    ) -> Self {
        let mut lease = settings.ledger.path.clone().into_os_string();
        lease.push(".lease");
        let (keeper, told, raised) = Keeper::open(&settings.budgets, saved, PathBuf::from(lease), boot_id(), unix_ms);
        notices.extend(told);
        for (name, spending) in raised {
            if let Err(error) = store.put_spending(name, spending).await {
                notices.push(format!("{name}: {error}"));
            }
        }
        store.open_windows(keeper.new_windows());
        Self(Arc::new(keeper))
    }

    pub(super) fn configure(&self, settings: &crate::config::BudgetSettings) {
        self.0.configure(settings);
    }
}

impl Drop for Budgets {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::error!(%error, "the next start takes this one for a crash");
        }
    }
}

/// Syncs what was written, together for all turns of a second, keeps the lease ahead of what is reserved, and tries
/// again what could not be written. Idle while nothing happens; ends with the daemon.
pub(super) async fn keep_synced(daemon: Weak<Daemon>, keeper: Arc<Keeper>) {
    loop {
        keeper.wants_sync(SYNC_GROUP).await;
        let Some(daemon) = daemon.upgrade() else { return };
        let syncing = tokio::task::spawn_blocking(move || {
            let lease = daemon.budgets().sync().map_err(|error| error.to_string());
            let log = daemon.store().sync().map_err(|error| format!("the ledger: {error}"));
            match lease.and(log) {
                Ok(()) => daemon.clear_problem("sync"),
                Err(error) => daemon.report("sync", &error),
            }
            daemon
        });
        if let Ok(daemon) = syncing.await {
            // Not logged every second: whoever could not write it told it loudly.
            let problem = daemon.store().retry().await.err().map(|error| error.to_string());
            daemon.set_problem("ledger", problem.unwrap_or_default());
        }
    }
}
