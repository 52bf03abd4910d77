//! What a turn holds: its part of the budgets, and what it draws from them.

use crate::budget::energy::{Draw, modelled_j};
use crate::budget::{Guard, most_downlink, most_uplink};
use crate::daemon::{Daemon, Live};
use std::collections::BTreeMap;
use std::time::Instant;
use tether_policies::budget::{Amounts, Charge, Refused, Reservation, Resource, counts};
use tether_protocol::{Action, Route, TurnRecord};

/// Codes of errors with which a gateway refuses a turn before it asks a model: such a turn costs no money.
const FREE_REFUSALS: [&str; 8] = [
    "cloud_refused",
    "cloud_unauthorized",
    "cloud_overloaded",
    "cloud_draining",
    "model_not_found",
    "no_vision",
    "context_length_exceeded",
    "cloud_untrusted",
];

pub(super) struct Held {
    reservation: Option<Reservation>,
    /// What each permitted action would reserve.
    amounts: BTreeMap<Action, Amounts>,
    battery_percent: Option<f64>,
    pub(super) guard: Guard,
    /// An attempt at the cloud is under way, or was when its reader went away.
    in_flight: bool,
    /// An earlier attempt may have to be paid although nobody told its price.
    charged: bool,
    draw: Option<Draw>,
}

impl Held {
    pub(super) fn begin(
        daemon: &Daemon,
        reservation: Option<Reservation>,
        amounts: BTreeMap<Action, Amounts>,
        battery_percent: Option<f64>,
    ) -> Self {
        let (guard, draw) = (Guard::default(), Some(daemon.energy().begin()));
        Self { reservation, amounts, battery_percent, guard, in_flight: false, charged: false, draw }
    }

    pub(super) fn reserved(&self) -> Amounts {
        self.reservation.as_ref().map(|reservation| *reservation.amounts()).unwrap_or_default()
    }

    /// Writes the turn's begin. A turn whose bytes leave the device, or that holds a part of a budget, waits until the
    /// operating system has it, and until the lease covers it; another one does not wait.
    pub(super) async fn write_begin(&self, daemon: &Daemon, record: &TurnRecord) {
        if self.reservation.is_none() && record.route == Route::Local {
            return daemon.store().begin_soon(record, &Amounts::ZERO);
        }
        if self.reservation.is_some() {
            let windows = daemon.budgets().new_windows();
            if !windows.is_empty() {
                daemon.store().open_windows(windows);
            }
        }
        daemon.ledger_result(daemon.store().begin(record, &self.reserved()).await);
        if self.reservation.is_some() {
            daemon.budgets().covered().await;
        }
    }

    /// Before an attempt: where to cut it.
    pub(super) fn attempt(&mut self, daemon: &Daemon, route: Route) {
        self.in_flight = route == Route::Cloud;
        if self.reservation.is_some() {
            self.guard = daemon.budgets().guard(&self.reserved(), route, Instant::now());
        }
    }

    /// Before the other side is tried: its cost is reserved as well, because the first attempt's may be due all the same.
    ///
    /// # Errors
    /// The budget that refuses.
    pub(super) async fn reserve_other(
        &mut self,
        daemon: &Daemon,
        record: &mut TurnRecord,
        action: Action,
    ) -> Result<(), Refused> {
        let amounts = self.amounts.get(&action).copied().unwrap_or_default();
        self.join(daemon, record, amounts, false).await
    }

    /// What is not reserved yet of the bytes that the cloud's attempt may cost, where they have a budget, if it is predicted
    /// to send so many.
    pub(super) fn missing(&self, daemon: &Daemon, uplink_bytes: u64, max_tokens: u32) -> Amounts {
        let Some(reservation) = &self.reservation else { return Amounts::ZERO };
        let reserved = reservation.amounts();
        let most = [
            (Resource::UplinkBytes, most_uplink(uplink_bytes)),
            (Resource::DownlinkBytes, most_downlink(uplink_bytes, max_tokens)),
        ];
        daemon.budgets().with_accounts(|accounts| {
            let mut missing = Amounts::ZERO;
            for (resource, most) in most.into_iter().filter(|(resource, _)| accounts.limits(*resource)) {
                missing[resource] = most.saturating_sub(reserved[resource]);
            }
            missing
        })
    }

    /// Before the cloud's attempt sends more than was reserved for it.
    ///
    /// # Errors
    /// The budget that refuses, unless it is to be passed `anyway`.
    pub(super) async fn reserve_more(
        &mut self,
        daemon: &Daemon,
        record: &mut TurnRecord,
        missing: Amounts,
        anyway: bool,
    ) -> Result<(), Refused> {
        self.join(daemon, record, missing, anyway).await?;
        self.attempt(daemon, Route::Cloud);
        Ok(())
    }

    async fn join(
        &mut self,
        daemon: &Daemon,
        record: &mut TurnRecord,
        amounts: Amounts,
        anyway: bool,
    ) -> Result<(), Refused> {
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        let more = match daemon.budgets().reserve(amounts, self.battery_percent) {
            Err(_) if anyway => daemon.budgets().reserve_anyway(amounts),
            reserved => reserved?,
        };
        reservation.join(more);
        let reserved = *reservation.amounts();
        record.reserved = Some(reserved.cost());
        daemon.ledger_result(daemon.store().reserve(record.turn_id.clone(), &reserved).await);
        daemon.budgets().covered().await;
        Ok(())
    }

    /// Notes how an attempt failed.
    pub(super) fn failed(&mut self, code: &str, sent: Option<(u64, u64)>) {
        self.charged |= self.in_flight && sent != Some((0, 0)) && !FREE_REFUSALS.contains(&code);
        self.in_flight = false;
    }

    /// Whether the answer's own price is all that has to be paid.
    pub(super) fn nothing_before(&self) -> bool {
        !self.charged
    }

    /// Completes what was measured, and settles.
    pub(super) fn settle(&mut self, daemon: &Daemon, live: &Live, record: &mut TurnRecord) -> Vec<Charge> {
        self.measure_energy(daemon, live, record);
        if record.measured.cost_usd.is_none() && !self.in_flight && !self.charged {
            record.measured.cost_usd = Some(0.0);
        }
        let Some(reservation) = self.reservation.take() else { return Vec::new() };
        let reserved = *reservation.amounts();
        let settled = daemon.budgets().settle(reservation, counts(&record.measured));
        if settled.over != Amounts::ZERO {
            daemon.metrics().failed("over_reservation");
            tracing::warn!(turn_id = %record.turn_id, over = ?settled.over.0, reserved = ?reserved.0,
                "a turn cost more than was reserved for it");
        }
        settled.charges
    }

    fn measure_energy(&mut self, daemon: &Daemon, live: &Live, record: &mut TurnRecord) {
        let measured = self.draw.take().and_then(|draw| daemon.energy().end(&draw));
        let timings = &record.timings;
        let working_ms = timings.total_ms.map(|total_ms| (total_ms - timings.queue_ms.unwrap_or(0.0)).max(0.0));
        let energy = &live.settings.budgets.energy;
        let modelled = || modelled_j(energy, record.route, working_ms?, timings.decision_us);
        let (energy_j, source) = match measured {
            Some((energy_j, source)) => (Some(energy_j), source),
            None => match modelled() {
                Some(energy_j) => (Some(energy_j), "modelled"),
                None => (None, "unknown"),
            },
        };
        record.measured.energy_j = energy_j;
        record.energy_source = source.into();
    }
}
