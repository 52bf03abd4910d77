//! When which question comes: the same for every policy.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One turn of a dialogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    pub at_s: f64,
    /// Places in the data.
    pub dialogue: usize,
    pub turn: usize,
    /// Which dialogue of the flight this is: data may be used again.
    pub session: u32,
    /// Of all that chance decides in this turn.
    pub seed: u64,
}

/// People begin dialogues at random; within one, a turn follows the one before after half a minute or so.
const WITHIN_DIALOGUE_S: f64 = 30.0;

/// Turns in time order from 0 to `end_s`, `turns_per_hour` on average. `lengths` are the dialogues' turns.
pub fn arrivals(lengths: &[usize], end_s: f64, turns_per_hour: f64, seed: u64) -> Vec<Arrival> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mean_s = 3_600.0 / turns_per_hour;
    let within_s = WITHIN_DIALOGUE_S.min(mean_s);
    let mut arrivals = Vec::new();
    let mut at_s = 0.0;
    let mut wait = |mean_s: f64, random: &mut ChaCha8Rng| {
        let uniform: f64 = random.random_range(f64::MIN_POSITIVE..1.0);
        at_s -= mean_s * uniform.ln();
        at_s
    };
    for session in 0.. {
        let dialogue = random.random_range(0..lengths.len());
        let turns = lengths[dialogue];
        // What the turns within take less, the pause before the dialogue takes more.
        let pause_s = mean_s * turns as f64 - within_s * (turns - 1) as f64;
        for turn in 0..turns {
            let at_s = wait(if turn == 0 { pause_s } else { within_s }, &mut random);
            if at_s >= end_s {
                return arrivals;
            }
            arrivals.push(Arrival { at_s, dialogue, turn, session, seed: random.random() });
        }
    }
    arrivals
}
