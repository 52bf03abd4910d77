//! Deciding within the budgets: what does not fit is not permitted, what is chosen is reserved.

use super::attempt::Plan;
use super::{decide, hard_reason};
use crate::budget::guard::insufficient;
use crate::budget::{Asked, Keeper, Offer, most};
use crate::config::OnExhausted;
use crate::daemon::{Daemon, Live};
use std::collections::BTreeMap;
use std::time::Instant;
use tether_policies::budget::{Amounts, Refused, Reservation, Resource};
use tether_policies::{Candidate, Decision, Observation, Permitted};
use tether_protocol::api::{ApiError, ChatTurn, RouteChoice};
use tether_protocol::context::Battery;
use tether_protocol::{Action, Cost, Reason, Route};

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
    let permitted = quick_enough(live, permitted, daemon.pace().is_fresh(Instant::now()))?;
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
    let costs = Costs::of(live, keeper, plan, observation, &permitted);
    observation.considered = permitted.candidates().to_vec();
    for _ in 0..ROUNDS {
        let offer = keeper.offer(&costs.amounts, battery_percent);
        observation.prices = offer.prices.clone();
        observation.remaining = remaining_cost(&offer, live);
        let Some(fitting) = costs.fitting(&permitted, &offer) else {
            return costs.exhausted(live, keeper, &permitted, offer, battery_percent);
        };
        // Who asks for a route does not wait for the line to come up; the last tenth is theirs.
        let paced = costs.paced(&permitted, &fitting, &offer).filter(|_| request.route == RouteChoice::Auto);
        let choice = paced.as_ref().unwrap_or(&fitting);
        let mut decision = decide(live, request, observation, choice, plan.local_only.as_deref());
        let amounts = costs.of_action(&permitted, decision.action);
        if let Ok(reservation) = keeper.reserve(amounts, battery_percent) {
            costs.explain(&permitted, &offer, choice, hard_reason(request, plan.local_only.as_deref()), &mut decision);
            let amounts = choice.candidates().iter().map(|c| (c.action, costs.of_action(&permitted, c.action)));
            return Ok(Afforded {
                decision,
                amounts: amounts.collect(),
                permitted: choice.clone(),
                reservation: Some(reservation),
                remaining: offer.remaining,
                battery_percent,
            });
        }
    }
    let offer = keeper.offer(&costs.amounts, battery_percent);
    costs.exhausted(live, keeper, &permitted, offer, battery_percent)
}

/// Actions that are predicted to take longer than `budgets.latency_ms` are not permitted. One whose time is unknown is,
/// and so is the cloud where its time was not measured lately: a slow hour must not bar it for ever.
fn quick_enough(live: &Live, permitted: Permitted, cloud_is_fresh: bool) -> Result<Permitted, ApiError> {
    let Some(limit_ms) = live.settings.budgets.latency_ms.map(|limit_ms| limit_ms as f64) else {
        return Ok(permitted);
    };
    let unknown = |candidate: &Candidate| candidate.action.route() == Route::Cloud && !cloud_is_fresh;
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

/// The most that each permitted action may cost, in their order.
struct Costs {
    amounts: Vec<Option<Amounts>>,
    /// The resource that has a budget and whose most is not known.
    untold: Vec<Option<Resource>>,
}

impl Costs {
    fn of(live: &Live, keeper: &Keeper, plan: &Plan, observation: &Observation, permitted: &Permitted) -> Self {
        let asked = Asked {
            settings: &live.settings.budgets,
            load: observation.context.load.value(),
            prompt_tokens: observation.prompt_tokens,
            max_tokens: observation.max_tokens,
            text_bytes: plan.dialogue.travelling_bytes(),
            messages: plan.dialogue.messages.len() as u64,
        };
        let (mut amounts, mut untold) = (Vec::new(), Vec::new());
        keeper.with_accounts(|accounts| {
            for candidate in permitted.candidates() {
                let sent = observation.space.sent(candidate.action);
                let views = sent.iter().filter_map(|view| observation.context.views.get(view));
                let (texts, images): (Vec<_>, Vec<_>) = views.partition(|view| view.is_text);
                let sensor_bytes = texts.iter().filter_map(|view| view.encoded_bytes.value()).sum();
                let most = most(&asked, accounts, candidate, images.len() as u64, sensor_bytes);
                amounts.push(most.ok());
                untold.push(most.err());
            }
        });
        Self { amounts, untold }
    }

    fn of_action(&self, permitted: &Permitted, action: Action) -> Amounts {
        let at = permitted.candidates().iter().position(|candidate| candidate.action == action);
        at.and_then(|at| self.amounts[at]).unwrap_or_default()
    }

    fn fitting(&self, permitted: &Permitted, offer: &Offer) -> Option<Permitted> {
        let fits = |at: usize| self.amounts[at].is_some() && offer.refused[at].is_none();
        let candidates = permitted.candidates().iter().enumerate().filter(|(at, _)| fits(*at));
        Permitted::new(candidates.map(|(_, candidate)| *candidate).collect()).ok()
    }

    /// Those of `fitting` that keep to the pace, if there are any and not all do.
    fn paced(&self, permitted: &Permitted, fitting: &Permitted, offer: &Offer) -> Option<Permitted> {
        let on_pace =
            |(at, candidate): &(usize, &Candidate)| fitting.contains(candidate.action) && offer.ahead[*at].is_none();
        let candidates = permitted.candidates().iter().enumerate().filter(on_pace);
        Permitted::new(candidates.map(|(_, candidate)| *candidate).collect()).ok()
    }

    /// Says in the reason what budgets took away, and names them as the reason if they took the whole cloud.
    fn explain(
        &self,
        permitted: &Permitted,
        offer: &Offer,
        choice: &Permitted,
        hard_reason: bool,
        decision: &mut Decision,
    ) {
        let taken: Vec<usize> = (0..permitted.candidates().len())
            .filter(|at| !choice.contains(permitted.candidates()[*at].action))
            .collect();
        let Some(why) = taken.iter().find_map(|at| self.why(offer, *at)) else { return };
        let has_cloud = |permitted: &Permitted| permitted.candidates().iter().any(|c| c.action.route() == Route::Cloud);
        let only_paced = taken.iter().all(|at| offer.refused[*at].is_none() && self.untold[*at].is_none());
        if decision.action.route() == Route::Local && has_cloud(permitted) && !has_cloud(choice) && !hard_reason {
            let code = if only_paced { "over_pace" } else { "over_budget" };
            decision.reason = Reason::new(code, format!("no cloud action is within the budgets: {why}"));
        } else {
            decision.reason.detail.push_str(&format!("; budgets left out {} actions: {why}", taken.len()));
        }
    }

    fn why(&self, offer: &Offer, at: usize) -> Option<String> {
        if let Some(resource) = self.untold[at] {
            return Some(format!("its most in {} cannot be told before", resource.name()));
        }
        offer.refused[at].as_ref().or(offer.ahead[at].as_ref()).map(Refused::to_string)
    }

    /// Nothing fits: the configured answer.
    fn exhausted(
        &self,
        live: &Live,
        keeper: &Keeper,
        permitted: &Permitted,
        offer: Offer,
        battery_percent: Option<f64>,
    ) -> Result<Afforded, ApiError> {
        let cheapest = (0..self.amounts.len()).min_by(|a, b| {
            let excess = |at: usize| self.amounts[at].map_or(f64::INFINITY, |amounts| keeper.excess(&amounts));
            excess(*a).total_cmp(&excess(*b))
        });
        let why = cheapest.and_then(|at| self.why(&offer, at)).unwrap_or_else(|| "nothing fits".into());
        if live.settings.budgets.on_exhausted == OnExhausted::Cheapest
            && let Some(at) = cheapest
        {
            let candidate = permitted.candidates()[at];
            let amounts = self.amounts[at].unwrap_or_default();
            let decision =
                Decision::certain(candidate.action, "budget_exhausted", format!("the cheapest action, although {why}"));
            return Ok(Afforded {
                decision,
                permitted: Permitted::new(vec![candidate]).unwrap_or_else(|_| permitted.clone()),
                reservation: Some(keeper.reserve_anyway(amounts)),
                amounts: BTreeMap::from([(candidate.action, amounts)]),
                remaining: offer.remaining,
                battery_percent,
            });
        }
        // The first moment at which any of the actions may fit.
        let possible = (0..self.amounts.len()).filter_map(|at| offer.refused[at].as_ref()?.possible_ms).min();
        let retry_s = possible.map(|at_ms| u64::try_from(at_ms - offer.now_ms).unwrap_or(0).max(1_000).div_ceil(1_000));
        let when = match retry_s {
            Some(seconds) => format!("possible in {seconds} s, when the window ends"),
            None => "waiting alone does not help: tether budget show, set, reset".to_owned(),
        };
        let retry_s = retry_s.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        Err(insufficient(format!("no action fits the budgets ({why}); {when}"), retry_s))
    }
}

/// What is left, as the policy sees it: the least over a resource's windows.
fn remaining_cost(offer: &Offer, live: &Live) -> Cost {
    let [usd, energy, uplink_bytes, downlink_bytes] = offer.left;
    Cost {
        latency_ms: live.settings.budgets.latency_ms.map(|limit_ms| limit_ms as f64),
        cost_usd: usd.map(|count| Resource::Usd.value(count)),
        energy_j: energy.map(|count| Resource::EnergyJ.value(count)),
        uplink_bytes,
        downlink_bytes,
    }
}

/// Amounts as a cost, for the record.
pub(super) fn as_cost(amounts: &Amounts) -> Cost {
    Cost {
        latency_ms: None,
        cost_usd: Some(Resource::Usd.value(amounts[Resource::Usd])),
        energy_j: Some(Resource::EnergyJ.value(amounts[Resource::EnergyJ])),
        uplink_bytes: Some(amounts[Resource::UplinkBytes]),
        downlink_bytes: Some(amounts[Resource::DownlinkBytes]),
    }
}
