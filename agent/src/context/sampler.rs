//! A thread that reads the machine every second or two, and the newest of what it read.
//!
//! A driver that hangs hangs this thread alone: readings then grow old and, past 15 s, unknown.

use super::load;
use super::power::{Now, PowerSource, SIMULATED};
use super::rapl::Counters;
use crate::budget::EnergyMeter;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tether_protocol::context::{Battery, Machine, Power};

/// A fuel gauge is updated about once a second; more often only wakes the processor.
const PERIOD: Duration = Duration::from_secs(2);
/// Older than this a reading is no longer what is.
const MAX_AGE: Duration = Duration::from_secs(15);
/// The power of a sample holds for so long without another one.
const MAX_STEP_S: f64 = 10.0;

/// The newest readings. Dropping it ends the thread.
pub struct Sampler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

struct State {
    at: Instant,
    now: Now,
    machine: Machine,
    counters: Option<Counters>,
    /// Joules since the start; `None` until a power is known.
    total_j: Option<f64>,
    /// Told last: a meter never runs back.
    told_j: f64,
}

impl Sampler {
    /// Reads once in the calling thread's stead, then goes on by itself. Returns at once.
    pub fn start(source: PowerSource, root: PathBuf) -> Self {
        Self::start_with(source, root, PERIOD)
    }

    /// As [`start`](Self::start), with another period; for tests.
    pub fn start_with(source: PowerSource, root: PathBuf, period: Duration) -> Self {
        let (start, mut before) = (Instant::now(), None);
        Self::start_reading(period, move || {
            let now = source.read(start.elapsed().as_secs_f64());
            let ticks = load::ticks(&root);
            let machine = load::machine(&root, before, ticks);
            before = ticks;
            (now, machine)
        })
    }

    /// Calls `read` once a period, as long as it may take; nobody waits for it.
    pub(super) fn start_reading(period: Duration, read: impl FnMut() -> (Now, Machine) + Send + 'static) -> Self {
        let unread =
            Now { battery: Reading::unknown("not read yet"), power: Reading::unknown("not read yet"), rapl: None };
        let state = State {
            at: Instant::now(),
            now: unread,
            machine: Machine::default(),
            counters: None,
            total_j: None,
            told_j: 0.0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: Mutex::new(false), stopped: Condvar::new() });
        let of_thread = shared.clone();
        let run = move || sample(&of_thread, period, read);
        if let Err(error) = thread::Builder::new().name("context".into()).spawn(run) {
            let mut state = shared.lock();
            state.now.battery = Reading::unknown(format!("no thread to read it: {error}"));
            state.now.power = state.now.battery.clone().map(|_| Power { watts: 0.0, covers: String::new() });
        }
        Self { shared }
    }

    pub fn battery(&self) -> Reading<Battery> {
        let state = self.shared.lock();
        aged(state.now.battery.clone(), state.at)
    }

    pub fn power(&self) -> Reading<Power> {
        let state = self.shared.lock();
        aged(state.now.power.clone(), state.at)
    }

    pub fn machine(&self) -> Reading<Machine> {
        let state = self.shared.lock();
        aged(Reading::known(state.machine, 0, "procfs"), state.at)
    }
}

impl EnergyMeter for Sampler {
    /// Between two samples the newest power is taken to go on.
    fn total_j(&self) -> Option<f64> {
        let mut state = self.shared.lock();
        let since_s = state.at.elapsed().as_secs_f64();
        if since_s > MAX_AGE.as_secs_f64() {
            return None;
        }
        let watts = state.now.power.value().map_or(0.0, |power| power.watts);
        let total_j = state.total_j? + watts * since_s;
        state.told_j = state.told_j.max(total_j);
        Some(state.told_j)
    }

    fn source(&self) -> &'static str {
        match &self.shared.lock().now.power {
            Reading::Known { source, .. } if source == SIMULATED => SIMULATED,
            _ => "measured",
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // The thread is not joined: it may hang in a driver.
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stopped.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when it is time to stop.
    fn pause(&self, period: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stopped.wait_timeout_while(stop, period, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn sample(shared: &Shared, period: Duration, mut read: impl FnMut() -> (Now, Machine)) {
    loop {
        // Outside the lock, which turns take: a driver that hangs hangs none of them.
        let (now, machine) = read();
        let mut state = shared.lock();
        state.take(now, Instant::now());
        state.machine = machine;
        drop(state);
        if shared.pause(period) {
            return;
        }
    }
}

impl State {
    fn take(&mut self, mut now: Now, at: Instant) {
        let passed_s = at.duration_since(self.at).as_secs_f64();
        let counted_j = now.rapl.as_ref().zip(self.counters.as_ref()).and_then(|(now, before)| now.since_j(before));
        if let (None, Some(counted_j), Some(counters)) = (now.power.value(), counted_j, &now.rapl)
            && passed_s > 0.0
        {
            let power = Power { watts: counted_j / passed_s, covers: counters.covers() };
            now.power = Reading::known(power, 0, "rapl");
        }
        let watts = |now: &Now| now.power.value().map(|power| power.watts);
        // A gap ends the sum: what was drawn in it is not known.
        let drawn_j = match (watts(&self.now), watts(&now)) {
            (Some(before), Some(after)) if passed_s <= MAX_STEP_S => Some((before + after) / 2.0 * passed_s),
            (None, Some(_)) => Some(0.0),
            _ => None,
        };
        self.total_j = drawn_j.map(|drawn_j| self.total_j.unwrap_or(self.told_j) + drawn_j);
        self.counters = now.rapl.clone();
        (self.now, self.at) = (now, at);
    }
}

pub(super) fn aged<T>(reading: Reading<T>, at: Instant) -> Reading<T> {
    let age = at.elapsed();
    match reading {
        Reading::Known { .. } if age > MAX_AGE => {
            Reading::unknown(format!("not read for {} s: its file blocks or is gone", age.as_secs()))
        }
        Reading::Known { value, source, .. } => Reading::known(value, age.as_millis() as u64, source),
        unknown => unknown,
    }
}
