//! Joules of a turn: measured by a meter where there is one, else modelled from the configured power, else unknown.

use crate::config::EnergyFile;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_protocol::Route;

/// A cumulative meter of the device.
pub trait EnergyMeter: Send + Sync {
    /// Joules drawn since some fixed moment, idle power included; `None` if that cannot be read now. Must not block.
    fn total_j(&self) -> Option<f64>;

    /// What a record calls joules from here.
    fn source(&self) -> &'static str {
        "measured"
    }
}

/// Divides the meter's growth equally among the turns under way.
#[derive(Default)]
pub struct Energy {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    meter: Option<Arc<dyn EnergyMeter>>,
    last_j: Option<f64>,
    next: u64,
    /// What each turn under way has drawn; `None`: the meter failed meanwhile.
    turns: BTreeMap<u64, Option<f64>>,
}

/// A turn that draws energy.
#[derive(Debug)]
pub struct Draw(u64);

impl Energy {
    /// From now on this meter measures. Turns under way are not measured.
    pub fn set_meter(&self, meter: Option<Arc<dyn EnergyMeter>>) {
        let mut state = self.lock();
        state.last_j = meter.as_ref().and_then(|meter| meter.total_j());
        state.meter = meter;
        state.turns.values_mut().for_each(|drawn| *drawn = None);
    }

    pub fn begin(&self) -> Draw {
        let mut state = self.lock();
        state.divide();
        let id = state.next;
        state.next += 1;
        let drawn = state.last_j.map(|_| 0.0);
        state.turns.insert(id, drawn);
        Draw(id)
    }

    /// Joules of the turn and what to call them, if they were measured from its begin to now.
    pub fn end(&self, draw: &Draw) -> Option<(f64, &'static str)> {
        let mut state = self.lock();
        state.divide();
        let drawn = state.turns.remove(&draw.0).flatten();
        drawn.zip(state.meter.as_ref().map(|meter| meter.source()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn divide(&mut self) {
        let Some(meter) = &self.meter else { return };
        let now_j = meter.total_j();
        let grown = now_j.zip(self.last_j).map(|(now, last)| now - last).filter(|grown| *grown >= 0.0);
        let share = grown.map(|grown| grown / self.turns.len().max(1) as f64);
        for drawn in self.turns.values_mut() {
            *drawn = drawn.zip(share).map(|(drawn, share)| drawn + share);
        }
        self.last_j = now_j;
    }
}

/// Joules at the configured power: of the route's side for as long as it worked, and of the device for the decision.
pub fn modelled_j(settings: &EnergyFile, route: Route, working_ms: f64, decision_us: u64) -> Option<f64> {
    let decision_j = settings.local_power_w.map(|power_w| power_w * decision_us as f64 / 1e6);
    let power_w = match route {
        Route::Local => settings.local_power_w?,
        Route::Cloud => settings.cloud_power_w?,
    };
    Some(power_w * working_ms / 1e3 + decision_j.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Mutex<Option<f64>>);

    impl EnergyMeter for Fake {
        fn total_j(&self) -> Option<f64> {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn what_the_meter_grows_by_is_divided_and_gaps_are_unknown() {
        let (energy, meter) = (Energy::default(), Arc::new(Fake(Mutex::new(Some(100.0)))));
        let set = |value| *meter.0.lock().unwrap() = value;
        let unmeasured = energy.begin();
        energy.set_meter(Some(meter.clone()));
        let a = energy.begin();
        assert_eq!(energy.end(&unmeasured), None);
        set(Some(110.0));
        let b = energy.begin();
        set(Some(114.0));
        assert_eq!(energy.end(&a), Some((12.0, "measured")));
        set(None);
        let c = energy.begin();
        set(Some(120.0));
        assert_eq!((energy.end(&b), energy.end(&c)), (None, None));
    }

    #[test]
    fn modelled_energy_counts_the_decision() {
        let settings = EnergyFile { local_power_w: Some(10.0), cloud_power_w: Some(2.0) };
        assert_eq!(modelled_j(&settings, Route::Local, 1_500.0, 0), Some(15.0));
        assert_eq!(modelled_j(&settings, Route::Cloud, 1_500.0, 100_000), Some(4.0));
        assert_eq!(modelled_j(&EnergyFile::default(), Route::Cloud, 1.0, 1), None);
    }
}
