//! Executing a decision, and falling back to the other side if it fails before the first token.

use super::dialogue::Dialogue;
use super::inputs::TurnViews;
use super::open::{CloudAsked, OpenTurn, turn_id};
use super::routing::Routing;
use super::{Answer, deadline_exceeded};
use crate::budget::Guard;
use crate::budget::guard::{GUARD_INTERVAL, insufficient};
use crate::cloud::Cloud;
use crate::config::{OnExhausted, SessionSettings};
use crate::daemon::{Daemon, Live};
use crate::dialogue::DialogueMessage;
use crate::execute::{
    CloudInputs, CloudRun, LocalModel, LocalPrompt, PictureForm, Running, Step, WrittenTurn, ZooChoice, api_error,
};
use crate::image_codec::EncodeOptions;
use crate::pace::upload_ms;
use crate::prompt;
use crate::question::Task;
use crate::store::Content;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_models::{ModelError, OnContextFull, Prepared};
use tether_policies::budget::{Amounts, Refused, Resource};
use tether_policies::upload::{Sizes, predicted};
use tether_policies::{Decision, Observation, Permitted};
use tether_protocol::api::{ApiError, ChatTurn, RouteChoice};
use tether_protocol::context::Battery;
use tether_protocol::record::Outcome;
use tether_protocol::wire::Sampling;
use tether_protocol::{Action, Route, TurnId, TurnRecord};

/// All that executing needs, whichever side is decided for.
pub(super) struct Plan {
    pub turn_id: TurnId,
    pub policy: String,
    pub task: Option<Task>,
    pub dialogue: Dialogue,
    pub views: TurnViews,
    /// Why nothing of this turn may leave the device, if it may not.
    pub local_only: Option<String>,
    pub sampling: Sampling,
    pub max_tokens: u32,
    pub cloud_model: Option<String>,
    pub deadline: Instant,
    pub session_limits: SessionSettings,
    /// Tokens of the whole prompt as the local model sees it, if there is one and it may be asked.
    pub prompt_tokens: Option<u32>,
    /// What a cloud turn would put on the network; `None`: there is no cloud.
    pub sizes: Option<Sizes>,
    prepared: Option<Result<Prepared, ModelError>>,
    /// The local model that would answer, and the zoo's choice if it chose.
    pub local_model: Option<Arc<LocalModel>>,
    choice: Option<ZooChoice>,
}

impl Plan {
    #[expect(clippy::too_many_arguments, reason = "it joins what the earlier stages found")]
    pub(super) async fn new(
        daemon: &Daemon,
        live: &Live,
        request: &ChatTurn,
        routing: &Routing,
        dialogue: Dialogue,
        views: TurnViews,
        local_only: Option<String>,
        deadline: Instant,
    ) -> Result<Self, ApiError> {
        let max_tokens = request.sampling.max_tokens.unwrap_or(live.settings.default_max_tokens);
        let sampling = Sampling { max_tokens: Some(max_tokens), ..request.sampling.clone() };
        let mut plan = Self {
            turn_id: turn_id(daemon.now_ms()),
            policy: live.policy.name().to_owned(),
            task: daemon.question().task(request.task.as_deref(), dialogue.newest_text()),
            dialogue,
            views,
            local_only,
            sampling,
            max_tokens,
            cloud_model: routing.cloud_model.clone(),
            deadline,
            session_limits: live.settings.sessions,
            prompt_tokens: None,
            sizes: None,
            prepared: None,
            local_model: None,
            choice: None,
        };
        plan.pick_local(daemon, routing);
        if routing.route != RouteChoice::Cloud
            && let Some(model) = plan.local_model.clone()
        {
            let prepared = model.prepare(plan.local_prompt(OnContextFull::Error)).await;
            plan.prompt_tokens = match &prepared {
                Ok(prepared) => u32::try_from(prepared.tokens.len()).ok(),
                Err(ModelError::ContextFull { prompt_tokens, .. }) => u32::try_from(*prompt_tokens).ok(),
                Err(_) => None,
            };
            plan.prepared = Some(prepared);
        }
        Ok(plan)
    }

    /// What is kept of the turn where the ledger keeps content; the answer comes later.
    pub(super) fn content(&self, observation: &Observation, action: Action) -> Content {
        let attached = |view: &usize| observation.context.views[*view].attached;
        let views = (0..observation.context.views.len()).filter(attached);
        let shown = views.fold(observation.space.sent(action), |set, view| set.with(view));
        let frames = self.views.chosen(shown).frames;
        Content {
            question: self.dialogue.newest_text().to_owned(),
            answer: String::new(),
            images: frames.into_iter().map(|frame| (frame.view.clone(), frame.bytes.clone())).collect(),
        }
    }

    /// The model that was named, else the zoo's choice, else the only one.
    fn pick_local(&mut self, daemon: &Daemon, routing: &Routing) {
        self.local_model = routing.local_model.clone();
        if self.local_model.is_none()
            && let Some(zoo) = daemon.zoo()
        {
            let bytes = self.dialogue.messages.iter().map(|message| message.text.len()).sum();
            self.choice = zoo.choose(&self.turn_id, self.dialogue.newest_text(), bytes, rand::random());
            self.local_model = self.choice.as_ref().map(|choice| choice.model.clone());
        }
        if self.local_model.is_none() {
            self.local_model = daemon.local().ok().cloned();
        }
    }

    fn local_prompt(&self, on_context_full: OnContextFull) -> LocalPrompt {
        let context_tokens = self.local_model.as_ref().map_or(0, |model| model.context_tokens());
        LocalPrompt {
            messages: prompt::local_messages(&self.dialogue.messages, &self.views.all()),
            // An answer cut short by a full context still says "length"; a quarter of the context is enough to ask for.
            reserve_tokens: self.max_tokens.min(context_tokens / 4) as usize,
            on_context_full,
        }
    }

    async fn local(
        &mut self,
        daemon: &Daemon,
        live: &Live,
        client: &str,
        record: &TurnRecord,
    ) -> Result<Running, ApiError> {
        let limit = live.settings.model.as_ref().and_then(|model| model.threads_on_battery);
        let most_threads = most_threads(limit, record.context.battery.value());
        let session = record.session.as_ref();
        let unavailable = || {
            let why = daemon.local().err().map_or("there is no local model", String::as_str);
            ApiError::server(503, "local_unavailable", why)
        };
        let model = self.local_model.clone().ok_or_else(unavailable)?;
        let on_context_full = live.settings.on_context_full();
        let prepared = match self.prepared.take() {
            Some(Err(ModelError::ContextFull { .. })) | None if on_context_full == OnContextFull::DropOldest => {
                model.prepare(self.local_prompt(on_context_full)).await
            }
            Some(prepared) => prepared,
            None => model.prepare(self.local_prompt(on_context_full)).await,
        };
        let prepared = prepared.map_err(|error| api_error(&error))?;
        if let (Some(zoo), Some(choice)) = (daemon.zoo(), &self.choice) {
            zoo.begin(&self.turn_id, choice);
        }
        let begun = model.begin(prepared, &self.sampling, self.max_tokens, client, session, most_threads).await;
        begun.map(Running::Local)
    }

    async fn cloud(
        &self,
        turn: &mut OpenTurn,
        live: &Live,
        observation: &Observation,
        action: Action,
        other_waits: bool,
    ) -> Result<Running, ApiError> {
        let cloud = live.cloud().map_err(|why| ApiError::server(503, "cloud_unavailable", why))?;
        let travelling = |message: &&DialogueMessage| !message.local_only;
        let (sent, link) = (observation.space.sent(action), observation.context.link.value());
        let form = self.sizes.as_ref().map(|sizes| (sizes, sizes.form(sent, link)));
        let ladder = live.settings.images.ladder();
        let rung = form.map_or(0, |(_, form)| form.rung.min(ladder.len() - 1));
        let picture_form = |(rung, encode): (usize, &EncodeOptions)| PictureForm {
            encode: *encode,
            estimated_bytes: form.map_or_else(Vec::new, |(sizes, _)| self.views.estimated_bytes(sent, sizes, rung)),
        };
        let inputs = CloudInputs {
            turn_id: self.turn_id.clone(),
            model: self.cloud_model.clone(),
            sampling: self.sampling.clone(),
            dialogue: self.dialogue.messages.iter().filter(travelling).cloned().collect(),
            inputs: self.views.chosen(sent),
            forms: ladder.iter().enumerate().skip(rung).map(picture_form).collect(),
            upload: form.map(|(_, form)| predicted(link, form.uplink_bytes)).unwrap_or_default(),
            deadline: self.deadline,
        };
        let mut written = self.fitted(turn, live, cloud, Arc::new(inputs), other_waits).await?;
        written.turn.most_up_bytes = turn.held.guard.uplink_bytes();
        CloudRun::begin(cloud, written).await.map(Running::Cloud)
    }

    /// The turn in the form that was predicted, or in the first smaller one that the budgets allow, now that its bytes are
    /// known: a picture may have many times what the ones before it had.
    async fn fitted(
        &self,
        turn: &mut OpenTurn,
        live: &Live,
        cloud: &Cloud,
        inputs: Arc<CloudInputs>,
        other_waits: bool,
    ) -> Result<WrittenTurn, ApiError> {
        // Without pictures all forms are the same.
        let last = if inputs.inputs.frames.is_empty() { 0 } else { inputs.forms.len() - 1 };
        let mut form = 0;
        loop {
            let written = inputs.write(form).await?;
            let predicted = cloud.uplink_bytes(&written.turn);
            let missing = turn.held.missing(&turn.daemon, predicted, self.max_tokens);
            if missing == Amounts::ZERO {
                return Ok(written);
            }
            // The headroom is for a picture that is a little larger than estimated: it keeps its form, and the headroom is
            // made up for. One that is much larger is not what was decided for.
            let near = predicted <= turn.held.reserved()[Resource::UplinkBytes];
            if near || form == last {
                let anyway =
                    !other_waits && form == last && live.settings.budgets.on_exhausted == OnExhausted::Cheapest;
                match turn.reserve_more(missing, anyway).await {
                    Ok(()) => return Ok(written),
                    Err(refused) if form == last => return Err(too_large(&refused)),
                    Err(_) => {}
                }
            }
            form += 1;
        }
    }
}

/// Runs the decision; if that side fails before its first token and the other one is permitted, the other answers
/// within the same deadline.
///
/// # Errors
/// The chosen side's error, with the other side's in its message if that one was tried too.
pub(super) async fn execute(
    mut plan: Plan,
    mut turn: OpenTurn,
    live: &Live,
    decision: &Decision,
    observation: &Observation,
    permitted: &Permitted,
) -> Result<Answer, ApiError> {
    turn.hold(plan.dialogue.turn_of_session.take());
    let other = other_side(live, decision, observation, permitted);
    let first = attempt(&mut plan, &mut turn, live, observation, decision.action, other.is_some()).await;
    let error = match (first, other) {
        (Ok((running, step)), _) => return Ok(Answer::new(turn, running, step)),
        (Err(error), None) => error,
        (Err(error), Some(action)) => {
            if let Err(refused) = turn.reserve_other(action).await {
                let error = beyond_budget(error, &refused);
                turn.settle(Outcome::Failed { error: error.to_string() }).await;
                return Err(error);
            }
            turn.record.fallback = Some(error.object.message.clone());
            turn.daemon.metrics().fell_back(decision.action.route(), error.code());
            match attempt(&mut plan, &mut turn, live, observation, action, false).await {
                Ok((running, step)) => return Ok(Answer::new(turn, running, step)),
                Err(second) => both_failed(decision.action.route(), error, &second),
            }
        }
    };
    turn.settle(Outcome::Failed { error: error.to_string() }).await;
    Err(error)
}

/// What the other route would do: local is one action; for the cloud the policy chooses again.
fn other_side(live: &Live, decision: &Decision, observation: &Observation, permitted: &Permitted) -> Option<Action> {
    let chosen = decision.action.route();
    let others = permitted.candidates().iter().filter(|candidate| candidate.action.route() != chosen);
    let others = Permitted::new(others.copied().collect()).ok()?;
    Some(live.policy.decide(observation, &others, rand::random()).action)
}

/// As far as the first token (or the end, or a failure).
async fn attempt(
    plan: &mut Plan,
    turn: &mut OpenTurn,
    live: &Live,
    observation: &Observation,
    action: Action,
    other_waits: bool,
) -> Result<(Running, Step), ApiError> {
    let route = action.route();
    turn.record.route = route;
    turn.held.attempt(&turn.daemon, route);
    let daemon = turn.daemon.clone();
    let until = patience(plan, live, route, other_waits);
    let begun = match route {
        Route::Local => {
            turn.private |= plan.views.any_private() || plan.dialogue.any_private();
            plan.local(&daemon, live, &turn.client, &turn.record).await
        }
        Route::Cloud => {
            let before = (turn.sent, turn.record.views.clone());
            // Whoever goes away now may have sent something; what is not known is told as sent.
            turn.note_travelled(observation, action, None);
            turn.cloud_asked = Some(CloudAsked {
                at: Instant::now(),
                images: observation.images(action),
                estimated_tokens: observation.prompt_tokens,
            });
            let guard = turn.held.guard;
            let until = until.into_iter().chain(guard.until()).min();
            let begun = within(until, plan.cloud(turn, live, observation, action, other_waits)).await;
            if let Some(Err(_)) = begun {
                (turn.sent, turn.record.views) = before;
            }
            begun.unwrap_or_else(|| guard.check(Instant::now(), (0, 0)).and(Err(slow())))
        }
    };
    let mut running = match begun {
        Ok(running) => running,
        Err(error) => {
            turn.note_slow(&error);
            turn.held.failed(error.code(), turn.sent);
            return Err(error);
        }
    };
    turn.note_usage(&running);
    turn.record.upload = running.upload();
    let guard = turn.held.guard;
    let first = within(until, guarded(&mut running, &guard)).await.unwrap_or_else(|| Step::Failed(slow()));
    if route == Route::Cloud {
        turn.note_travelled(observation, action, Some(running.bytes()));
    }
    match first {
        Step::Failed(error) => {
            turn.note_slow(&error);
            turn.held.failed(error.code(), Some(running.bytes()));
            Err(error)
        }
        step => Ok((running, step)),
    }
}

/// The next step, unless the turn has used up what was reserved for it.
pub(super) async fn guarded(running: &mut Running, guard: &Guard) -> Step {
    if !guard.is_needed() {
        return running.next().await;
    }
    loop {
        let step = tokio::time::timeout(GUARD_INTERVAL, running.next()).await;
        // An end that has come is told, whatever it cost.
        if let Ok(step @ (Step::Done(_) | Step::Failed(_))) = step {
            return step;
        }
        if let Err(error) = guard.check(Instant::now(), running.bytes()) {
            return Step::Failed(error);
        }
        if let Ok(step) = step {
            return step;
        }
    }
}

/// Threads of the local model now: fewer where that is set and a battery is known to be in use.
fn most_threads(on_battery: Option<usize>, battery: Option<&Battery>) -> usize {
    on_battery.filter(|_| battery.is_some_and(|battery| !battery.on_ac)).unwrap_or(usize::MAX)
}

async fn within<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        None => Some(future.await),
        Some(until) => tokio::time::timeout_at(until.into(), future).await.ok(),
    }
}

const SLOW: &str = "cloud_slow";

fn slow() -> ApiError {
    ApiError::server(504, SLOW, "the cloud brought no first token in time")
}

/// How long the cloud may take to its first token while the local model could still answer: half of what is left of
/// the deadline, and not more than configured.
fn patience(plan: &Plan, live: &Live, route: Route, other_waits: bool) -> Option<Instant> {
    if route == Route::Local || !other_waits {
        return None;
    }
    let now = Instant::now();
    let left = plan.deadline.saturating_duration_since(now);
    Some(now + (left / 2).min(Duration::from_millis(live.settings.cloud_patience_ms)))
}

fn both_failed(chosen: Route, first: ApiError, second: &ApiError) -> ApiError {
    let mut error = first;
    let other = if chosen == Route::Local { Route::Cloud } else { Route::Local };
    error.object.message = format!("{chosen}: {}; then {other}: {}", error.object.message, second.object.message);
    error
}

fn too_large(refused: &Refused) -> ApiError {
    let message = format!("the turn, in its smallest form, is larger than was reserved for it; {refused}");
    insufficient(message, None)
}

fn beyond_budget(first: ApiError, refused: &Refused) -> ApiError {
    let mut error = first;
    error.object.message = format!("{}; the other side is beyond the budgets: {refused}", error.object.message);
    error
}

impl OpenTurn {
    async fn reserve_other(&mut self, action: Action) -> Result<(), Refused> {
        let Self { daemon, held, record, .. } = self;
        held.reserve_other(daemon, record, action).await
    }

    async fn reserve_more(&mut self, missing: Amounts, anyway: bool) -> Result<(), Refused> {
        let Self { daemon, held, record, .. } = self;
        held.reserve_more(daemon, record, missing, anyway).await
    }

    /// What an attempt sent has left the device, even if the attempt fails then; `None`: how much is not known.
    fn note_travelled(&mut self, observation: &Observation, action: Action, bytes: Option<(u64, u64)>) {
        self.sent = bytes;
        if bytes != Some((0, 0)) {
            self.record.views = observation.space.names(observation.space.sent(action));
        }
    }

    /// That nobody waited any longer says how long the cloud takes at least, beside what the link is predicted to take.
    fn note_slow(&self, error: &ApiError) {
        if let Some(asked) = self.cloud_asked.filter(|_| error.code() == SLOW) {
            let (link, predicted) = (self.record.context.link.value(), self.record.predicted.uplink_bytes);
            let waited_ms = asked.at.elapsed().as_secs_f64() * 1e3 - upload_ms(link, predicted.unwrap_or(0));
            self.daemon.pace().cloud_kept_waiting(waited_ms, asked.images, Instant::now());
        }
    }

    /// An answer that comes to its end tells its usage itself; of another one this is what is known.
    pub(super) fn note_usage(&mut self, running: &Running) {
        (self.record.usage, self.record.usage_estimated) = running.usage();
    }

    /// The error of a turn whose time is over.
    pub(super) fn late(&self) -> ApiError {
        deadline_exceeded(self.deadline.saturating_duration_since(self.arrived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_battery_that_is_known_to_be_in_use_limits_the_threads() {
        let battery = |on_ac| Battery { percent: 50.0, on_ac, power_w: None, energy_j: None };
        assert_eq!(most_threads(Some(1), Some(&battery(false))), 1);
        assert_eq!(most_threads(Some(1), Some(&battery(true))), usize::MAX);
        assert_eq!(most_threads(Some(1), None), usize::MAX);
        assert_eq!(most_threads(None, Some(&battery(false))), usize::MAX);
    }
}
