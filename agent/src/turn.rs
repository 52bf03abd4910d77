//! One dialogue turn, from a legal request to an answer under way:
//!
//! request -> dialogue -> context -> features -> decide -> execute -> ledger
//!
//! The stages do not call one another; [`answer`] calls them in this order. The answer that it returns has its first
//! token (or its end) already, so that what its head says about route and views is the truth, a fallback included.

mod afford;
mod answer;
mod attempt;
mod dialogue;
mod held;
mod inputs;
mod open;
mod refused;
mod routing;
mod sizes;

pub use answer::{Answer, End, Piece};

use crate::cloud::CloudError;
use crate::daemon::{Daemon, Live};
use crate::features::{Known, candidates, observe, past_turn};
use crate::permit::{Asked, Means, permitted};
use afford::Afforded;
use attempt::Plan;
use dialogue::Dialogue;
use inputs::TurnViews;
use open::OpenTurn;
use refused::Refused;
use routing::Routing;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_policies::{Decision, Observation, PastTurn, Permitted};
use tether_protocol::api::{ApiError, ChatTurn, RouteChoice};
use tether_protocol::context::LinkState;
use tether_protocol::limits::MAX_DEADLINE_MS;
use tether_protocol::wire::ErrorCode;
use tether_protocol::{Action, Context, Reading, Reason};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

/// Who asks, and since when.
#[derive(Debug)]
pub struct Caller {
    /// The peer credentials of the socket: `uid=1000 pid=4711`.
    pub name: String,
    pub arrived: Instant,
    /// One of the daemon's places for turns; free again when the answer is dropped.
    pub place: OwnedSemaphorePermit,
}

/// Takes a turn as far as its first token. Dropping the future, or the answer, stops whoever is answering.
///
/// # Errors
/// An [`ApiError`] that says what is wrong with the request, or why nobody could answer it.
pub async fn answer(daemon: &Arc<Daemon>, caller: Caller, request: ChatTurn) -> Result<Answer, ApiError> {
    let live = daemon.live();
    let deadline_ms = request.deadline_ms.or(live.settings.default_deadline_ms);
    let limit = Duration::from_millis(deadline_ms.unwrap_or(MAX_DEADLINE_MS));
    let deadline = caller.arrived + limit;
    let span = tracing::info_span!("turn", turn_id = tracing::field::Empty, client = %caller.name);
    let staged = stages(daemon, live, caller, request, deadline_ms, deadline).instrument(span);
    match tokio::time::timeout_at(deadline.into(), staged).await {
        Ok(result) => result,
        Err(_) => Err(deadline_exceeded(limit)),
    }
}

pub(crate) fn deadline_exceeded(limit: Duration) -> ApiError {
    ApiError::server(504, "deadline_exceeded", format!("no complete answer within {} ms", limit.as_millis()))
}

async fn stages(
    daemon: &Arc<Daemon>,
    live: Arc<Live>,
    caller: Caller,
    request: ChatTurn,
    deadline_ms: Option<u64>,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    let routing = Routing::of(&request, daemon, &live)?;
    if routing.route != RouteChoice::Cloud {
        daemon.local().into_iter().for_each(|model| model.warm_up());
    }
    let mut dialogue = Dialogue::recall(daemon, &live, &request).await?;
    let mut views = TurnViews::gather(daemon, &live, &mut dialogue, &request.sensors).await?;
    daemon.question().associate(dialogue.newest_text(), &mut views.context);
    if let Some(sight) = daemon.sight() {
        let (text, config) = (dialogue.newest_text(), &live.settings.views.0);
        sight.associate(text, config, &mut views.context, Instant::now()).await;
    }
    let local_only = stays_here(&request, &live, &dialogue, &views);
    let mut plan = Plan::new(daemon, &live, &request, &routing, dialogue, views, local_only, deadline).await?;
    tracing::Span::current().record("turn_id", plan.turn_id.as_str());

    let deciding = Instant::now();
    if let Ok(cloud) = live.cloud()
        && routing.route != RouteChoice::Local
        && plan.local_only.is_none()
    {
        plan.sizes = Some(sizes::sizes(daemon, &live, cloud, &plan, deadline_ms));
    }
    let (mut observation, permitted) = features(daemon, &live, &request, &routing, &plan, deadline_ms);
    let considered = permitted.as_ref().map_or_else(|_| Vec::new(), |permitted| permitted.candidates().to_vec());
    let afforded = permitted
        .and_then(|permitted| afford::decide_within(daemon, &live, &request, &plan, &mut observation, permitted));
    let decision_us = u64::try_from(deciding.elapsed().as_micros()).unwrap_or(u64::MAX);
    let afforded = match afforded {
        Ok(afforded) => afforded,
        Err(error) => {
            let refused = Refused { considered, error: &error, decision_us };
            refused.keep(daemon, &live, &caller, &request, &plan, &observation).await;
            return Err(error);
        }
    };

    let Afforded { decision, permitted, .. } = &afforded;
    let (decision, permitted) = (decision.clone(), permitted.clone());
    let turn = OpenTurn::begin(daemon, &live, caller, &request, &plan, afforded, &observation, decision_us);
    let turn = turn.await;
    attempt::execute(plan, turn, &live, &decision, &observation, &permitted).await
}

/// Why nothing of this turn may leave the device, if it may not.
fn stays_here(request: &ChatTurn, live: &Live, dialogue: &Dialogue, views: &TurnViews) -> Option<String> {
    if live.settings.local_only {
        Some("the daemon is local_only".into())
    } else if request.local_only {
        Some("the request asked for it".into())
    } else if views.attached_private {
        Some("what came with the request stands for a view that is local_only".into())
    } else {
        dialogue.private_images.clone()
    }
}

/// What is known, and the actions that are permitted.
fn features(
    daemon: &Daemon,
    live: &Live,
    request: &ChatTurn,
    routing: &Routing,
    plan: &Plan,
    deadline_ms: Option<u64>,
) -> (Observation, Result<Permitted, ApiError>) {
    let context = context(daemon, live, plan);
    let asked = Asked { route: routing.route, views: request.views.as_deref(), local_only: plan.local_only.as_deref() };
    let link = context.link.value().map(|link| link.state);
    let means = Means {
        local: daemon.local().map(drop).map_err(String::as_str),
        cloud: live.cloud().map(drop),
        link_down: link == Some(LinkState::Down),
        pictures: pictures_may_travel(daemon, live),
    };
    let actions = permitted(&live.settings.space, &context.views, asked, means);
    let space = &live.settings.space;
    let past: Vec<PastTurn> = plan.dialogue.past.iter().map(|turn| past_turn(turn, space)).collect();
    let known = Known {
        space,
        context,
        past: &past,
        task: plan.task.as_ref().map(|task| task.name.clone()),
        text: plan.dialogue.newest_text(),
        prompt_tokens: plan.prompt_tokens,
        travelling_text_bytes: plan.dialogue.travelling_bytes(),
        local_context_tokens: plan.local_model.as_ref().map(|model| model.context_tokens()),
        max_tokens: plan.max_tokens,
        deadline_ms,
        prices: live.settings.budgets.prices,
        image_tokens: live.settings.budgets.image_tokens,
        pace: *daemon.pace(),
        ratings: daemon.ratings(live),
        sizes: plan.sizes.as_ref(),
        power_w: live.power_w(),
    };
    let observation = observe(&known);
    let permitted = actions.map(|actions| {
        let candidates = candidates(&known, &observation, &actions);
        Permitted::new(candidates).expect("`permitted` returns at least one action")
    });
    (observation, permitted)
}

/// Whether they may, by the settings, over the link that there is.
fn pictures_may_travel(daemon: &Daemon, live: &Live) -> Result<(), &'static str> {
    match daemon.metered(live).value() {
        Some(true) if !live.settings.link.metered_views => {
            Err("the link is metered, and pictures do not travel then (link.metered_views = false)")
        }
        _ => Ok(()),
    }
}

/// What the device knows now. Nothing here waits.
fn context(daemon: &Daemon, live: &Live, plan: &Plan) -> Context {
    Context {
        battery: daemon.sampler().battery(),
        power: daemon.sampler().power(),
        machine: daemon.sampler().machine(),
        link: daemon.link(live),
        load: match plan.local_model.as_ref().ok_or_else(|| daemon.local().err().cloned().unwrap_or_default()) {
            Ok(model) => Reading::known(model.load_now(), 0, "worker"),
            Err(why) => Reading::unknown(why.as_str()),
        },
        views: plan.views.context.clone(),
    }
}

fn decide(
    live: &Live,
    request: &ChatTurn,
    observation: &Observation,
    permitted: &Permitted,
    local_only: Option<&str>,
) -> Decision {
    let mut decision = live.policy.decide(observation, permitted, rand::random());
    // A policy sees what is permitted, not why; the answer says why.
    let link_down = observation.context.link.value().is_some_and(|link| link.state == LinkState::Down);
    if let Some(why) = local_only {
        decision.reason = Reason::new("local_only", format!("nothing of this turn may leave the device: {why}"));
    } else if request.route != RouteChoice::Auto {
        decision.reason = Reason::new("asked", format!("the request asked for the route {}", decision.action.route()));
    } else if link_down && decision.action == Action::LOCAL {
        decision.reason = unreached(live);
    }
    decision
}

/// Why the device answers although there is a cloud: silence, or a verdict that waiting does not change.
fn unreached(live: &Live) -> Reason {
    let problem = live.cloud().ok().and_then(|cloud| cloud.problem());
    let code = match &problem {
        Some(CloudError::Untrusted { .. }) => "cloud_untrusted",
        Some(CloudError::Refused(error)) if error.code == ErrorCode::Unauthorized => "cloud_unauthorized",
        _ => "link_down",
    };
    let because = problem.map_or_else(String::new, |problem| format!(": {problem}; {}", problem.fix()));
    Reason::new(code, format!("the cloud cannot be reached now, so the device answers{because}"))
}

/// Whether the route is not the policy's choice.
fn hard_reason(request: &ChatTurn, local_only: Option<&str>) -> bool {
    local_only.is_some() || request.route != RouteChoice::Auto
}
