//! The bars of `make bench-mess`, one JSON object a line. A bar without its data is skipped, and skipped is not met.

use super::ceiling::Ceiling;
use super::data::{self, Dataset, Source};
use super::reference::static_reference;
use super::run::{Run, Stream};
use super::scenario::Scenario;
use super::synthetic::{self, Shape};
use super::table::{Plan, TOLERANCE};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use tether_policies::mess::{Answer, Call, Encoder, ModelSpec, Params, Router, TenantConfig};

/// One measured bar. `value` is `null` where the bar was skipped.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    pub bar: String,
    pub value: Option<f64>,
    pub target: f64,
    pub unit: &'static str,
    pub met: bool,
    pub how: String,
}

/// What a data set is and how it is read.
struct Set {
    file: &'static str,
    models: [&'static str; 3],
    costs: Option<[f64; 3]>,
}

const PARETO: Set = Set {
    file: "paretobandit_val.jsonl",
    models: ["llama-3.1-8b-instruct", "mistral-large-2512", "gemini-2.5-pro"],
    costs: None,
};
const LLM_ROUTER: Set = Set {
    file: "llmrouter.jsonl",
    models: ["mistral-7b-instruct-v0.3", "llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct"],
    costs: Some([7.0, 8.0, 51.0]),
};
/// Alpha, and the cost that may be reached over that of the static mix.
const LEVELS: [(f64, f64); 4] = [(0.75, 0.80), (0.80, 0.83), (0.85, 0.88), (0.90, 1.00)];
/// Over the cost of published MESS+.
const PUBLISHED_TARGET: f64 = 0.33;
const LLM_ROUTER_LEVEL: (f64, f64) = (0.60, 0.80);
const RECOVERY_REQUESTS: f64 = 300.0;
/// The level at which a drop is measured.
const DROP_ALPHA: f64 = 0.85;
const DECISION_US: f64 = 10.0;
const ENCODED_DECISION_US: f64 = 2_000.0;
const SEEDS: std::ops::Range<u64> = 0..10;
const SEEDS_TO_HOLD: f64 = 9.0;

/// Measures everything and hands each bar to `show` as soon as it is known.
pub fn run(
    folder: &Path,
    encoder: &dyn Encoder,
    show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match read(folder, &PARETO, encoder)? {
        Some(data) => pareto(&data, encoder.width(), show)?,
        None => skipped_pareto(folder).iter().try_for_each(&mut *show)?,
    }
    match read(folder, &LLM_ROUTER, encoder)? {
        Some(data) => {
            let ceiling = Ceiling::of(&data, encoder.width())?;
            level(&data, encoder.width(), "llmrouter", LLM_ROUTER_LEVEL, &ceiling, false, show)?;
        }
        None => show(&skipped("llmrouter cost", LLM_ROUTER_LEVEL.1, "ratio", folder, LLM_ROUTER.file))?,
    }
    decision_times(encoder).iter().try_for_each(show)
}

fn read(folder: &Path, set: &Set, encoder: &dyn Encoder) -> anyhow::Result<Option<Dataset>> {
    let places = [folder.join(set.file), folder.join("data/router").join(set.file)];
    let Some(path) = places.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let models: Vec<String> = set.models.iter().map(|&name| name.to_owned()).collect();
    let costs = set.costs.as_ref().map(|costs| costs.as_slice());
    Ok(Some(data::load(&Source { path: &path, models: &models, costs, skip_incomplete: false }, encoder)?))
}

fn skipped(bar: &str, target: f64, unit: &'static str, folder: &Path, file: &str) -> Bar {
    let how = format!("skipped: {} is not there; --data FOLDER tells where it is", folder.join(file).display());
    Bar { bar: bar.to_owned(), value: None, target, unit, met: false, how }
}

fn skipped_pareto(folder: &Path) -> Vec<Bar> {
    let rows = |&(alpha, cost): &(f64, f64)| {
        [
            skipped(&format!("paretobandit satisfaction {alpha:.2}"), SEEDS_TO_HOLD, "seeds", folder, PARETO.file),
            skipped(&format!("paretobandit cost {alpha:.2}"), cost, "ratio", folder, PARETO.file),
            skipped(&format!("paretobandit cost {alpha:.2}, as in the gateway"), cost, "ratio", folder, PARETO.file),
            skipped(
                &format!("paretobandit against published {alpha:.2}"),
                PUBLISHED_TARGET,
                "ratio",
                folder,
                PARETO.file,
            ),
        ]
    };
    let mut bars: Vec<Bar> = LEVELS.iter().flat_map(rows).collect();
    bars.push(skipped("recovery after a drop", RECOVERY_REQUESTS, "requests", folder, PARETO.file));
    bars
}

fn pareto(data: &Dataset, width: usize, show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let ceiling = Ceiling::of(data, width)?;
    for wanted in LEVELS {
        level(data, width, "paretobandit", wanted, &ceiling, true, show)?;
    }
    let runs = plan(data, width, DROP_ALPHA, Scenario::Drop).tether();
    // As for satisfaction: nine seeds of ten must hold.
    let mut after: Vec<f64> = runs.iter().map(|run| run.recovered_after.map_or(f64::INFINITY, |n| n as f64)).collect();
    after.sort_by(f64::total_cmp);
    let value = after[SEEDS_TO_HOLD as usize - 1];
    show(&Bar {
        bar: "recovery after a drop".to_owned(),
        value: value.is_finite().then_some(value),
        target: RECOVERY_REQUESTS,
        unit: "requests",
        met: value <= RECOVERY_REQUESTS,
        how: format!(
            "{}, alpha {DROP_ALPHA}: from the drop until the last 100 requests were at alpha again, nine seeds of ten",
            data.name
        ),
    })
}

fn plan(data: &Dataset, width: usize, alpha: f64, scenario: Scenario) -> Plan<'_> {
    Plan { data, width, scenario, alpha, seeds: SEEDS, params: Params::default() }
}

fn level(
    data: &Dataset,
    width: usize,
    name: &str,
    (alpha, target): (f64, f64),
    ceiling: &Ceiling<'_>,
    against_published: bool,
    show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let plan = plan(data, width, alpha, Scenario::Plain);
    let runs = plan.tether();
    let how = format!("{}, seeds 0-9, cold start, all asked models paid for", data.name);
    let held = runs.iter().filter(|run| run.satisfaction >= alpha - TOLERANCE).count() as f64;
    show(&Bar {
        bar: format!("{name} satisfaction {alpha:.2}"),
        value: Some(held),
        target: SEEDS_TO_HOLD,
        unit: "seeds",
        met: held >= SEEDS_TO_HOLD,
        how: format!("{how}; seeds that end at alpha - {TOLERANCE} or above; mean {:.4}", satisfaction(&runs)),
    })?;
    let stream = Stream { data, scenario: Scenario::Plain, alpha, seed: 0, changed: 0 };
    let static_cost = static_reference(&stream).mean_cost;
    let ratio = cost(&runs) / static_cost;
    show(&Bar {
        bar: format!("{name} cost {alpha:.2}"),
        value: Some(ratio),
        target,
        unit: "ratio",
        met: ratio <= target,
        how: format!(
            "{how}; over the cheapest static mix that knows the means; {}",
            taught(ceiling, alpha, static_cost)
        ),
    })?;
    // Nobody rates an answer that nobody saw: there the router asks no extra questions.
    let gateway = Plan { params: Params { extra: 0.0, ..plan.params }, ..plan.clone() }.tether();
    let held = gateway.iter().filter(|run| run.satisfaction >= alpha - TOLERANCE).count();
    let ratio = cost(&gateway) / static_cost;
    show(&Bar {
        bar: format!("{name} cost {alpha:.2}, as in the gateway"),
        value: Some(ratio),
        target,
        unit: "ratio",
        met: ratio <= target && held as f64 >= SEEDS_TO_HOLD,
        how: format!(
            "{how}; without extra questions; mean satisfaction {:.4}, {held} seeds at alpha - {TOLERANCE}",
            satisfaction(&gateway)
        ),
    })?;
    if !against_published {
        return Ok(());
    }
    let (v, published) = plan.published_tuned();
    let ratio = cost(&runs) / cost(&published);
    show(&Bar {
        bar: format!("{name} against published {alpha:.2}"),
        value: Some(ratio),
        target: PUBLISHED_TARGET,
        unit: "ratio",
        met: ratio <= PUBLISHED_TARGET && satisfaction(&runs) >= alpha - TOLERANCE,
        how: format!(
            "{how}; over published MESS+ with the same encoder and V = {v:.3e} tuned on other seeds, which satisfies {:.4}; {}",
            satisfaction(&published),
            taught(ceiling, alpha, cost(&published))
        ),
    })
}

/// What the features allow at best, over a cost.
fn taught(ceiling: &Ceiling<'_>, alpha: f64, over: f64) -> String {
    let cost = ceiling.cost(alpha).map_or("do not reach it".to_owned(), |cost| format!("need {:.3}", cost / over));
    format!("our heads, taught all labels of the other nine tenths for nothing, {cost}")
}

fn satisfaction(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.satisfaction).sum::<f64>() / runs.len() as f64
}

fn cost(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.mean_cost).sum::<f64>() / runs.len() as f64
}

/// Medians over a synthetic zoo's stream, after the warm-up: the router alone, and with the encoder before it.
fn decision_times(encoder: &dyn Encoder) -> Vec<Bar> {
    let data = synthetic::zoo(Shape::default(), 1, encoder);
    let specs = data.models.iter().map(|name| ModelSpec { name: name.clone(), price: None }).collect();
    let tenant = TenantConfig::new(0.8).expect("0.8 is a legal alpha");
    let mut router =
        Router::new(specs, encoder.width(), tenant, Params::default()).expect("the synthetic zoo is legal");
    let prompt = "A train leaves at 9:40 and arrives at 13:05, with two stops of six minutes. ".repeat(4);
    let (mut alone, mut encoded) = (Vec::new(), Vec::new());
    for (t, row) in data.rows.iter().enumerate() {
        let turn = t.to_string();
        let before = Instant::now();
        std::hint::black_box(encoder.encode(&prompt));
        let encoding = before.elapsed();
        let call = Call {
            tenant: "a",
            turn: &turn,
            features: &row.features,
            permitted: &[true; 3],
            now_ms: t as i64,
            u: (t as f64 * 0.618_033_988_749_895).fract(),
        };
        let before = Instant::now();
        let choice = router.route(&call).expect("the call is legal");
        let deciding = before.elapsed();
        let name = data.models[choice.model].clone();
        let answer = Answer { cost: row.cost[choice.model], tokens: None };
        router.answered(&turn, &name, answer, t as i64).expect("the model was asked");
        router.rate("a", &turn, &name, row.satisfied[choice.model], t as i64).expect("the model was asked");
        if t >= 200 {
            alone.push(deciding.as_secs_f64() * 1e6);
            encoded.push((deciding + encoding).as_secs_f64() * 1e6);
        }
    }
    let bar = |name: &str, mut times: Vec<f64>, target: f64, how: String| {
        times.sort_by(f64::total_cmp);
        let value = times[times.len() / 2];
        Bar { bar: name.to_owned(), value: Some(value), target, unit: "us", met: value <= target, how }
    };
    let how = format!("median of {} decisions, 3 models, one thread", alone.len());
    vec![
        bar("decision without the encoder", alone, DECISION_US, how.clone()),
        bar(
            "decision with the default encoder",
            encoded,
            ENCODED_DECISION_US,
            format!("{how}, encoder {} on {} characters", encoder.name(), prompt.len()),
        ),
    ]
}
