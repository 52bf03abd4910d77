//! A turn of a flight as the ledger would hold it.

use super::arrivals::Arrival;
use super::truth::Done;
use crate::record::begun;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tether_policies::tmo::honest::hardware::{ANSWER_TOKENS, PROMPT_TOKENS};
use tether_policies::{Candidate, Decision, Observation};
use tether_protocol::record::{FinishReason, Outcome, Usage};
use tether_protocol::{Cost, SessionId, TurnId, TurnRecord};

/// Who asks, in a replay's records.
pub(super) const CLIENT: &str = "replay";

/// The record of a turn that begins at `now_ms`; it failed, at no cost, until something else is known.
pub(super) fn begin(
    arrival: &Arrival,
    now_ms: i64,
    policy: &str,
    observation: &Observation,
    budget_remaining: BTreeMap<String, f64>,
    decision: &Decision,
    candidates: &[Candidate],
) -> TurnRecord {
    TurnRecord {
        session: SessionId::new(format!("dialogue-{}", arrival.session)).ok(),
        client: CLIENT.to_owned(),
        budget_remaining,
        measured: Cost::ZERO,
        energy_source: "simulated".into(),
        usage_estimated: true,
        outcome: Outcome::Failed { error: "insufficient_quota".into() },
        ..begun(turn_id(now_ms, arrival.seed), now_ms, policy, observation, decision, candidates)
    }
}

/// Somebody answered.
pub(super) fn answered(record: &mut TurnRecord, done: &Done) {
    record.usage = Usage { prompt_tokens: PROMPT_TOKENS as u32, completion_tokens: ANSWER_TOKENS as u32 };
    record.timings.total_ms = done.cost.latency_ms;
    record.outcome = Outcome::Answered { finish_reason: FinishReason::Stop };
}

/// A UUID of version 7 from virtual time and the turn's seed, so that ids sort by time here too.
fn turn_id(now_ms: i64, seed: u64) -> TurnId {
    let random: [u8; 10] = ChaCha8Rng::seed_from_u64(seed).random();
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms.unsigned_abs(), &random).into_uuid();
    // A UUID is always a legal name.
    TurnId::new(id.to_string()).expect("hexadecimal digits and hyphens")
}
