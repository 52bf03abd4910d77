//! One turn from the wire to the wire.

use super::Gateway;
use super::reply::Reply;
use crate::backend::{Ask, BackendError, Piece, flat_text};
use crate::metrics::{ANSWERED, TurnReport};
use crate::server::{Cancelled, Images, IncomingTurn, Peer};
use crate::vision::{self, FrameKey, Measurement, VisionError};
use crate::zoo::Member;
use crate::zoo::choose::{Picked, Refusal, TurnFacts, TurnKey};
use crate::zoo::gate::Slot;
use bytes::Bytes;
use futures::StreamExt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tether_protocol::wire::{Accepted, Done, ErrorCode, ImageHeader, Role, TurnRequest, Vision, WireError};
use tokio::time::{timeout, timeout_at};
use tracing::Instrument;

/// English text; only for predicting a cost before the backend has counted.
const BYTES_PER_TOKEN: usize = 4;

/// Why a turn was not answered.
enum End {
    /// The client is gone; nobody listens any more.
    Cancelled,
    Failed(WireError),
}

impl From<Cancelled> for End {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Failed(error)
    }
}

/// Answers, refuses or abandons one turn, and counts it.
pub(super) async fn handle(gateway: &Gateway, peer: &Peer, turn: IncomingTurn) {
    let started = Instant::now();
    let span = tracing::info_span!("turn", turn_id = %turn.request.turn_id, client = %peer.name);
    async {
        let mut report = TurnReport::new(&turn.request);
        let mut reply = Reply::new(turn.events.clone());
        let end = answer_within(gateway, peer, turn, &mut reply, &mut report).await;
        if let Err(End::Failed(error)) = &end {
            // If this fails too, the client is gone and needs no error.
            let _ = reply.error(error.clone()).await;
        }
        report.outcome = match &end {
            Ok(()) => ANSWERED,
            Err(End::Cancelled) => "cancelled",
            Err(End::Failed(error)) => code_name(error.code),
        };
        report.first_token = reply.first_text.map(|at| at - started);
        report.total = started.elapsed();
        report.sent_bytes = reply.text_bytes;
        log(&report, &end);
        gateway.metrics.count(&report);
    }
    .instrument(span)
    .await;
}

fn log(report: &TurnReport, end: &Result<(), End>) {
    let (model, outcome, total_ms) = (&report.model, report.outcome, report.total.as_millis() as u64);
    let queue_ms = report.queued.as_millis() as u64;
    match end {
        Err(End::Failed(error)) => tracing::warn!(%model, outcome, total_ms, queue_ms, problem = error.message, "turn"),
        _ => {
            let predicted = report.predicted;
            tracing::info!(
                %model, outcome, total_ms, queue_ms, cost_usd = report.cost_usd, reason = report.reason,
                predicted_satisfaction = predicted.map(|predicted| predicted.satisfaction),
                predicted_cost_usd = predicted.and_then(|predicted| predicted.cost_usd),
                shadow_price_usd = predicted.and_then(|predicted| predicted.shadow_price_usd),
                "turn"
            );
        }
    }
}

/// The turn within its deadline, given up at once when the client cancels.
async fn answer_within(
    gateway: &Gateway,
    peer: &Peer,
    turn: IncomingTurn,
    reply: &mut Reply,
    report: &mut TurnReport,
) -> Result<(), End> {
    let IncomingTurn { request, images, events } = turn;
    let asked = request.deadline_ms.map_or(gateway.turn_limit, |ms| Duration::from_millis(ms.into()));
    let limit = asked.min(gateway.turn_limit);
    let answer = timeout(limit, answer(gateway, peer, request, images, reply, report));
    tokio::select! {
        biased;
        answered = answer => answered.unwrap_or_else(|_| {
            let message = format!("the turn was not answered within {} ms", limit.as_millis());
            Err(End::Failed(WireError { code: ErrorCode::DeadlineExceeded, message, retry_after_ms: None }))
        }),
        () = events.closed() => Err(End::Cancelled),
    }
}

/// Asks one backend after the other until one answers; they are chosen anew each time, because the facts change.
async fn answer(
    gateway: &Gateway,
    peer: &Peer,
    request: TurnRequest,
    images: Images,
    reply: &mut Reply,
    report: &mut TurnReport,
) -> Result<(), End> {
    let zoo = gateway.zoo();
    let mut tried = vec![false; zoo.members().len()];
    // Before the images have arrived, so that a hopeless turn is refused at once.
    with_facts(peer, &request, &[], |facts| gateway.chooser.check(facts, &zoo.facts(&tried)))?;
    let turn_id = request.turn_id.clone();
    let (images, features) = tokio::join!(images.collect(), read(gateway, &request));
    let images = images?;
    report.received(&images);
    let mut turn = Turn { gateway, peer, request, images, descriptions: None };
    let mut last = None;
    loop {
        let picked =
            with_facts(peer, &turn.request, &features, |facts| gateway.chooser.choose(facts, &zoo.facts(&tried)));
        let Picked { index, reason, predicted } = match picked {
            Ok(picked) => picked,
            // What the last backend said tells more than that none is left.
            Err(refusal) => return Err(last.unwrap_or(refusal).into()),
        };
        let member = &zoo.members()[index];
        tried[index] = true;
        report.model.clone_from(&member.settings.name);
        (report.reason, report.predicted) = (reason, predicted);
        tracing::debug!(model = member.settings.name, reason, "chosen");
        let key = TurnKey { tenant: &peer.name, turn_id: &turn_id };
        let mut taken_back = TakenBack { gateway, key, answered: false };
        match turn.ask(member, reply, report).await {
            Ok(()) => {
                taken_back.answered = true;
                return Ok(());
            }
            Err(Stop::Cancelled) => return Err(End::Cancelled),
            Err(Stop::Turn(error)) => return Err(error.into()),
            Err(Stop::Backend(error)) => {
                if let BackendError::Failed(problem) = &error {
                    member.failed(problem);
                }
                let error = error.into_wire(&member.settings.name);
                if reply.has_begun() {
                    return Err(error.into());
                }
                tracing::debug!(model = member.settings.name, problem = error.message, "trying the next backend");
                last = Some(error);
            }
        }
    }
}

/// Tells the chooser, however the attempt ends; a choice that was answered stays.
struct TakenBack<'a> {
    gateway: &'a Gateway,
    key: TurnKey<'a>,
    answered: bool,
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.gateway.chooser.failed(&self.key);
        }
    }
}

/// What the chooser reads of a turn; a model that was named needs no reading.
async fn read(gateway: &Gateway, request: &TurnRequest) -> Vec<f32> {
    if request.model.is_some() {
        return Vec::new();
    }
    let newest = request.messages.iter().rev().find(|message| message.role == Role::User);
    gateway.chooser.read(&newest.map(flat_text).unwrap_or_default()).await
}

fn with_facts<T>(
    peer: &Peer,
    request: &TurnRequest,
    features: &[f32],
    ask: impl FnOnce(&TurnFacts<'_>) -> Result<T, Refusal>,
) -> Result<T, WireError> {
    let facts = TurnFacts {
        key: TurnKey { tenant: &peer.name, turn_id: &request.turn_id },
        model: request.model.as_deref(),
        image_count: request.images.len(),
        features,
        prompt_tokens: u32::try_from(request.text_bytes() / BYTES_PER_TOKEN).unwrap_or(u32::MAX),
    };
    Ok(ask(&facts)?)
}

/// Why one backend did not answer.
enum Stop {
    Cancelled,
    /// Another backend may answer.
    Backend(BackendError),
    /// No backend could.
    Turn(WireError),
}

impl From<Cancelled> for Stop {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<BackendError> for Stop {
    fn from(error: BackendError) -> Self {
        match error {
            // Another model may have a longer context.
            BackendError::Refused(error) if error.code != ErrorCode::ContextFull => Self::Turn(error),
            error => Self::Backend(error),
        }
    }
}

/// A turn whose images have arrived.
struct Turn<'a> {
    gateway: &'a Gateway,
    peer: &'a Peer,
    request: TurnRequest,
    images: Vec<Bytes>,
    /// Measured once, because measuring also remembers the frames.
    descriptions: Option<Vec<String>>,
}

impl Turn<'_> {
    async fn ask(&mut self, member: &Arc<Member>, reply: &mut Reply, report: &mut TurnReport) -> Result<(), Stop> {
        let entered = Instant::now();
        let place = member.gate.enter().map_err(|full| BackendError::Busy {
            message: "its queue is full".into(),
            retry_after_ms: Some(full.retry_after_ms),
        })?;
        let ask = self.prepare(member).await.map_err(Stop::Turn)?;
        let slot = place.wait().await;
        report.queued = entered.elapsed();
        reply.will_be(Accepted { model: member.settings.name.clone(), vision: member.settings.vision });
        self.stream(member, ask, slot, reply, report).await
    }

    /// What this backend gets: its limits applied, and images as it can take them.
    async fn prepare(&mut self, member: &Member) -> Result<Ask, WireError> {
        let measured = member.settings.vision == Vision::Measured && !self.request.images.is_empty();
        let mut request = match measured {
            true => {
                self.measure_once().await?;
                vision::with_descriptions(&self.request, self.descriptions.as_deref().unwrap_or_default())
            }
            false => self.request.clone(),
        };
        let settings = &member.settings;
        let asked = request.sampling.max_tokens.unwrap_or(settings.default_max_tokens);
        request.sampling.max_tokens = Some(asked.min(settings.max_tokens));
        let images = if measured { Vec::new() } else { self.images.clone() };
        let mut client = DefaultHasher::new();
        self.peer.name.hash(&mut client);
        Ok(Ask { request, images, client: client.finish() })
    }

    /// Passes the answer on, as it comes, until its end.
    async fn stream(
        &self,
        member: &Arc<Member>,
        ask: Ask,
        slot: Slot,
        reply: &mut Reply,
        report: &mut TurnReport,
    ) -> Result<(), Stop> {
        let settings = &member.settings;
        let started = Instant::now();
        let silent = |limit: Duration| BackendError::Failed(format!("it said nothing for {} ms", limit.as_millis()));
        let mut wait = settings.first_token_timeout;
        let first_due = tokio::time::Instant::from_std(started) + wait;
        let mut pieces = timeout_at(first_due, member.backend.answer(ask)).await.map_err(|_| silent(wait))??;
        let mut due = first_due;
        loop {
            let piece = timeout_at(due, pieces.next()).await.map_err(|_| silent(wait))?;
            let piece = piece.unwrap_or_else(|| Err(BackendError::Failed("it stopped in the middle".into())))?;
            match piece {
                Piece::Text(text) => reply.text(text).await?,
                Piece::End(answer) => {
                    member.gate.ran_for(started.elapsed());
                    // The next turn may run while this one's last event travels.
                    drop((pieces, slot));
                    report.usage = answer.usage;
                    report.cost_usd = settings.prices.cost_usd(answer.usage, self.images.len());
                    // Before the client knows of the end, so that its rating finds the turn.
                    let key = TurnKey { tenant: &self.peer.name, turn_id: &self.request.turn_id };
                    self.gateway.chooser.answered(&key, &settings.name, answer.usage, report.cost_usd).await;
                    let done = Done {
                        finish_reason: answer.finish_reason,
                        usage: answer.usage,
                        usage_estimated: answer.usage_estimated,
                        cost_usd: report.cost_usd,
                        dropped_messages: answer.dropped_messages,
                        queue_ms: report.queued.as_millis().try_into().unwrap_or(u32::MAX),
                    };
                    return Ok(reply.done(done).await?);
                }
            }
            wait = settings.token_timeout;
            due = tokio::time::Instant::now() + wait;
        }
    }

    async fn measure_once(&mut self) -> Result<(), WireError> {
        if self.descriptions.is_some() {
            return Ok(());
        }
        let mut descriptions = Vec::new();
        for (header, bytes) in self.request.images.iter().zip(&self.images) {
            let measured = self.measure(header, bytes).await?;
            descriptions.push(self.describe(header, &measured));
        }
        self.descriptions = Some(descriptions);
        Ok(())
    }

    /// Decodes on a thread for blocking work.
    async fn measure(&self, header: &ImageHeader, bytes: &Bytes) -> Result<Measurement, WireError> {
        let permit = self.gateway.decoders.acquire().await;
        let (bytes, format) = (bytes.clone(), header.format);
        let measured = tokio::task::spawn_blocking(move || vision::measure(&bytes, format)).await;
        drop(permit);
        let bad = |error: VisionError| bad_image(header, &error.to_string());
        measured.map_err(|_| bad_image(header, "decoding it failed"))?.map_err(bad)
    }

    fn describe(&self, header: &ImageHeader, measured: &Measurement) -> String {
        let key = FrameKey { client: self.peer.name.clone(), view: header.view.clone() };
        let mut frames = self.gateway.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let motion = frames.see(key, &measured.thumbnail, Instant::now());
        vision::describe(&header.view, measured, motion.as_ref())
    }
}

fn bad_image(header: &ImageHeader, problem: &str) -> WireError {
    let message = format!("the image of view {}: {problem}", header.view);
    WireError { code: ErrorCode::BadRequest, message, retry_after_ms: None }
}

/// The code as metrics and logs name it.
fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::UnknownModel => "unknown_model",
        ErrorCode::NoVision => "no_vision",
        ErrorCode::ContextFull => "context_full",
        ErrorCode::Overloaded => "overloaded",
        ErrorCode::DeadlineExceeded => "deadline_exceeded",
        ErrorCode::Draining => "draining",
        ErrorCode::BackendFailed => "backend_failed",
        ErrorCode::Internal => "internal",
    }
}
