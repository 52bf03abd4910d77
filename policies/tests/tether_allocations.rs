//! A decision of the tether policy allocates nothing but the words of its answer: counted, not believed.
#![expect(unsafe_code, reason = "a global allocator cannot be written without; it only counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tether_policies::tmo::tether::{Config, Facts, Past, Scene, TetherPolicy, weights};
use tether_protocol::ViewSet;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_decision_allocates_nothing() {
    let config = Config::new("t", Vec::new(), 0, 64);
    let policy = TetherPolicy::new(config.clone(), &weights::random(&config, 1).unwrap()).unwrap();
    let history = [Past { cloud: true, views: ViewSet(0b11), task: Some(1) }; 5];
    for views in [3, 4, 8] {
        let cost = |n: usize| [Some(1.0 + n as f64), Some(0.01 * n as f64), None, Some(100.0)];
        let facts = |n: usize| Facts { cloud: n > 0, views: ViewSet(n as u8), association: Some(0.2), cost: cost(n) };
        let actions: Vec<Facts> = (0..1 + (1 << views)).map(facts).collect();
        let remaining = [Some(20.0), Some(0.5), None, Some(1e6)];
        let (before, following, following_known) = (7, 4, true);
        let scene =
            Scene { history: &history, before, task: None, view_count: views, remaining, following, following_known };
        let mut scores = vec![0.0; actions.len()];
        let count = || ALLOCATIONS.with(Cell::get);
        let at_first = count();
        let choice = policy.choose(&scene, &actions, 1, &mut scores);
        assert_eq!(count() - at_first, 0, "{views} views");
        assert!(choice.is_ok());
    }
    // The counter counts.
    let before = ALLOCATIONS.with(Cell::get);
    drop(std::hint::black_box(vec![1u8; 10]));
    assert!(ALLOCATIONS.with(Cell::get) > before);
}
