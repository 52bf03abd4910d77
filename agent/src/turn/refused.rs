//! A turn that nobody may answer: it leaves a record, and nothing else.

use super::Caller;
use super::attempt::Plan;
use crate::daemon::{Daemon, Live};
use crate::record::{begun, refusal};
use crate::store::Settling;
use tether_policies::{Candidate, Decision, Observation};
use tether_protocol::api::{ApiError, ChatTurn};
use tether_protocol::record::Timings;
use tether_protocol::{Action, Cost, Reason, TurnRecord};

pub(super) struct Refused<'a> {
    /// What was permitted before budgets and latency were looked at.
    pub considered: Vec<Candidate>,
    pub error: &'a ApiError,
    pub decision_us: u64,
}

impl Refused<'_> {
    /// Writes it into the ledger. A request that is wrong in itself is no turn, and leaves nothing.
    pub(super) async fn keep(
        self,
        daemon: &Daemon,
        live: &Live,
        caller: &Caller,
        request: &ChatTurn,
        plan: &Plan,
        observation: &Observation,
    ) {
        if self.error.status == 400 {
            return;
        }
        let total_ms = Some(caller.arrived.elapsed().as_secs_f64() * 1e3);
        let record = TurnRecord {
            session: request.session.clone(),
            client: caller.name.clone(),
            task_source: plan.task.as_ref().map(|task| task.source),
            local_only: plan.local_only.is_some(),
            budget_remaining: daemon.budgets().offer(&[], None).remaining,
            measured: Cost { latency_ms: total_ms, ..Cost::ZERO },
            energy_source: "none".into(),
            timings: Timings { decision_us: self.decision_us, total_ms, ..Timings::default() },
            ..self.record(plan, daemon.now_ms(), observation)
        };
        let content = live.settings.ledger.content.then(|| plan.content(observation, Action::LOCAL));
        let settled = daemon.store().settle(&record, Settling { content, ..Settling::default() }).await;
        daemon.ledger_result(settled);
    }

    fn record(self, plan: &Plan, now_ms: i64, observation: &Observation) -> TurnRecord {
        let reason = Reason { code: self.error.code().to_owned(), detail: self.error.object.message.clone() };
        let nothing = Decision { reason, ..Decision::certain(Action::LOCAL, "", "") };
        let possible_unix_ms = self.error.retry_after_s.map(|seconds| now_ms + i64::from(seconds) * 1_000);
        let outcome = refusal(&self.considered, possible_unix_ms);
        TurnRecord { outcome, ..begun(plan.turn_id.clone(), now_ms, &plan.policy, observation, &nothing, &[]) }
    }
}
