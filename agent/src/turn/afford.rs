//! Deciding within the budgets: what does not fit is not permitted, what is chosen is reserved.

use super::attempt::Plan;
use super::{decide, hard_reason};
use crate::budget::guard::insufficient;
use crate::budget::{Asked, Keeper, Priced};
use crate::config::OnExhausted;
use crate::daemon::{Daemon, Live};
use std::collections::BTreeMap;
use std::time::Instant;
use tether_policies::budget::{Amounts, Offer, Reservation, cost};
use tether_policies::{Candidate, Decision, Observation, Permitted};
use tether_protocol::api::{ApiError, ChatTurn, RouteChoice};
use tether_protocol::context::Battery;
use tether_protocol::{Action, Cost, Route};

/// Others may take what fitted a moment ago; each round fewer actions fit.
const ROUNDS: usize = 8;

/// A decision, and what holds its cost.
pub(super) struct Afforded {
    pub decision: Decision,
    /// Where the other side may be fallen back to.
    pub permitted: Permitted,
    /// `None`: no budgets.
    pub reservation: Option<Reservation>,
    /// Of each permitted action; empty without budgets.
    pub amounts: BTreeMap<Action, Amounts>,
    pub remaining: BTreeMap<String, f64>,
    pub battery_percent: Option<f64>,
}

/// # Errors
/// 429 `insufficient_quota` if no action fits and the settings refuse then.
pub(super) fn decide_within(
    daemon: &Daemon,
    live: &Live,
    request: &ChatTurn,
    plan: &Plan,
    observation: &mut Observation,
    permitted: Permitted,
) -> Result<Afforded, ApiError> {
    let (pace, now) = (*daemon.pace(), Instant::now());
    let permitted = quick_enough(live, permitted, |action| pace.is_fresh(observation.images(action), now))?;
    let keeper = daemon.budgets();
    if keeper.is_empty() {
        let decision = decide(live, request, observation, &permitted, plan.local_only.as_deref());
        return Ok(Afforded {
            decision,
            permitted,
            reservation: None,
            amounts: BTreeMap::new(),
            remaining: BTreeMap::new(),
            battery_percent: None,
        });
    }
    let battery = observation.context.battery.value();
    let battery_percent = battery.and_then(Battery::draining_percent);
    observation.considered = permitted.candidates().to_vec();
    let asked = Asked {
        settings: &live.settings.budgets,
        load: observation.context.load.value(),
        prompt_tokens: observation.prompt_tokens,
        max_tokens: observation.max_tokens,
        text_bytes: plan.dialogue.travelling_bytes(),
        messages: plan.dialogue.messages.len() as u64,
    };
    let priced = keeper.with_accounts(|accounts| Priced::new(&asked, accounts, observation, permitted));
    // Who asks for a route does not wait for the line to come up; the last tenth is theirs.
    let paced = request.route == RouteChoice::Auto;
    for _ in 0..ROUNDS {
        let offer = keeper.offer(priced.most(), battery_percent);
        observation.prices = offer.prices.clone();
        let latency_ms = live.settings.budgets.latency_ms.map(|limit_ms| limit_ms as f64);
        // The least over a resource's windows.
        observation.remaining = Cost { latency_ms, ..cost(&offer.left) };
        let Some(choice) = priced.choice(&offer, paced) else {
            return exhausted(live, keeper, &priced, offer, battery_percent);
        };
        let mut decision = decide(live, request, observation, &choice, plan.local_only.as_deref());
        if let Ok(reservation) = keeper.reserve(priced.most_of(decision.action), battery_percent) {
            priced.explain(&offer, &choice, hard_reason(request, plan.local_only.as_deref()), &mut decision);
            return Ok(Afforded {
                decision,
                amounts: priced.amounts(&choice),
                permitted: choice,
                reservation: Some(reservation),
                remaining: offer.remaining,
                battery_percent,
            });
        }
    }
    let offer = keeper.offer(priced.most(), battery_percent);
    exhausted(live, keeper, &priced, offer, battery_percent)
}

/// Actions that are predicted to take longer than `budgets.latency_ms` are not permitted. One whose time is unknown is,
/// and so is the cloud where its time was not measured lately: a slow hour must not bar it for ever.
fn quick_enough(
    live: &Live,
    permitted: Permitted,
    cloud_is_fresh: impl Fn(Action) -> bool,
) -> Result<Permitted, ApiError> {
    let Some(limit_ms) = live.settings.budgets.latency_ms.map(|limit_ms| limit_ms as f64) else {
        return Ok(permitted);
    };
    let unknown = |candidate: &Candidate| candidate.action.route() == Route::Cloud && !cloud_is_fresh(candidate.action);
    let quick = |candidate: &&Candidate| {
        unknown(candidate) || candidate.predicted.latency_ms.is_none_or(|latency_ms| latency_ms <= limit_ms)
    };
    let quick: Vec<Candidate> = permitted.candidates().iter().filter(quick).copied().collect();
    if let Ok(quick) = Permitted::new(quick) {
        return Ok(quick);
    }
    let time = |candidate: &Candidate| candidate.predicted.latency_ms.unwrap_or(f64::INFINITY);
    let quickest = permitted.candidates().iter().min_by(|a, b| time(a).total_cmp(&time(b))).copied();
    match (live.settings.budgets.on_exhausted, quickest) {
        (OnExhausted::Cheapest, Some(quickest)) => Ok(Permitted::new(vec![quickest]).unwrap_or(permitted)),
        (_, quickest) => {
            let predicted = quickest.map_or(f64::NAN, |quickest| time(&quickest));
            let message = format!(
                "no action is predicted to end within budgets.latency_ms = {limit_ms:.0}; the quickest takes {predicted:.0} ms"
            );
            Err(insufficient(message, Some(1)))
        }
    }
}

/// Nothing fits: the configured answer.
fn exhausted(
    live: &Live,
    keeper: &Keeper,
    priced: &Priced,
    offer: Offer,
    battery_percent: Option<f64>,
) -> Result<Afforded, ApiError> {
    let places = || 0..priced.most().len();
    let excess = |at: usize| priced.most()[at].map_or(f64::INFINITY, |most| keeper.excess(&most));
    let cheapest = places().min_by(|a, b| excess(*a).total_cmp(&excess(*b)));
    let why = cheapest.and_then(|at| priced.why(&offer, at)).unwrap_or_else(|| "nothing fits".into());
    if live.settings.budgets.on_exhausted == OnExhausted::Cheapest
        && let Some(at) = cheapest
    {
        let candidate = priced.permitted().candidates()[at];
        let amounts = priced.most_of(candidate.action);
        let decision =
            Decision::certain(candidate.action, "budget_exhausted", format!("the cheapest action, although {why}"));
        return Ok(Afforded {
            decision,
            permitted: Permitted::new(vec![candidate]).unwrap_or_else(|_| priced.permitted().clone()),
            reservation: Some(keeper.reserve_anyway(amounts)),
            amounts: BTreeMap::from([(candidate.action, amounts)]),
            remaining: offer.remaining,
            battery_percent,
        });
    }
    // The first moment at which any of the actions may fit.
    let possible = places().filter_map(|at| offer.refused[at].as_ref()?.possible_ms).min();
    let retry_s = possible.map(|at_ms| u64::try_from(at_ms - offer.now_ms).unwrap_or(0).max(1_000).div_ceil(1_000));
    let when = match retry_s {
        Some(seconds) => format!("possible in {seconds} s, when the window ends"),
        None => "waiting alone does not help: tether budget show, set, reset".to_owned(),
    };
    let retry_s = retry_s.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    Err(insufficient(format!("no action fits the budgets ({why}); {when}"), retry_s))
}
