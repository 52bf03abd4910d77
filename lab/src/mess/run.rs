//! One stream of requests past one router, and what came of it.

use super::contender::Contender;
use super::data::{Dataset, Row};
use super::scenario::Scenario;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::VecDeque;

/// Requests in a window whose satisfaction is compared with alpha.
pub const WINDOW: usize = 200;
/// Points of a curve kept for plots.
const CURVE_POINTS: usize = 120;

/// The stream to be run.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    pub data: &'a Dataset,
    pub scenario: Scenario,
    pub alpha: f64,
    pub seed: u64,
    /// The model that the scenario changes.
    pub changed: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub satisfaction: f64,
    /// Satisfaction of each tenant, and what it agreed on.
    pub tenants: Vec<(f64, f64)>,
    /// Share of all windows of 200 requests in a row whose satisfaction is below alpha.
    pub windows_below: f64,
    /// Per request, everything that was asked included.
    pub mean_cost: f64,
    /// Answers returned, per model.
    pub calls: Vec<u64>,
    /// Answers asked for beside the returned one, per model.
    pub extra_calls: Vec<u64>,
    /// Ratings received, per model.
    pub labels: Vec<u64>,
    /// Requests after a change half-way until the last 100 were at or above alpha again; `None`: never.
    pub recovered_after: Option<u64>,
    /// Whether the queue was above its stated bound at any time.
    pub bound_broken: bool,
    pub largest_queue: f64,
    pub curve: Vec<Point>,
}

/// The state after `request` requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    pub request: usize,
    pub satisfaction: f64,
    /// Of the last 200 requests.
    pub window: f64,
    pub mean_cost: f64,
    pub queue: Option<f64>,
    pub at_least: Option<f64>,
}

impl Stream<'_> {
    fn changed_now(&self, t: usize) -> bool {
        t >= self.data.rows.len() / 2
    }

    /// What the models would give this request at time `t`, after the scenario's changes.
    fn truth(&self, row: &Row, t: usize, luck: f64, mean: f64) -> Row {
        let mut row = row.clone();
        if !self.changed_now(t) {
            return row;
        }
        match self.scenario {
            // 30 points off the mean: of the satisfied answers, this share turns.
            Scenario::Drop if luck < 0.3 / mean.max(0.3) => row.satisfied[self.changed] = 0.0,
            Scenario::HalfPrice => row.cost[self.changed] /= 2.0,
            _ => {}
        }
        row
    }

    /// The models that are there at the start.
    pub fn present(&self) -> Vec<usize> {
        let absent = |m: usize| self.scenario == Scenario::ModelAdded && m == self.changed;
        (0..self.data.models.len()).filter(|&m| !absent(m)).collect()
    }

    /// Runs the stream in the random order of its seed.
    pub fn run(&self, contender: &mut dyn Contender) -> Run {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..self.data.rows.len()).collect();
        order.shuffle(&mut rng);
        let mean = self.data.means()[self.changed].satisfaction;
        let mut count = Count::new(self);
        // (due, turn, tenant, model, served, rating)
        let mut late: VecDeque<(usize, usize, usize, usize, bool, f64)> = VecDeque::new();
        for (t, &index) in order.iter().enumerate() {
            if t == self.data.rows.len() / 2 {
                match self.scenario {
                    Scenario::HalfPrice => contender.reprice(self.changed, 0.5),
                    Scenario::ModelAdded => contender.add_model(self.changed),
                    _ => {}
                }
            }
            let row = self.truth(&self.data.rows[index], t, rng.random(), mean);
            let (tenant, alpha) = self.scenario.tenant(self.alpha, t);
            let asked = contender.choose(t, tenant, &row, rng.random());
            count.answer(tenant, alpha, row.satisfied[asked.served]);
            let all = std::iter::once((asked.served, true)).chain(asked.extra.iter().map(|&m| (m, false)));
            for (model, served) in all {
                count.pay(model, served, row.cost[model]);
                contender.paid(t, model, row.cost[model]);
                let (rated, wrong) = (rng.random_bool(self.scenario.rated()), rng.random_bool(self.scenario.wrong()));
                if rated {
                    let truth = row.satisfied[model];
                    let rating = if wrong { 1.0 - truth } else { truth };
                    late.push_back((t + self.scenario.delay(), t, tenant, model, served, rating));
                }
            }
            while let Some((_, turn, tenant, model, served, rating)) = late.pop_front_if(|rating| rating.0 <= t) {
                count.labels[model] += 1;
                contender.rated(turn, tenant, model, served, rating);
            }
            count.watch(t, contender);
        }
        count.finish()
    }
}

/// What adds up during a run.
struct Count<'a> {
    stream: &'a Stream<'a>,
    /// Per request: satisfied, and the alpha agreed on.
    answers: Vec<(f64, f64)>,
    tenants: Vec<(f64, f64, f64)>,
    satisfied: f64,
    cost: f64,
    calls: Vec<u64>,
    extra_calls: Vec<u64>,
    labels: Vec<u64>,
    bound_broken: bool,
    largest_queue: f64,
    curve: Vec<Point>,
}

impl<'a> Count<'a> {
    fn new(stream: &'a Stream<'a>) -> Self {
        let zeros = vec![0; stream.data.models.len()];
        Self {
            stream,
            answers: Vec::with_capacity(stream.data.rows.len()),
            tenants: vec![(0.0, 0.0, 0.0); if stream.scenario == Scenario::TwoTenants { 2 } else { 1 }],
            satisfied: 0.0,
            cost: 0.0,
            calls: zeros.clone(),
            extra_calls: zeros.clone(),
            labels: zeros,
            bound_broken: false,
            largest_queue: 0.0,
            curve: Vec::new(),
        }
    }

    fn answer(&mut self, tenant: usize, alpha: f64, satisfied: f64) {
        self.answers.push((satisfied, alpha));
        self.satisfied += satisfied;
        let known = &mut self.tenants[tenant];
        *known = (known.0 + satisfied, known.1 + 1.0, alpha);
    }

    fn pay(&mut self, model: usize, served: bool, cost: f64) {
        self.cost += cost;
        let calls = if served { &mut self.calls } else { &mut self.extra_calls };
        calls[model] += 1;
    }

    fn watch(&mut self, t: usize, contender: &dyn Contender) {
        let status = contender.status(0);
        if let Some(status) = &status {
            self.largest_queue = self.largest_queue.max(status.queue);
            self.bound_broken |= status.queue > status.queue_bound;
        }
        let every = (self.stream.data.rows.len() / CURVE_POINTS).max(1);
        if t % every == every - 1 {
            let done = (t + 1) as f64;
            self.curve.push(Point {
                request: t + 1,
                satisfaction: self.satisfied / done,
                window: mean(&self.answers[(t + 1).saturating_sub(WINDOW)..]),
                mean_cost: self.cost / done,
                queue: status.as_ref().map(|status| status.queue),
                at_least: status.as_ref().map(|status| status.satisfaction_at_least),
            });
        }
    }

    fn finish(self) -> Run {
        let count = self.answers.len().max(1) as f64;
        let below = |window: &&[(f64, f64)]| {
            let alpha = window.iter().map(|(_, alpha)| alpha).sum::<f64>() / window.len() as f64;
            mean(window) < alpha - 1e-9
        };
        let windows = self.answers.len().saturating_sub(WINDOW) + 1;
        Run {
            satisfaction: self.satisfied / count,
            tenants: self.tenants.iter().map(|&(sum, count, alpha)| (sum / count.max(1.0), alpha)).collect(),
            windows_below: self.answers.windows(WINDOW).filter(below).count() as f64 / windows as f64,
            mean_cost: self.cost / count,
            recovered_after: recovered_after(&self.answers),
            calls: self.calls,
            extra_calls: self.extra_calls,
            labels: self.labels,
            bound_broken: self.bound_broken,
            largest_queue: self.largest_queue,
            curve: self.curve,
        }
    }
}

fn mean(answers: &[(f64, f64)]) -> f64 {
    answers.iter().map(|(satisfied, _)| satisfied).sum::<f64>() / answers.len().max(1) as f64
}

/// Requests in the window that decides whether a stream has recovered; all of them lie after the change.
const RECOVERY_WINDOW: usize = 100;

fn recovered_after(answers: &[(f64, f64)]) -> Option<u64> {
    let after = &answers[answers.len() / 2..];
    let found = after.windows(RECOVERY_WINDOW).position(|window| mean(window) >= window[0].1 - 1e-9);
    found.map(|start| (start + RECOVERY_WINDOW) as u64)
}
