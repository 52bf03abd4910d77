//! Our paper mode against recorded steps of the reference.

use super::data::{Split, environment, read};
use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tether_policies::tmo::data::Dataset;
use tether_policies::tmo::paper::{Environment, History};

const CLOSE: f64 = 1e-6;

#[derive(Deserialize)]
struct Golden {
    splits: BTreeMap<usize, Vec<GoldenDialogue>>,
}

#[derive(Deserialize)]
struct GoldenDialogue {
    dialogue_id: u64,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    observation: Vec<f64>,
    action: usize,
    tied: bool,
    response_reference: f64,
    response_min: f64,
    response_max: f64,
    response_all_tied: f64,
    association_normalised: f64,
    total_latency_s: f64,
    total_usage_usd: f64,
    reward_all_tied: f64,
}

/// How many steps agree, and what the others differ in.
#[derive(Debug, Default)]
pub struct Outcome {
    pub agree: usize,
    pub all: usize,
    pub differences: Vec<String>,
}

pub fn check(folder: &Path, data: &Dataset, splits: &[Split]) -> anyhow::Result<Outcome> {
    let path = folder.join("reference/tmo_golden.json");
    let golden: Golden = serde_json::from_str(&read(&path)?).with_context(|| format!("{}", path.display()))?;
    let mut outcome = Outcome::default();
    for (number, dialogues) in &golden.splits {
        let split = splits.get(*number).with_context(|| format!("split {number} is not in tmo_splits.json"))?;
        let environment = environment(data, split)?;
        for dialogue in dialogues {
            compare(*number, dialogue, data, &environment, &mut outcome)?;
        }
    }
    Ok(outcome)
}

fn compare(
    split: usize,
    golden: &GoldenDialogue,
    data: &Dataset,
    environment: &Environment,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let id = golden.dialogue_id;
    let dialogue = data.dialogue(id).with_context(|| format!("no dialogue {id} in the data"))?;
    let (mut history, mut latency_s, mut usage_usd) = (History::default(), 0.0, 0.0);
    for (at, step) in golden.steps.iter().enumerate() {
        let turn = dialogue.turns.get(at).with_context(|| format!("dialogue {id} has no turn {at}"))?;
        let observation = *history.observe(turn.task);
        let ours = environment.outcome(&observation, turn, step.action);
        let (low, high) = environment.estimator.response_range(&observation, step.action);
        history.acted(step.action);
        latency_s += ours.latency_s;
        usage_usd += ours.usage_usd;
        let close = |a: f64, b: f64| (a - b).abs() <= CLOSE;
        let inside = step.response_reference >= low - CLOSE && step.response_reference <= high + CLOSE;
        let checks = [
            ("observation", observation[..] == step.observation[..]),
            ("response, all tied", close(ours.response, step.response_all_tied)),
            ("response, untied", step.tied || close(ours.response, step.response_reference)),
            ("the reference inside the tie range", inside),
            ("tie range", close(low, step.response_min) && close(high, step.response_max)),
            ("association", close(ours.association_normalised, step.association_normalised)),
            ("latency", close(latency_s, step.total_latency_s)),
            ("usage", close(usage_usd, step.total_usage_usd)),
            ("reward", close(ours.reward, step.reward_all_tied)),
        ];
        let wrong: Vec<&str> = checks.iter().filter(|(_, agrees)| !agrees).map(|(what, _)| *what).collect();
        outcome.all += 1;
        outcome.agree += usize::from(wrong.is_empty());
        if !wrong.is_empty() {
            outcome.differences.push(format!("split {split}, dialogue {id}, turn {at}: {}", wrong.join(", ")));
        }
    }
    Ok(())
}
