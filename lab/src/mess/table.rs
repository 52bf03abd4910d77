//! All routers on one stream, over seeds: the table that every report shows.

use super::ceiling::Ceiling;
use super::contender::{Contender, PublishedRouter, RandomMix, Single, StaticMix, Tether};
use super::data::Dataset;
use super::reference::{changed_model, oracle_cost, static_reference};
use super::run::{Run, Stream};
use super::scenario::Scenario;
use rayon::prelude::*;
use serde::Serialize;
use tether_policies::mess::{Params, PublishedParams};

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    pub data: &'a Dataset,
    /// The encoder's width.
    pub width: usize,
    pub scenario: Scenario,
    pub alpha: f64,
    pub seeds: std::ops::Range<u64>,
    pub params: Params,
}

/// One router's line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub router: String,
    pub satisfaction: f64,
    pub lowest_satisfaction: f64,
    /// Seeds whose satisfaction is at least alpha - 0.005, for every tenant.
    pub seeds_held: usize,
    pub windows_below: f64,
    pub mean_cost: f64,
    /// Over the mean cost of the cheapest static mix that knows the means.
    pub cost_ratio: f64,
    pub calls: Vec<f64>,
    pub extra_calls: Vec<f64>,
    pub labels: Vec<f64>,
    pub largest_queue: f64,
    pub seeds_above_bound: usize,
    #[serde(skip)]
    pub runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Table {
    pub data: String,
    pub models: Vec<String>,
    pub rows: usize,
    pub scenario: &'static str,
    pub alpha: f64,
    pub seeds: u64,
    pub first_seed: u64,
    /// Mean cost per request of the cheapest static mix that knows the means.
    pub static_mix_cost: f64,
    /// The V that suits published MESS+ best here, in 1 / cost, tuned on other seeds.
    pub published_v: Option<f64>,
    pub lines: Vec<Line>,
}

/// How far below alpha a stream may end.
pub const TOLERANCE: f64 = 0.005;
/// Published MESS+ is tuned on these seeds, which no report measures.
const TUNING_SEEDS: std::ops::Range<u64> = 9_000..9_003;

impl Plan<'_> {
    fn stream(&self, seed: u64) -> Stream<'_> {
        let changed = changed_model(self.data, self.alpha);
        Stream { data: self.data, scenario: self.scenario, alpha: self.alpha, seed, changed }
    }

    fn alphas(&self) -> Vec<f64> {
        (0..2).map(|t| self.scenario.tenant(self.alpha, t).1).collect()
    }

    fn runs(&self, seeds: std::ops::Range<u64>, make: impl Fn() -> Box<dyn Contender> + Sync) -> Vec<Run> {
        let run = |seed| self.stream(seed).run(make().as_mut());
        seeds.into_par_iter().map(run).collect()
    }

    /// Our router alone.
    pub fn tether(&self) -> Vec<Run> {
        let make = || {
            let present = self.stream(0).present();
            let router = Tether::new(self.data, &present, self.width, &self.alphas(), self.params);
            Box::new(router.expect("the plan's zoo and alphas were checked")) as Box<dyn Contender>
        };
        self.runs(self.seeds.clone(), make)
    }

    fn published(&self, seeds: std::ops::Range<u64>, v: f64) -> Vec<Run> {
        let (models, params) = (self.data.models.len(), PublishedParams::new(self.alpha, v));
        self.runs(seeds, || Box::new(PublishedRouter::new(models, self.width, params)))
    }

    /// Published MESS+ with the V that is best for it on other seeds: the cheapest that holds alpha - 0.005 on all
    /// of them, or failing that the one that satisfies most.
    pub fn published_tuned(&self) -> (f64, Vec<Run>) {
        let unit = self.data.means().iter().map(|m| m.cost).fold(0.0, f64::max);
        let tuned = (-8..=12).map(|step| 2f64.powi(step) / unit).map(|v| {
            let runs = self.published(TUNING_SEEDS, v);
            let count = runs.len() as f64;
            let held = runs.iter().all(|run| run.satisfaction >= self.alpha - TOLERANCE);
            let cost = runs.iter().map(|run| run.mean_cost).sum::<f64>() / count;
            let satisfaction = runs.iter().map(|run| run.satisfaction).sum::<f64>() / count;
            (v, held, cost, satisfaction)
        });
        let tuned: Vec<(f64, bool, f64, f64)> = tuned.collect();
        let cheapest = tuned.iter().filter(|tuned| tuned.1).min_by(|a, b| a.2.total_cmp(&b.2));
        let best = cheapest.or_else(|| tuned.iter().max_by(|a, b| a.3.total_cmp(&b.3)));
        let v = best.map_or(1.0 / unit, |tuned| tuned.0);
        (v, self.published(self.seeds.clone(), v))
    }

    /// Every router and every baseline.
    pub fn table(&self) -> Table {
        let reference = static_reference(&self.stream(0));
        let line = |router: &str, runs: Vec<Run>| line(router, runs, reference.mean_cost);
        let tether = line("tether", self.tether());
        // A published router cannot take a model in at run time, nor serve two levels.
        let fits = !matches!(self.scenario, Scenario::ModelAdded | Scenario::TwoTenants);
        let published = fits.then(|| self.published_tuned());
        let published_v = published.as_ref().map(|(v, _)| *v);
        let (shares, seeds) = (tether.calls.clone(), || self.seeds.clone());
        let mut lines = vec![tether];
        lines.extend(published.map(|(_, runs)| line("MESS+ as published", runs)));
        lines.push(line("random mix, same calls", self.runs(seeds(), || Box::new(RandomMix(shares.clone())))));
        let mixes = reference.mixes.clone();
        let mixes = || Box::new(StaticMix(mixes.clone().into_iter().cycle().take(2).collect())) as Box<dyn Contender>;
        lines.push(line("static mix, knows means", self.runs(seeds(), mixes)));
        for (m, name) in self.data.models.iter().enumerate() {
            lines.push(line(&format!("only {name}"), self.runs(seeds(), || Box::new(Single(m)))));
        }
        // These are computed on the data as they are, without a scenario's changes.
        if self.scenario == Scenario::Plain {
            let taught = Ceiling::of(self.data, self.width).expect("the plan's zoo was checked").cost(self.alpha);
            lines.extend(taught.map(|cost| self.knowing("our heads, know other labels", cost, reference.mean_cost)));
            let oracle = oracle_cost(self.data, self.alpha);
            lines.push(self.knowing("oracle, knows labels", oracle, reference.mean_cost));
        }
        Table {
            data: self.data.name.clone(),
            models: self.data.models.clone(),
            rows: self.data.rows.len(),
            scenario: self.scenario.name(),
            alpha: self.alpha,
            seeds: self.seeds.end - self.seeds.start,
            first_seed: self.seeds.start,
            static_mix_cost: reference.mean_cost,
            published_v,
            lines,
        }
    }

    /// A yardstick that reaches alpha by what it knows beforehand.
    fn knowing(&self, router: &str, mean_cost: f64, static_cost: f64) -> Line {
        Line {
            router: router.to_owned(),
            satisfaction: self.alpha,
            lowest_satisfaction: self.alpha,
            seeds_held: (self.seeds.end - self.seeds.start) as usize,
            windows_below: 0.0,
            mean_cost,
            cost_ratio: mean_cost / static_cost,
            calls: vec![],
            extra_calls: vec![],
            labels: vec![],
            largest_queue: 0.0,
            seeds_above_bound: 0,
            runs: vec![],
        }
    }
}

fn line(router: &str, runs: Vec<Run>, static_cost: f64) -> Line {
    let count = runs.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / count;
    let per_model = |of: &dyn Fn(&Run) -> &Vec<u64>| {
        let models = runs.first().map_or(0, |run| of(run).len());
        (0..models).map(|m| runs.iter().map(|run| of(run)[m] as f64).sum::<f64>() / count).collect()
    };
    let held = |run: &&Run| run.tenants.iter().all(|&(satisfaction, alpha)| satisfaction >= alpha - TOLERANCE);
    let mean_cost = mean(&|run| run.mean_cost);
    Line {
        router: router.to_owned(),
        satisfaction: mean(&|run| run.satisfaction),
        lowest_satisfaction: runs.iter().map(|run| run.satisfaction).fold(1.0, f64::min),
        seeds_held: runs.iter().filter(held).count(),
        windows_below: mean(&|run| run.windows_below),
        mean_cost,
        cost_ratio: mean_cost / static_cost,
        calls: per_model(&|run| &run.calls),
        extra_calls: per_model(&|run| &run.extra_calls),
        labels: per_model(&|run| &run.labels),
        largest_queue: runs.iter().map(|run| run.largest_queue).fold(0.0, f64::max),
        seeds_above_bound: runs.iter().filter(|run| run.bound_broken).count(),
        runs,
    }
}

/// Our router with one encoder.
#[derive(Debug, Clone, Serialize)]
pub struct EncoderRow {
    pub encoder: String,
    pub width: usize,
    pub alpha: f64,
    pub satisfaction: f64,
    pub seeds_held: usize,
    pub seeds: u64,
    pub cost_ratio: f64,
    /// Median time to encode one prompt.
    pub encode_ms: f64,
    /// Time of a whole simulated request without encoding: decision, cost and rating.
    pub request_us: f64,
}

impl std::fmt::Display for EncoderRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<26} width {:>3}  alpha {:.2}  satisfied {:.4}  held {:>2}/{}  cost/static {:.3}  encode {:>8.3} ms  request {:>6.1} us",
            self.encoder,
            self.width,
            self.alpha,
            self.satisfaction,
            self.seeds_held,
            self.seeds,
            self.cost_ratio,
            self.encode_ms,
            self.request_us
        )
    }
}

impl Plan<'_> {
    pub fn encoder_row(&self, encoder: &str, encode_ms: f64) -> EncoderRow {
        let before = std::time::Instant::now();
        let runs = self.tether();
        let threads = rayon::current_num_threads().min(runs.len()).max(1);
        let requests = (runs.len() * self.data.rows.len()).max(1);
        let request_us = before.elapsed().as_secs_f64() * 1e6 * threads as f64 / requests as f64;
        let line = line(encoder, runs, static_reference(&self.stream(0)).mean_cost);
        EncoderRow {
            encoder: line.router,
            width: self.width,
            alpha: self.alpha,
            satisfaction: line.satisfaction,
            seeds_held: line.seeds_held,
            seeds: self.seeds.end - self.seeds.start,
            cost_ratio: line.cost_ratio,
            encode_ms,
            request_us,
        }
    }
}

impl Table {
    /// Columns for people.
    pub fn text(&self) -> String {
        let seeds = self.seeds;
        let mut text = format!(
            "{}, {} requests, {seeds} seeds from {}, scenario {}, alpha {}\nstatic mix: {:.6} per request; \
             calls, extra and labels in the order {}\n",
            self.data,
            self.rows,
            self.first_seed,
            self.scenario,
            self.alpha,
            self.static_mix_cost,
            self.models.join(", ")
        );
        if let Some(v) = self.published_v {
            text += &format!("published V {v:.3e}, tuned on other seeds\n");
        }
        text += &format!(
            "{:<36} {:>8} {:>8} {:>6} {:>8} {:>11} {:>7} {:>7}  {:<20} {:<16} {}\n",
            "router",
            "satisf.",
            "lowest",
            "held",
            "windows<",
            "mean cost",
            "/static",
            "max Q",
            "calls",
            "extra",
            "labels"
        );
        let list = |numbers: &[f64]| numbers.iter().map(|n| format!("{n:.0}")).collect::<Vec<_>>().join(",");
        for line in &self.lines {
            text += &format!(
                "{:<36} {:>8.4} {:>8.4} {:>3}/{seeds:<2} {:>8.3} {:>11.6} {:>7.3} {:>7.1}  {:<20} {:<16} {}\n",
                line.router,
                line.satisfaction,
                line.lowest_satisfaction,
                line.seeds_held,
                line.windows_below,
                line.mean_cost,
                line.cost_ratio,
                line.largest_queue,
                list(&line.calls),
                list(&line.extra_calls),
                list(&line.labels)
            );
        }
        text
    }
}
