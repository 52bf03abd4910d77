//! An answer under way whose head is true: its first token has come.

use super::attempt::guarded;
use super::open::OpenTurn;
use crate::execute::{Finished, Running, Step};
use crate::pace::{Answered, Counted, upload_ms};
use std::time::Instant;
use tether_protocol::Route;
use tether_protocol::api::{ApiError, PromptTokensDetails, TetherAnswer, TetherCosts, UsageBody};
use tether_protocol::record::{FinishReason, Outcome, Usage};
use tracing::Instrument;

/// Dropping it stops whoever is answering and settles the turn as cancelled.
pub struct Answer {
    // Before `turn`, so that the model is freed before the turn is settled.
    running: Running,
    first: Option<Step>,
    turn: OpenTurn,
    /// When the first token came.
    begun: Instant,
    newest: Instant,
    ended: bool,
}

/// One piece of an answer: any number of `Text`, then `End` or `Failed` once.
#[derive(Debug)]
pub enum Piece {
    Text(String),
    End(Box<End>),
    Failed(ApiError),
}

#[derive(Debug)]
pub struct End {
    pub finish_reason: FinishReason,
    pub usage: UsageBody,
    /// With the costs.
    pub tether: TetherAnswer,
}

impl Answer {
    pub(super) fn new(mut turn: OpenTurn, running: Running, first: Step) -> Self {
        turn.record.model = Some(running.model().to_owned());
        turn.record.vision = running.vision();
        turn.record.timings.first_token_ms = Some(turn.elapsed_ms());
        let begun = Instant::now();
        Self { running, first: Some(first), turn, begun, newest: begun, ended: false }
    }

    /// Seconds since the Unix epoch.
    pub fn created(&self) -> i64 {
        self.turn.record.started_unix_ms / 1_000
    }

    pub fn id(&self) -> String {
        format!("chatcmpl-{}", self.turn.record.turn_id)
    }

    pub fn model(&self) -> &str {
        self.running.model()
    }

    /// Where the answer is made, what left the device, and why; without the costs.
    pub fn head(&self) -> TetherAnswer {
        let record = &self.turn.record;
        let (reason, reason_detail) = match &record.fallback {
            None => (record.reason.code.clone(), record.reason.detail.clone()),
            Some(why) if record.route == Route::Local => {
                ("cloud_failed".into(), format!("the local model answered, because the cloud failed: {why}"))
            }
            Some(why) => ("local_failed".into(), format!("the cloud answered, because the local model failed: {why}")),
        };
        TetherAnswer {
            turn_id: record.turn_id.clone(),
            route: record.route,
            views: record.views.clone(),
            vision: record.vision,
            reason,
            reason_detail,
            fallback: record.fallback.clone(),
            task: record.task.clone(),
            task_source: record.task_source,
            policy: record.policy.clone(),
            propensity: record.propensity,
            values: record.values.clone(),
            decision_us: record.timings.decision_us,
            costs: None,
        }
    }

    /// The next piece; `None` after the end.
    pub async fn next(&mut self) -> Option<Piece> {
        let span = self.turn.span.clone();
        self.advance().instrument(span).await
    }

    async fn advance(&mut self) -> Option<Piece> {
        if self.ended {
            return None;
        }
        let step = match self.first.take() {
            Some(step) => step,
            None => match self.within_deadline().await {
                Ok(step) => step,
                Err(()) => Step::Failed(self.turn.late()),
            },
        };
        Some(match step {
            Step::Text(text) => {
                self.clock();
                self.turn.text.push_str(&text);
                Piece::Text(text)
            }
            Step::Done(finished) => Piece::End(Box::new(self.end(finished).await)),
            Step::Failed(error) => {
                self.measure();
                self.ended = true;
                self.turn.settle(Outcome::Failed { error: error.to_string() }).await;
                Piece::Failed(error)
            }
        })
    }

    async fn within_deadline(&mut self) -> Result<Step, ()> {
        let guard = self.turn.held.guard;
        let next = guarded(&mut self.running, &guard);
        tokio::time::timeout_at(self.turn.deadline.into(), next).await.map_err(drop)
    }

    fn clock(&mut self) {
        let now = Instant::now();
        if !self.turn.text.is_empty() {
            self.turn.daemon.metrics().between_tokens(now.duration_since(self.newest).as_secs_f64());
        }
        self.newest = now;
    }

    async fn end(&mut self, finished: Finished) -> End {
        let Finished { finish_reason, usage, usage_estimated, cost_usd, dropped_messages, queue_ms, cached_tokens } =
            finished;
        self.measure();
        self.ended = true;
        // A cloud that failed half-way may charge for it; nobody told us.
        let nothing_before = self.turn.held.nothing_before();
        let record = &mut self.turn.record;
        record.model = Some(self.running.model().to_owned());
        record.vision = self.running.vision();
        record.usage = usage;
        record.usage_estimated = usage_estimated;
        record.cached_tokens = cached_tokens;
        record.dropped_messages = dropped_messages;
        record.timings.queue_ms = queue_ms;
        record.measured.cost_usd = cost_usd.filter(|_| nothing_before);
        self.tell_pace(cost_usd);
        self.turn.settle(Outcome::Answered { finish_reason }).await;
        let tether = TetherAnswer { costs: Some(self.costs()), ..self.head() };
        let details = cached_tokens.map(|cached_tokens| PromptTokensDetails { cached_tokens });
        let usage = UsageBody { prompt_tokens_details: details, ..usage.into() };
        End { finish_reason, usage, tether }
    }

    /// A whole answer teaches what the next one will take.
    fn tell_pace(&self, cost_usd: Option<f64>) {
        let (record, mut pace) = (&self.turn.record, self.turn.daemon.pace());
        let Usage { prompt_tokens, completion_tokens: answer_tokens } = record.usage;
        if record.route == Route::Local {
            return pace.local_answered(answer_tokens);
        }
        let Some(asked) = self.turn.cloud_asked else { return };
        let counted = Counted { prompt_tokens, answer_tokens, cost_usd };
        let measured_ms = record.upload.as_ref().and_then(|upload| upload.measured_ms);
        let predicted_ms = || upload_ms(record.context.link.value(), record.measured.uplink_bytes.unwrap_or(0));
        let answered = Answered {
            upload_ms: measured_ms.unwrap_or_else(predicted_ms),
            first_token_ms: self.begun.duration_since(asked.at).as_secs_f64() * 1e3,
            total_ms: asked.at.elapsed().as_secs_f64() * 1e3,
            estimated_tokens: asked.estimated_tokens,
            images: asked.images,
            counted: (!record.usage_estimated).then_some(counted),
        };
        pace.cloud_answered(&answered, Instant::now());
    }

    fn measure(&mut self) {
        self.turn.note_usage(&self.running);
        // A local answer crossed nothing; an attempt at the cloud before it may have.
        let crossed = if self.turn.is_local() { self.turn.sent } else { Some(self.running.bytes()) };
        if !self.turn.is_local() {
            self.turn.record.upload = self.running.upload();
        }
        self.turn.record.measured.uplink_bytes = crossed.map(|(up, _)| up);
        self.turn.record.measured.downlink_bytes = crossed.map(|(_, down)| down);
    }

    fn costs(&self) -> TetherCosts {
        let record = &self.turn.record;
        TetherCosts {
            latency_ms: record.timings.total_ms.unwrap_or_default(),
            usd: record.measured.cost_usd,
            joules: record.measured.energy_j,
            joules_source: record.energy_source.clone(),
            uplink_bytes: record.measured.uplink_bytes,
            downlink_bytes: record.measured.downlink_bytes,
            upload: record.upload.clone(),
            first_token_ms: record.timings.first_token_ms,
            usage_estimated: record.usage_estimated,
            dropped_messages: record.dropped_messages,
            dropped_images: self.turn.dropped_images,
            not_recorded: self.turn.not_recorded.clone(),
            budget_remaining: self.turn.daemon.budgets().remaining(),
        }
    }
}

impl Drop for Answer {
    /// Whoever went away leaves a turn whose bytes are known.
    fn drop(&mut self) {
        if !self.ended {
            self.measure();
        }
    }
}
