//! A turn between its begin and its settlement. Dropping it settles it: as cancelled, or as late.

use super::Caller;
use super::afford::Afforded;
use super::attempt::Plan;
use super::held::Held;
use crate::config::SessionSettings;
use crate::daemon::{Daemon, Live};
use crate::record::begun;
use crate::store::{Content, NewMessage, SessionUpdate, Settling};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tether_policies::Observation;
use tether_protocol::api::ChatTurn;
use tether_protocol::record::{Outcome, Timings};
use tether_protocol::wire::Role;
use tether_protocol::{Route, SessionId, TurnId, TurnRecord};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use uuid::{ContextV7, Timestamp, Uuid};

pub(super) struct OpenTurn {
    pub daemon: Arc<Daemon>,
    pub live: Arc<Live>,
    /// What is held back from the budgets, and what the turn draws.
    pub held: Held,
    content: Option<Content>,
    pub record: TurnRecord,
    pub arrived: Instant,
    pub deadline: Instant,
    /// The caller, as the model's queue tells clients apart.
    pub client: String,
    /// The answer so far, for the session's memory.
    pub text: String,
    /// Nothing of this turn may travel later, as history.
    pub private: bool,
    pub dropped_images: u32,
    /// Bytes that attempts sent, up and down, whether they failed or not; `None`: not known.
    pub sent: Option<(u64, u64)>,
    /// The newest attempt at the cloud.
    pub cloud_asked: Option<CloudAsked>,
    memory: Option<PendingMemory>,
    settled: bool,
    /// Why the database did not take its settlement.
    pub not_recorded: Option<String>,
    /// All that is logged of the turn stands in it.
    pub span: tracing::Span,
    _turn_of_session: Option<OwnedMutexGuard<()>>,
    _place: OwnedSemaphorePermit,
}

/// What an answer is compared with, to learn how the cloud answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct CloudAsked {
    pub at: Instant,
    pub images: u32,
    pub estimated_tokens: u32,
}

struct PendingMemory {
    session: SessionId,
    messages: Vec<NewMessage>,
    limits: SessionSettings,
}

impl OpenTurn {
    /// Writes the turn into the ledger. A ledger that cannot be written does not stop the answer, but is told loudly.
    #[expect(clippy::too_many_arguments, reason = "the record joins what every stage before it found")]
    pub(super) async fn begin(
        daemon: &Arc<Daemon>,
        live: &Arc<Live>,
        caller: Caller,
        request: &ChatTurn,
        plan: &Plan,
        afforded: Afforded,
        observation: &Observation,
        decision_us: u64,
    ) -> Self {
        let Afforded { decision, permitted, reservation, amounts, remaining, battery_percent } = afforded;
        let (id, candidates) = (plan.turn_id.clone(), permitted.candidates());
        let record = TurnRecord {
            session: request.session.clone(),
            client: caller.name.clone(),
            task_source: plan.task.as_ref().map(|task| task.source),
            local_only: plan.local_only.is_some(),
            budget_remaining: remaining,
            reserved: reservation.as_ref().map(|reservation| reservation.amounts().cost()),
            timings: Timings { decision_us, ..Timings::default() },
            ..begun(id, daemon.now_ms(), &plan.policy, observation, &decision, candidates)
        };
        let held = Held::begin(daemon, reservation, amounts, battery_percent);
        held.write_begin(daemon, &record).await;
        let memory = request.session.clone().map(|session| PendingMemory {
            session,
            messages: plan.dialogue.new_messages.clone(),
            limits: plan.session_limits,
        });
        Self {
            daemon: daemon.clone(),
            live: live.clone(),
            content: live.settings.ledger.content.then(|| plan.content(observation, decision.action)),
            held,
            record,
            arrived: caller.arrived,
            deadline: plan.deadline,
            client: caller.name,
            text: String::new(),
            private: plan.local_only.is_some(),
            dropped_images: plan.dialogue.dropped_images,
            sent: Some((0, 0)),
            cloud_asked: None,
            memory,
            settled: false,
            not_recorded: None,
            span: tracing::Span::current(),
            _turn_of_session: None,
            _place: caller.place,
        }
    }

    /// Keeps the session to this turn until it is settled.
    pub(super) fn hold(&mut self, turn_of_session: Option<OwnedMutexGuard<()>>) {
        self._turn_of_session = turn_of_session;
    }

    /// Settles the turn and what its session remembers. Returns after the database has it.
    pub(super) async fn settle(&mut self, outcome: Outcome) {
        let settling = self.close(outcome);
        let settled = self.daemon.store().settle(&self.record, settling).await;
        self.not_recorded = settled.as_ref().err().map(ToString::to_string);
        if settled.is_err() {
            // The lease knows it, then.
            self.daemon.budgets().covered().await;
        }
        self.daemon.ledger_result(settled);
    }

    fn close(&mut self, outcome: Outcome) -> Settling {
        self.settled = true;
        self.record.timings.total_ms = Some(self.elapsed_ms());
        self.record.measured.latency_ms = self.record.timings.total_ms;
        // An answer that its reader cut off was read so far; one that failed is no part of the dialogue.
        let remembered = match outcome {
            Outcome::Answered { .. } => true,
            Outcome::Cancelled => !self.text.is_empty(),
            Outcome::Failed { .. } | Outcome::Refused { .. } | Outcome::Unfinished => false,
        };
        self.record.outcome = outcome;
        if self.record.measured.uplink_bytes.is_none() {
            self.record.measured.uplink_bytes = self.sent.map(|(up, _)| up);
            self.record.measured.downlink_bytes = self.sent.map(|(_, down)| down);
        }
        let charges = self.held.settle(&self.daemon, &self.live, &mut self.record);
        if let Some(zoo) = self.daemon.zoo() {
            zoo.settled(&self.record);
        }
        self.tell();
        self.daemon.metrics().settled(&self.record);
        let content = self.content.take().map(|content| Content { answer: self.text.clone(), ..content });
        let update = self.memory.take().filter(|_| remembered).map(|memory| self.update(memory));
        Settling { update, charges, content }
    }

    fn update(&mut self, memory: PendingMemory) -> SessionUpdate {
        let answer = NewMessage { role: Role::Assistant, text: std::mem::take(&mut self.text), local_only: false };
        let mut messages = memory.messages;
        messages.push(answer);
        for message in &mut messages {
            message.local_only = self.private;
        }
        SessionUpdate {
            session: memory.session,
            messages,
            limits: memory.limits,
            now_unix_ms: self.record.started_unix_ms,
        }
    }

    fn tell(&self) {
        let record = &self.record;
        let views: Vec<&str> = record.views.iter().map(|view| view.as_str()).collect();
        let _span = self.span.enter();
        tracing::info!(
            session = record.session.as_ref().map(SessionId::as_str),
            route = %record.route,
            views = views.join(","),
            reason = %record.reason.code,
            policy = %record.policy,
            fallback = record.fallback.as_deref(),
            model = record.model.as_deref(),
            prompt_tokens = record.usage.prompt_tokens,
            completion_tokens = record.usage.completion_tokens,
            uplink_bytes = record.measured.uplink_bytes,
            downlink_bytes = record.measured.downlink_bytes,
            first_token_ms = record.timings.first_token_ms,
            total_ms = record.timings.total_ms,
            outcome = ?record.outcome,
            "turn"
        );
    }

    pub(super) fn elapsed_ms(&self) -> f64 {
        self.arrived.elapsed().as_secs_f64() * 1e3
    }

    pub(super) fn is_local(&self) -> bool {
        self.record.route == Route::Local
    }
}

impl Drop for OpenTurn {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let outcome = if Instant::now() >= self.deadline {
            Outcome::Failed { error: "deadline_exceeded".into() }
        } else {
            Outcome::Cancelled
        };
        let settling = self.close(outcome);
        self.daemon.store().settle_later(&self.record, settling);
    }
}

/// A name for the next turn, a UUID of version 7: ids sort by time, and within a millisecond by a counter.
pub(super) fn turn_id(now_ms: i64) -> TurnId {
    static COUNTER: Mutex<ContextV7> = Mutex::new(ContextV7::new());
    let counter = COUNTER.lock().unwrap_or_else(PoisonError::into_inner);
    let now_ms = now_ms.max(0).unsigned_abs();
    let stamp = Timestamp::from_unix(&*counter, now_ms / 1_000, (now_ms % 1_000) as u32 * 1_000_000);
    TurnId::new(Uuid::new_v7(stamp).to_string()).expect("a UUID is a legal name")
}
