//! A backend's bounded queue: so many turns run, so many wait in order of arrival, the others are turned away.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Before anything was measured, a turn is taken to last this long; a guess, only used for `retry_after`.
const GUESSED_TURN_MS: f64 = 1_000.0;
/// Share of the newest turn in the moving mean.
const NEWEST_SHARE: f64 = 0.2;
const RETRY_AFTER_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// One backend's queue.
#[derive(Debug)]
pub struct Gate {
    slots: Arc<Semaphore>,
    concurrency: usize,
    queue_limit: usize,
    /// Turns that run or wait.
    inside: Arc<AtomicUsize>,
    /// Turned away since the start.
    turned_away: AtomicU64,
    mean_turn_ms: Mutex<f64>,
}

/// The queue was full; try again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub retry_after_ms: u32,
}

/// A place in the queue. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    inside: Arc<AtomicUsize>,
    slots: Arc<Semaphore>,
}

/// A running turn. Dropping it lets the next one run.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Gate {
    /// `concurrency` turns run at once (at least one), `queue_limit` more may wait.
    pub fn new(concurrency: usize, queue_limit: usize) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            slots: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            queue_limit,
            inside: Arc::default(),
            turned_away: AtomicU64::new(0),
            mean_turn_ms: Mutex::new(GUESSED_TURN_MS),
        }
    }

    /// Takes a place in the queue, at once or not at all.
    pub fn enter(&self) -> Result<Place, Full> {
        let limit = self.concurrency + self.queue_limit;
        let entered = self
            .inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| (inside < limit).then_some(inside + 1));
        match entered {
            Ok(_) => Ok(Place { inside: Arc::clone(&self.inside), slots: Arc::clone(&self.slots) }),
            Err(_) => {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
                Err(Full { retry_after_ms: self.retry_after_ms() })
            }
        }
    }

    /// `None` while there is room; else when there should be.
    pub fn full_for_ms(&self) -> Option<u32> {
        (self.inside() >= self.concurrency + self.queue_limit).then(|| self.retry_after_ms())
    }

    /// Turns that run or wait.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// Turns that wait.
    pub fn waiting(&self) -> usize {
        self.inside().saturating_sub(self.concurrency)
    }

    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Tells how long a turn ran, for `retry_after`.
    pub fn ran_for(&self, time: Duration) {
        let mut mean = self.mean_turn_ms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *mean += NEWEST_SHARE * (time.as_secs_f64() * 1e3 - *mean);
    }

    /// One place becomes free after about one turn's time over the number of slots.
    fn retry_after_ms(&self) -> u32 {
        let mean = *self.mean_turn_ms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ((mean / self.concurrency as f64) as u32).clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end())
    }
}

impl Place {
    /// Waits for a slot, first come first served. Dropping the future gives the place back.
    pub async fn wait(self) -> Slot {
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        Slot { _permit: permit.expect("the semaphore is never closed"), _place: self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn turned_away_exactly_at_the_limit() {
        let gate = Gate::new(1, 2);
        let places: Vec<Place> = (0..3).map(|_| gate.enter().unwrap()).collect();
        assert_eq!(gate.enter().unwrap_err(), Full { retry_after_ms: 1_000 });
        assert_eq!((gate.inside(), gate.waiting(), gate.turned_away()), (3, 2, 1));
        assert_eq!(gate.full_for_ms(), Some(1_000));
        drop(places);
        assert_eq!((gate.inside(), gate.full_for_ms()), (0, None));
    }

    #[test]
    fn a_dropped_waiter_lets_the_next_one_run() {
        let gate = Gate::new(1, 2);
        let running = gate.enter().unwrap().wait().now_or_never().expect("a slot is free");
        let mut second = Box::pin(gate.enter().unwrap().wait());
        let mut third = Box::pin(gate.enter().unwrap().wait());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        assert_eq!(gate.inside(), 2);
        drop(running);
        assert!(third.now_or_never().is_some());
        assert_eq!(gate.inside(), 0);
    }

    #[test]
    fn retry_after_follows_the_measured_turns() {
        let gate = Gate::new(4, 0);
        (0..60).for_each(|_| gate.ran_for(Duration::from_secs(8)));
        let places: Vec<Place> = (0..4).map(|_| gate.enter().unwrap()).collect();
        let retry = gate.enter().unwrap_err().retry_after_ms;
        assert!((1_900..=2_000).contains(&retry), "{retry}");
        drop(places);
    }
}
