//! The published estimator once more, for millions of queries: its coordinates are small whole numbers, so distances
//! are sums of looked-up bytes. A test holds it against [`crate::tmo::paper::Estimator`].

use crate::tmo::paper::{ACTIONS, Estimator, OBSERVATION, VIEWS};
use crate::tmo::tether::train::plan::{TASKS, bits};

/// Turns in an observation.
pub const SLOTS: usize = 5;
const STEP: usize = OBSERVATION / SLOTS;
/// What a slot may hold: nothing, or a task after nothing or after one of the actions.
const CODES: usize = 1 + TASKS * (1 + ACTIONS);
const NEIGHBOURS: usize = 5;
/// The largest squared distance between two actions' bits: cloud and three views.
const APART: u8 = 1 + VIEWS as u8;

/// The code of a turn: the action before it and its task. 0 stands for no turn.
pub fn code(before: Option<usize>, task: usize) -> u8 {
    (1 + task * (1 + ACTIONS) + before.map_or(0, |action| 1 + action)) as u8
}

fn slot(code: usize) -> [f64; STEP] {
    let Some(code) = code.checked_sub(1) else { return [-1.0; STEP] };
    let (task, before) = (code / (1 + ACTIONS), code % (1 + ACTIONS));
    let mut slot = [-1.0, 0.0, 0.0, 0.0, task as f64];
    if let Some(action) = before.checked_sub(1) {
        (0..=VIEWS).for_each(|bit| slot[bit] = f64::from(bits(action) >> bit & 1));
    }
    slot
}

#[derive(Debug, Clone)]
pub struct Neighbours {
    count: usize,
    /// [slot][code][row]: squared distance of the row's slot to the code.
    apart: Vec<u8>,
    /// Bits of each row's action, and its score.
    bits: Vec<u8>,
    scores: Vec<f32>,
}

impl Neighbours {
    pub fn new(estimator: &Estimator) -> Neighbours {
        let rows: Vec<(&[f64], f64)> = estimator.rows().collect();
        let mut apart = Vec::with_capacity(SLOTS * CODES * rows.len());
        for place in 0..SLOTS {
            for code in 0..CODES {
                let wanted = slot(code);
                apart.extend(rows.iter().map(|(row, _)| {
                    let row = &row[place * STEP..(place + 1) * STEP];
                    row.iter().zip(wanted).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() as u8
                }));
            }
        }
        let bits = rows
            .iter()
            .map(|(row, _)| row[OBSERVATION..].iter().enumerate().map(|(bit, &set)| u8::from(set > 0.5) << bit).sum());
        let bits = bits.collect();
        Neighbours { count: rows.len(), apart, bits, scores: rows.iter().map(|(_, score)| *score as f32).collect() }
    }

    fn column(&self, place: usize, code: u8) -> &[u8] {
        let at = (place * CODES + usize::from(code)) * self.count;
        &self.apart[at..at + self.count]
    }

    /// Squared distance of each row's observation to that of these turns, of which the newest stands last.
    pub fn sums(&self, codes: &[u8], into: &mut Vec<u8>) {
        self.placed(codes, SLOTS - codes.len(), into);
    }

    /// The same without the last slot, as it will be once another turn is appended.
    pub fn shifted(&self, codes: &[u8], into: &mut Vec<u8>) {
        self.placed(codes, SLOTS - 1 - codes.len(), into);
    }

    fn placed(&self, codes: &[u8], first: usize, into: &mut Vec<u8>) {
        into.clear();
        into.resize(self.count, 0);
        (0..first).for_each(|place| add(into, self.column(place, 0)));
        codes.iter().enumerate().for_each(|(at, &code)| add(into, self.column(first + at, code)));
    }

    /// [`Neighbours::shifted`] with its newest turn.
    pub fn append(&self, before: &[u8], code: u8, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(before);
        add(into, self.column(SLOTS - 1, code));
    }

    /// The estimator's answer for each action, all tied rows averaged.
    pub fn responses(&self, sums: &[u8]) -> [f32; ACTIONS] {
        // A row further than the fifth nearest by more than an action's bits can change is nobody's neighbour.
        let reach = fifth(sums.iter().copied()).saturating_add(APART);
        let near: Vec<(u8, u8, f32)> = (0..self.count)
            .filter(|&row| sums[row] <= reach)
            .map(|row| (sums[row], self.bits[row], self.scores[row]))
            .collect();
        std::array::from_fn(|action| {
            let wanted = bits(action);
            let whole = |&(sum, bits, _): &(u8, u8, f32)| sum + (bits ^ wanted).count_ones() as u8;
            let last = fifth(near.iter().map(whole));
            let (mut sum, mut weights) = (0.0, 0.0);
            for row in &near {
                let squared = whole(row);
                if squared <= last {
                    let weight = weight(squared);
                    sum += weight * f64::from(row.2);
                    weights += weight;
                }
            }
            (sum / weights) as f32
        })
    }
}

fn weight(squared: u8) -> f64 {
    1.0 / (f64::from(squared).sqrt() + 1e-6)
}

fn add(sums: &mut [u8], column: &[u8]) {
    sums.iter_mut().zip(column).for_each(|(sum, apart)| *sum += apart);
}

/// The fifth smallest, equals counted each.
fn fifth(values: impl Iterator<Item = u8>) -> u8 {
    let mut least = [u8::MAX; NEIGHBOURS];
    for value in values {
        if value < least[NEIGHBOURS - 1] {
            let at = least.partition_point(|&kept| kept <= value);
            least.copy_within(at..NEIGHBOURS - 1, at + 1);
            least[at] = value;
        }
    }
    least[NEIGHBOURS - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::paper::History;
    use crate::tmo::synthetic;
    use crate::tmo::tether::train::plan::Track;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_answers_as_the_published_estimator(
            turns in prop::collection::vec((0usize..TASKS, 0usize..ACTIONS), 1..6),
            seed in 0u64..5,
        ) {
            let data = synthetic::dataset(60, VIEWS, seed);
            let estimator = Estimator::fit(&data, &data.dialogues).unwrap();
            let mut history = History::default();
            let mut observation = *history.observe(turns[0].0);
            let mut track = Track::first(turns[0].0);
            for pair in turns.windows(2) {
                history.acted(pair[0].1);
                observation = *history.observe(pair[1].0);
                track = track.then(pair[0].1, pair[1].0);
            }
            let fast = Neighbours::new(&estimator);
            let mut sums = Vec::new();
            fast.sums(track.codes(), &mut sums);
            let expected = estimator.responses(&observation);
            for (fast, exact) in fast.responses(&sums).iter().zip(expected) {
                prop_assert!((f64::from(*fast) - exact).abs() < 1e-4, "{fast} {exact}");
            }
        }
    }
}
