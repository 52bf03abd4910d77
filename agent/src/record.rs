//! What a turn's record says before anything was tried. Pure.

use tether_policies::{Candidate, Decision, Observation};
use tether_protocol::record::{Outcome, Timings, Unaffordable, Usage};
use tether_protocol::{Cost, TurnId, TurnRecord};

/// The record of a turn that begins, with its decision among `candidates`; what is not in these is empty or unknown yet.
pub fn begun(
    turn_id: TurnId,
    started_unix_ms: i64,
    policy: &str,
    observation: &Observation,
    decision: &Decision,
    candidates: &[Candidate],
) -> TurnRecord {
    let chosen = candidates.iter().find(|candidate| candidate.action == decision.action);
    TurnRecord {
        turn_id,
        session: None,
        client: String::new(),
        started_unix_ms,
        task: observation.task.clone(),
        task_source: None,
        local_only: false,
        context: observation.context.clone(),
        permitted: candidates.iter().map(|candidate| candidate.action).collect(),
        action: decision.action,
        policy: policy.to_owned(),
        reason: decision.reason.clone(),
        propensity: decision.propensity,
        probabilities: decision.probabilities(candidates),
        values: decision.values.clone(),
        predicted: chosen.map(|candidate| candidate.predicted).unwrap_or_default(),
        predicted_costs: candidates.iter().map(|candidate| candidate.predicted).collect(),
        budget_remaining: Default::default(),
        reserved: None,
        route: decision.action.route(),
        views: Vec::new(),
        vision: None,
        model: None,
        fallback: None,
        measured: Cost::default(),
        upload: None,
        energy_source: "unknown".into(),
        usage: Usage::default(),
        usage_estimated: false,
        cached_tokens: None,
        dropped_messages: 0,
        timings: Timings::default(),
        outcome: Outcome::Unfinished,
        rating: None,
    }
}

/// How a turn ends for which nothing was left of these actions.
pub fn refusal(considered: &[Candidate], possible_unix_ms: Option<i64>) -> Outcome {
    let unaffordable = considered.iter().map(|&Candidate { action, predicted }| Unaffordable { action, predicted });
    Outcome::Refused { unaffordable: unaffordable.collect(), possible_unix_ms }
}
