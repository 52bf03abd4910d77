//! How good an answer will be: empirical Bayes over task x route x number of views.
//!
//! Means are drawn towards coarser means as far as their noise asks for it: the grand mean, then by route, then by task
//! and level. How far is estimated by the method of moments (one-way random effects; Efron and Morris 1975; DerSimonian
//! and Laird 1986 for unequal counts). Which view it was, the similarity and the turn's place are not in it.

use crate::tmo::data::{Dataset, Turn};
use serde::{Deserialize, Serialize};
use tether_protocol::Route;

/// Local, and the cloud with 0, 1, 2, and 3 or more views.
pub const LEVELS: usize = 5;

/// An action's level.
pub fn level(cloud: bool, views: usize) -> usize {
    if cloud { 1 + views.min(LEVELS - 2) } else { 0 }
}

fn level_of(turn: &Turn) -> usize {
    level(turn.route == Route::Cloud, turn.views.len())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseModel {
    /// By route: local, cloud; what an unknown task is answered with.
    routes: [f64; 2],
    /// By task and level.
    cells: Vec<[f64; LEVELS]>,
}

impl ResponseModel {
    /// Fits to logged turns; 0 everywhere without any.
    pub fn fit(turns: &[&Turn], tasks: usize) -> ResponseModel {
        let mean = turns.iter().map(|turn| turn.score).sum::<f64>() / turns.len().max(1) as f64;
        let route = |turn: &Turn| usize::from(turn.route == Route::Cloud);
        let by_route = shrunk(turns.iter().map(|turn| (route(turn), turn.score - mean)), 2);
        let routes = [mean + by_route[0], mean + by_route[1]];
        let cell = |turn: &Turn| turn.task * LEVELS + level_of(turn);
        let rest = turns.iter().map(|turn| (cell(turn), turn.score - routes[route(turn)]));
        let by_cell = shrunk(rest, tasks * LEVELS);
        let cells = by_cell
            .chunks_exact(LEVELS)
            .map(|row| std::array::from_fn(|level| routes[usize::from(level > 0)] + row[level]));
        ResponseModel { routes, cells: cells.collect() }
    }

    pub fn predict(&self, task: Option<usize>, cloud: bool, views: usize) -> f64 {
        match task.and_then(|task| self.cells.get(task)) {
            Some(cells) => cells[level(cloud, views)],
            None => self.routes[usize::from(cloud)],
        }
    }

    /// How many tasks have means of their own.
    pub fn tasks(&self) -> usize {
        self.cells.len()
    }

    /// Whether this is so of every mean.
    pub fn all(&self, is_so: impl Fn(&f64) -> bool) -> bool {
        self.routes.iter().chain(self.cells.iter().flatten()).all(is_so)
    }
}

/// The groups' effects, each drawn towards 0 by `n / (n + k)`, k the variance within groups over that between them.
fn shrunk(values: impl Iterator<Item = (usize, f64)>, groups: usize) -> Vec<f64> {
    let (mut counts, mut sums, mut squares) = (vec![0.0; groups], vec![0.0; groups], 0.0);
    for (group, value) in values {
        counts[group] += 1.0;
        sums[group] += value;
        squares += value * value;
    }
    let all: f64 = counts.iter().sum();
    let used = counts.iter().filter(|&&count| count > 0.0).count() as f64;
    let explained: f64 = (0..groups).filter(|&g| counts[g] > 0.0).map(|g| sums[g] * sums[g] / counts[g]).sum();
    let within = (squares - explained) / (all - used).max(1.0);
    let between = ((explained - used * within) / all.max(1.0)).max(0.0);
    let shrink = |group: usize| {
        let prior = if between > 0.0 { within / between } else { f64::INFINITY };
        if counts[group] > 0.0 && prior.is_finite() { sums[group] / (counts[group] + prior) } else { 0.0 }
    };
    (0..groups).map(shrink).collect()
}

/// The plain table that the model has to beat: means by task and route; the grand mean where there is none.
pub fn plain_table(turns: &[&Turn]) -> impl Fn(&Turn) -> f64 + use<> {
    let mean = turns.iter().map(|turn| turn.score).sum::<f64>() / turns.len().max(1) as f64;
    let mut cells = std::collections::BTreeMap::<(usize, bool), (f64, f64)>::new();
    for turn in turns {
        let cell = cells.entry((turn.task, turn.route == Route::Cloud)).or_default();
        *cell = (cell.0 + turn.score, cell.1 + 1.0);
    }
    move |turn| cells.get(&(turn.task, turn.route == Route::Cloud)).map_or(mean, |(sum, count)| sum / count)
}

/// R^2 over all turns, each predicted by a model that never saw its dialogue; against the grand mean of all.
pub fn leave_one_dialogue_out<F: Fn(&Turn) -> f64>(data: &Dataset, fit: impl Fn(&[&Turn]) -> F) -> f64 {
    let all: Vec<&Turn> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
    let mean = all.iter().map(|turn| turn.score).sum::<f64>() / all.len().max(1) as f64;
    let total: f64 = all.iter().map(|turn| (turn.score - mean).powi(2)).sum();
    let mut missed = 0.0;
    for left_out in &data.dialogues {
        let others = data.dialogues.iter().filter(|dialogue| dialogue.id != left_out.id);
        let model = fit(&others.flat_map(|dialogue| &dialogue.turns).collect::<Vec<_>>());
        missed += left_out.turns.iter().map(|turn| (turn.score - model(turn)).powi(2)).sum::<f64>();
    }
    1.0 - missed / total
}

/// That R^2 of this module's model.
pub fn r_squared(data: &Dataset) -> f64 {
    leave_one_dialogue_out(data, |turns| {
        let model = ResponseModel::fit(turns, data.tasks.len());
        move |turn: &Turn| model.predict(Some(turn.task), turn.route == Route::Cloud, turn.views.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::synthetic;

    #[test]
    fn groups_of_pure_noise_shrink_to_nothing_and_clear_ones_stay() {
        let noise = |n: usize| if n.is_multiple_of(2) { 1.0 } else { -1.0 };
        let flat = shrunk((0..400).map(|n| (n / 100, noise(n))), 4);
        assert!(flat.iter().all(|effect| effect.abs() < 1e-9), "{flat:?}");
        let clear = shrunk((0..400).map(|n| (n / 100, noise(n) * 0.1 + (n / 100) as f64)), 4);
        assert!((clear[3] - 3.0).abs() < 0.01, "{clear:?}");
        assert_eq!(shrunk(std::iter::empty(), 2), [0.0, 0.0]);
    }

    #[test]
    fn a_cell_that_was_never_seen_is_as_its_route() {
        let data = synthetic::dataset(40, 3, 1);
        let turns: Vec<&Turn> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
        let seen: Vec<&Turn> = turns.into_iter().filter(|turn| turn.task != 2 || turn.route == Route::Local).collect();
        let model = ResponseModel::fit(&seen, 4);
        assert_eq!(model.predict(Some(2), true, 1), model.predict(None, true, 3));
    }

    #[test]
    fn it_explains_synthetic_dialogues_that_it_did_not_see() {
        let data = synthetic::dataset(150, 3, 2);
        assert!(r_squared(&data) > 0.1, "{}", r_squared(&data));
        // A constant explains nothing.
        let constant = leave_one_dialogue_out(&data, |_| |_: &Turn| 0.0);
        assert!(constant < 0.0);
    }
}
