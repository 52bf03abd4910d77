//! Synthetic dialogues of M4A1's form, so that everything runs without the data set: seeded, same four tasks, 2 to 5
//! turns, three views unless told otherwise.

use crate::tmo::data::{Dataset, Dialogue, Turn};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tether_protocol::{Route, ViewSet};

const TASKS: [&str; 4] = ["Assistive System", "Message Editing", "Query", "Recommendation"];

/// Mean score by task for [local, cloud without views, each useful view]: a query is about what cameras see, message
/// editing is not. Guessed so that no route is best for every task; not fitted to M4A1.
const MEANS: [[f64; 3]; 4] = [[0.9, 1.0, 0.25], [1.2, 1.5, 0.05], [0.5, 0.6, 0.45], [0.8, 1.2, 0.15]];

/// Makes `count` dialogues with `view_count` views. The same seed gives the same data.
pub fn dataset(count: usize, view_count: usize, seed: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dialogues = (0..count as u64).map(|id| dialogue(id, view_count, &mut random)).collect();
    Dataset { dialogues, tasks: TASKS.map(str::to_owned).to_vec(), view_count }
}

fn dialogue(id: u64, view_count: usize, random: &mut ChaCha8Rng) -> Dialogue {
    let turns = (0..random.random_range(2..=5)).map(|_| turn(view_count, random)).collect();
    Dialogue { id, turns }
}

fn turn(view_count: usize, random: &mut ChaCha8Rng) -> Turn {
    let task = random.random_range(0..TASKS.len());
    let association: Vec<f64> = (0..view_count).map(|_| random.random_range(0.15..0.30)).collect();
    let route = if random.random_bool(0.5) { Route::Local } else { Route::Cloud };
    let views = match route {
        Route::Local => ViewSet::EMPTY,
        Route::Cloud => ViewSet((random.random_range(0..1u16 << view_count)) as u8),
    };
    let [local, cloud, per_view] = MEANS[task];
    // A view helps as far as the question is about it: from nothing at .15 to its full share at .30.
    let relevance: f64 = views.iter().map(|view| (association[view] - 0.15) / 0.15).sum();
    let mean = if route == Route::Local { local } else { cloud + per_view * relevance };
    let noise: f64 = (0..4).map(|_| random.random_range(-0.4..0.4)).sum();
    Turn {
        question: format!("{} question", TASKS[task]),
        answer_bytes: 800,
        task,
        route,
        views,
        score: (mean + noise).max(0.0),
        latency_s: Some(if route == Route::Local {
            random.random_range(4.0..12.0)
        } else {
            random.random_range(2.0..8.0)
        }),
        cost_usd: Some(if route == Route::Local { 0.0 } else { 0.0005 + 0.0045 * views.len() as f64 }),
        association,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_form_is_legal() {
        let data = dataset(50, 3, 1);
        assert_eq!(data, dataset(50, 3, 1));
        assert_ne!(data, dataset(50, 3, 2));
        for turn in data.dialogues.iter().flat_map(|dialogue| &dialogue.turns) {
            assert!(turn.route == Route::Cloud || turn.views.is_empty());
            assert!(turn.score >= 0.0 && turn.association.len() == 3);
        }
        assert_eq!(dataset(1, 0, 3).dialogues[0].turns[0].association.len(), 0);
        assert_eq!(dataset(1, 8, 3).view_count, 8);
    }
}
