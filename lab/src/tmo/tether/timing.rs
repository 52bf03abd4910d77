//! How long a decision takes, from a ready context to the answer's reason and values.

use std::time::Instant;
use tether_policies::tmo::tether::TetherPolicy;
use tether_policies::{Candidate, Observation, PastTurn, Permitted, Policy};
use tether_protocol::context::ViewContext;
use tether_protocol::{Action, ActionSpace, Context, Cost, Reading, Route, ViewName, ViewSet};

const DECISIONS: usize = 20_000;
const WARM_UP: usize = 2_000;

/// Median and 99th percentile in microseconds, over decisions among `1 + 2^views` actions under four budgets.
pub fn decision_us(policy: &TetherPolicy, views: usize) -> anyhow::Result<[f64; 2]> {
    let (observation, permitted) = ready(views)?;
    let mut times: Vec<f64> = Vec::with_capacity(DECISIONS);
    for seed in 0..(WARM_UP + DECISIONS) as u64 {
        let begun = Instant::now();
        let decision = policy.decide(&observation, &permitted, seed);
        let elapsed_us = begun.elapsed().as_secs_f64() * 1e6;
        std::hint::black_box(decision);
        if seed >= WARM_UP as u64 {
            times.push(elapsed_us);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok([times[DECISIONS / 2], times[DECISIONS * 99 / 100]])
}

/// The third turn of five, every reading known, every resource limited.
fn ready(views: usize) -> anyhow::Result<(Observation, Permitted)> {
    let names = (0..views).map(|view| ViewName::new(format!("view{view}"))).collect::<Result<Vec<_>, _>>()?;
    let view = |(at, name): (usize, &ViewName)| ViewContext {
        name: name.clone(),
        encoded_bytes: Reading::known(100_000, 10, "pushed"),
        attached: false,
        is_text: false,
        local_only: false,
        association: Some(0.2 + 0.01 * at as f64),
    };
    let past = |views: u8| PastTurn { route: Route::Cloud, views: ViewSet(views), task: Some("Query".to_owned()) };
    let context = Context { views: names.iter().enumerate().map(view).collect(), ..Context::default() };
    let budget = Cost {
        latency_ms: Some(25_000.0),
        cost_usd: Some(0.03),
        energy_j: Some(400.0),
        uplink_bytes: Some(800_000),
        downlink_bytes: None,
    };
    let observation = Observation {
        space: ActionSpace::new(names)?,
        history: vec![past(0b1), past(0b11)],
        task: Some("Recommendation".to_owned()),
        text: "what should i cook with this".to_owned(),
        prompt_tokens: 300,
        local_context_tokens: Some(2_048),
        max_tokens: 256,
        context,
        remaining: budget,
        prices: Default::default(),
        ratings: Default::default(),
        considered: Vec::new(),
        turns_left: Some(2),
        deadline_ms: None,
    };
    let predicted = |action: Action| {
        let sent = observation.space.sent(action).len() as f64;
        match action.route() {
            Route::Local => Cost { latency_ms: Some(8_500.0), energy_j: Some(128.0), ..Cost::ZERO },
            Route::Cloud => Cost {
                latency_ms: Some(5_000.0 + 700.0 * sent),
                cost_usd: Some(0.0005 + 0.0045 * sent),
                energy_j: Some(30.0 + 4.0 * sent),
                uplink_bytes: Some(2_000 + 100_000 * sent as u64),
                downlink_bytes: Some(900),
            },
        }
    };
    let actions = observation.space.actions();
    let candidates = actions.map(|action| Candidate { action, predicted: predicted(action) }).collect();
    let permitted = Permitted::new(candidates)?;
    Ok((observation, permitted))
}
