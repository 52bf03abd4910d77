//! A turn of a flight as the ledger would hold it.

use super::arrivals::Arrival;
use super::truth::Done;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tether_policies::budget::{Amounts, Resource};
use tether_policies::tmo::honest::hardware::{ANSWER_TOKENS, PROMPT_TOKENS};
use tether_policies::{Decision, Observation, Permitted};
use tether_protocol::record::{FinishReason, Outcome, Timings, Usage};
use tether_protocol::{Action, Cost, Reason, Route, SessionId, TurnId, TurnRecord, ViewSet};

/// Who asks, in a replay's records.
pub(super) const CLIENT: &str = "replay";

/// A policy's decision and what was held back for it; `None`: no action fitted the budgets.
pub(super) struct Chosen {
    pub permitted: Permitted,
    pub decision: Decision,
    pub reserved: Amounts,
}

/// The record of a turn that begins at `now_ms`. `done`: with what came of it; `None`: nobody answered.
pub(super) fn record(
    arrival: &Arrival,
    now_ms: i64,
    policy: &str,
    observation: Observation,
    budget_remaining: BTreeMap<String, f64>,
    chosen: Option<&Chosen>,
    done: Option<&Done>,
) -> TurnRecord {
    let candidates = chosen.map_or(&[][..], |chosen| chosen.permitted.candidates());
    let action = chosen.map_or(Action::LOCAL, |chosen| chosen.decision.action);
    let refused = || Reason::new("budget_exhausted", "no action fits the budgets");
    let cloud = done.is_some_and(|done| done.route == Route::Cloud);
    let sent = if cloud { observation.space.sent(action) } else { ViewSet::EMPTY };
    let fell_back = done.is_some() && action.route() == Route::Cloud && !cloud;
    let tokens = |is: bool, tokens: f64| if is { tokens as u32 } else { 0 };
    TurnRecord {
        turn_id: turn_id(now_ms, arrival.seed),
        session: SessionId::new(format!("dialogue-{}", arrival.session)).ok(),
        client: CLIENT.to_owned(),
        started_unix_ms: now_ms,
        task: observation.task,
        task_source: None,
        local_only: false,
        vision: None,
        views: observation.space.names(sent),
        context: observation.context,
        permitted: candidates.iter().map(|candidate| candidate.action).collect(),
        action,
        policy: policy.to_owned(),
        reason: chosen.map_or_else(refused, |chosen| chosen.decision.reason.clone()),
        propensity: chosen.map_or(1.0, |chosen| chosen.decision.propensity),
        values: chosen.and_then(|chosen| chosen.decision.values.clone()),
        predicted: chosen.and_then(|chosen| Some(chosen.permitted.get(action)?.predicted)).unwrap_or_default(),
        predicted_costs: candidates.iter().map(|candidate| candidate.predicted).collect(),
        probabilities: chosen.and_then(|chosen| chosen.decision.probabilities(candidates)),
        budget_remaining,
        reserved: chosen.map(|chosen| as_cost(&chosen.reserved)),
        route: if cloud { Route::Cloud } else { Route::Local },
        model: None,
        fallback: fell_back.then(|| "the cloud was not reached in time".to_owned()),
        measured: done.map_or(Cost::ZERO, |done| done.cost),
        upload: None,
        energy_source: "simulated".into(),
        usage: Usage {
            prompt_tokens: tokens(done.is_some(), PROMPT_TOKENS),
            completion_tokens: tokens(done.is_some(), ANSWER_TOKENS),
        },
        cached_tokens: None,
        usage_estimated: true,
        dropped_messages: 0,
        timings: Timings { total_ms: done.and_then(|done| done.cost.latency_ms), ..Timings::default() },
        outcome: match done {
            Some(_) => Outcome::Answered { finish_reason: FinishReason::Stop },
            None => Outcome::Failed { error: "insufficient_quota".into() },
        },
        rating: None,
    }
}

/// A UUID of version 7 from virtual time and the turn's seed, so that ids sort by time here too.
fn turn_id(now_ms: i64, seed: u64) -> TurnId {
    let random: [u8; 10] = ChaCha8Rng::seed_from_u64(seed).random();
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms.unsigned_abs(), &random).into_uuid();
    // A UUID is always a legal name.
    TurnId::new(id.to_string()).expect("hexadecimal digits and hyphens")
}

fn as_cost(amounts: &Amounts) -> Cost {
    Cost {
        latency_ms: None,
        cost_usd: Some(Resource::Usd.value(amounts[Resource::Usd])),
        energy_j: Some(Resource::EnergyJ.value(amounts[Resource::EnergyJ])),
        uplink_bytes: Some(amounts[Resource::UplinkBytes]),
        downlink_bytes: Some(amounts[Resource::DownlinkBytes]),
    }
}
