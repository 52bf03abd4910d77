//! The threads of a forward pass.
//!
//! A pass is some hundred short jobs. Each is cut into items which whoever is free takes, in shrinking handfuls, so a
//! thread that loses its processor holds up the others for one handful at most, and one that comes late finds nothing to
//! wait for. Helpers watch for the next job for some microseconds while a pass runs, and sleep otherwise.
#![expect(unsafe_code, reason = "a job borrows from its caller's stack, which waits until no helper is in it")]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

/// Looks at the state before a helper sleeps: some tens of microseconds, longer than what a pass does between its jobs.
const WATCH_ROUNDS: u32 = 4_000;
/// Rounds in which the caller waits for helpers in the middle of an item before it yields its processor to them.
const WAIT_ROUNDS: u32 = 4_000;

/// The lowest bit of [`Shared::state`]: helpers may enter.
const OPEN: u64 = 1;
/// Above it, 16 bits: how many helpers are inside.
const INSIDE: u64 = 2;
const INSIDE_MASK: u64 = 0xFFFF << 1;
/// The rest: the job's number.
const NUMBER: u64 = 1 << 17;

pub(crate) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held during a pass; another pass at the same time computes on its own thread.
    passes: Mutex<()>,
    /// Threads that take part in the next pass, the caller's included.
    active: AtomicUsize,
}

/// The right to use the pool's helpers, for one pass.
pub(crate) struct Pass<'a> {
    pool: &'a Pool,
    helpers: Option<(usize, MutexGuard<'a, ()>)>,
}

struct Shared {
    state: AtomicU64,
    /// The next item that nobody has taken.
    next: AtomicUsize,
    job: UnsafeCell<Job>,
    running: AtomicBool,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panicked: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), Range<usize>),
    closure: *const (),
    items: usize,
    threads: usize,
}

// SAFETY: `job` is written only while `state` lets no helper in and none is inside, and its closure is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only between the opening and the closing of its job.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads`, the caller's included.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(crate) fn new(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.clamp(1, 256);
        let job = Job { call: |_, _| {}, closure: std::ptr::null(), items: 0, threads };
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(job),
            running: AtomicBool::new(false),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Pool { shared, helpers: Vec::new(), passes: Mutex::new(()), active: AtomicUsize::new(threads) };
        for index in 0..threads - 1 {
            let shared = pool.shared.clone();
            let help = move || shared.help(index);
            pool.helpers.push(thread::Builder::new().name(format!("tether-math-{}", index + 1)).spawn(help)?);
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// From the next pass on, computes with at most so many of its threads.
    pub(crate) fn limit(&self, threads: usize) {
        self.active.store(threads.clamp(1, self.threads()), Ordering::Relaxed);
    }

    pub(crate) fn pass(&self) -> Pass<'_> {
        let guard = match self.passes.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let helpers = self.active.load(Ordering::Relaxed) - 1;
        let helpers = guard.filter(|_| helpers > 0).map(|guard| (helpers, guard));
        if helpers.is_some() {
            self.shared.running.store(true, Ordering::Relaxed);
        }
        Pass { pool: self, helpers }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _pass = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stop.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper's panic was reported by the pass that it belonged to.
            let _ = helper.join();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.helpers.is_some() {
            self.pool.shared.running.store(false, Ordering::Relaxed);
        }
    }
}

impl Pass<'_> {
    #[cfg(test)]
    pub(crate) fn threads(&self) -> usize {
        self.helpers.as_ref().map_or(1, |(helpers, _)| helpers + 1)
    }

    /// Calls `job` with ranges that together are `0..items`, each item once, on any of the threads. Returns when all are
    /// done.
    ///
    /// # Panics
    /// If `job` does, on whatever thread.
    pub(crate) fn run<J: Fn(Range<usize>) + Sync>(&self, items: usize, job: J) {
        match &self.helpers {
            Some((helpers, _)) if items > 1 => self.pool.shared.run(&self.pool.helpers[..*helpers], items, &job),
            _ => job(0..items),
        }
    }

    /// Calls `with` for each row of `data` and its index.
    pub(crate) fn rows<T: Send>(&self, data: &mut [T], width: usize, with: impl Fn(usize, &mut [T]) + Sync) {
        let rows = data.len() / width;
        let start = SendPointer(data.as_mut_ptr());
        self.run(rows, |range| {
            for row in range {
                // SAFETY: each row is given out once, and rows do not overlap.
                with(row, unsafe { std::slice::from_raw_parts_mut(start.at(row * width), width) });
            }
        });
    }
}

/// A pointer whose targets the threads divide among themselves.
pub(super) struct SendPointer<T>(pub(super) *mut T);

impl<T> Clone for SendPointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SendPointer<T> {}

// SAFETY: whoever uses it says which thread touches what.
unsafe impl<T: Send> Send for SendPointer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPointer<T> {}

impl<T> SendPointer<T> {
    /// # Safety
    /// The offset lies within what the pointer was made from.
    pub(super) unsafe fn at(self, offset: usize) -> *mut T {
        unsafe { self.0.add(offset) }
    }
}

/// Closes the job and waits until no helper is inside, also when the caller's own share panics.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut rounds = 0;
        while self.0.state.load(Ordering::Acquire) & INSIDE_MASK != 0 {
            rounds += 1;
            match rounds < WAIT_ROUNDS {
                true => std::hint::spin_loop(),
                false => thread::yield_now(),
            }
        }
    }
}

impl Shared {
    fn run<J: Fn(Range<usize>) + Sync>(&self, helpers: &[JoinHandle<()>], items: usize, job: &J) {
        unsafe fn call<J: Fn(Range<usize>)>(closure: *const (), range: Range<usize>) {
            // SAFETY: `closure` is the `&J` below, which outlives the job.
            unsafe { (*closure.cast::<J>())(range) }
        }
        let entry = Job { call: call::<J>, closure: (&raw const *job).cast(), items, threads: helpers.len() + 1 };
        // SAFETY: the last job was closed and left by all helpers, and this is the only pass.
        unsafe { *self.job.get() = entry };
        self.next.store(0, Ordering::Relaxed);
        let closing = Closing(self);
        let number = self.state.load(Ordering::Relaxed) & !(OPEN | INSIDE_MASK);
        self.state.store(number.wrapping_add(NUMBER) | OPEN, Ordering::SeqCst);
        for (asleep, helper) in self.asleep.iter().zip(helpers) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        self.work(&entry);
        drop(closing);
        assert!(!self.panicked.swap(false, Ordering::Relaxed), "a thread of the model's arithmetic panicked");
    }

    /// Takes and does items until none is left.
    fn work(&self, job: &Job) {
        while let Some(range) = self.take(job) {
            // SAFETY: the job is open, or its caller waits for this thread to leave it.
            unsafe { (job.call)(job.closure, range) };
        }
    }

    /// Half of a thread's share of what is left, at least one item.
    fn take(&self, job: &Job) -> Option<Range<usize>> {
        let share = |next: usize| (job.items.saturating_sub(next) / (2 * job.threads)).max(1);
        let take = |next: usize| (next < job.items).then(|| next + share(next));
        let start = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(start..start + share(start))
    }

    fn help(&self, index: usize) {
        let mut done = 0;
        loop {
            let Some(state) = self.wait(index, done) else { return };
            if self.state.compare_exchange(state, state + INSIDE, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                // Another helper entered, or the job closed: look again.
                continue;
            }
            done = state & !(OPEN | INSIDE_MASK);
            // SAFETY: this thread is inside, so the job stays until it leaves.
            let job = unsafe { *self.job.get() };
            // A pass may be limited to fewer threads than still watch.
            if index + 1 < job.threads {
                let work = std::panic::AssertUnwindSafe(|| self.work(&job));
                if std::panic::catch_unwind(work).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.state.fetch_sub(INSIDE, Ordering::Release);
        }
    }

    /// The state once a job other than `done` is open; `None` when the pool ends.
    fn wait(&self, index: usize, done: u64) -> Option<u64> {
        let mut rounds = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state & !(OPEN | INSIDE_MASK) != done {
                return Some(state);
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            rounds += 1;
            if self.running.load(Ordering::Relaxed) && rounds < WATCH_ROUNDS {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(index, done);
            rounds = 0;
        }
    }

    fn sleep(&self, index: usize, done: u64) {
        self.asleep[index].store(true, Ordering::SeqCst);
        // A job that opened in between has not seen the mark, or has unparked this thread already.
        let state = self.state.load(Ordering::SeqCst);
        let news = state & OPEN != 0 && state & !(OPEN | INSIDE_MASK) != done;
        if !news && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep[index].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_item_is_done_once_whatever_the_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            let pass = pool.pass();
            assert_eq!(pass.threads(), threads);
            for items in (0..200).chain([10_000]) {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pass.run(items, |range| {
                    range.for_each(|item| assert_eq!(counts[item].fetch_add(1, Ordering::Relaxed), 0))
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads, {items}");
            }
        }
    }

    #[test]
    fn helpers_wake_again_after_a_pause_and_a_limit_holds() {
        let pool = Pool::new(3).unwrap();
        for limit in [3, 2, 1, 3] {
            pool.limit(limit);
            thread::sleep(Duration::from_millis(5));
            let (pass, seen) = (pool.pass(), Mutex::new(std::collections::HashSet::new()));
            assert_eq!(pass.threads(), limit);
            pass.run(12, |_| {
                seen.lock().unwrap().insert(thread::current().id());
                thread::sleep(Duration::from_millis(2));
            });
            let seen = seen.lock().unwrap().len();
            assert!(seen <= limit && (limit == 1 || seen > 1), "{seen} threads worked, {limit} may");
        }
    }

    #[test]
    fn a_second_pass_at_the_same_time_runs_alone() {
        let pool = Pool::new(2).unwrap();
        let (first, second) = (pool.pass(), pool.pass());
        assert_eq!((first.threads(), second.threads()), (2, 1));
        let mut rows = [0usize; 60];
        second.rows(&mut rows, 10, |row, data| data.fill(row));
        assert!(rows.iter().enumerate().all(|(at, &row)| row == at / 10));
        drop(first);
        assert_eq!(pool.pass().threads(), 2);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            let failing = || pool.pass().run(8, |range| assert!(!range.contains(&7), "expected by the test"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(failing)).is_err());
            let done = AtomicUsize::new(0);
            pool.pass().run(8, |range| {
                done.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 8);
        }
    }
}
