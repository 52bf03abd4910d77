//! Permitted actions with the most that each may cost: which of them the budgets allow, and why not the others. Pure.

use super::most::{Asked, most};
use std::collections::BTreeMap;
use tether_policies::budget::{Accounts, Amounts, Most, Offer, Refused};
use tether_policies::{Candidate, Decision, Observation, Permitted};
use tether_protocol::{Action, Reason, Route};

/// The permitted actions of one turn, and the most that each may cost.
pub struct Priced {
    permitted: Permitted,
    /// Of each permitted action, in their order.
    most: Vec<Most>,
}

impl Priced {
    pub fn new(asked: &Asked<'_>, accounts: &Accounts, observation: &Observation, permitted: Permitted) -> Self {
        let of = |candidate: &Candidate| {
            let sent = observation.space.sent(candidate.action);
            let views = sent.iter().filter_map(|view| observation.context.views.get(view));
            let texts = views.filter(|view| view.is_text);
            let sensor_bytes = texts.filter_map(|view| view.encoded_bytes.value()).sum();
            let images = u64::from(observation.images(candidate.action));
            most(asked, accounts, candidate, images, sensor_bytes)
        };
        let most = permitted.candidates().iter().map(of).collect();
        Self { permitted, most }
    }

    pub fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    pub fn most(&self) -> &[Most] {
        &self.most
    }

    pub fn most_of(&self, action: Action) -> Amounts {
        let at = self.permitted.candidates().iter().position(|candidate| candidate.action == action);
        at.and_then(|at| self.most[at].ok()).unwrap_or_default()
    }

    /// What each of these actions would reserve.
    pub fn amounts(&self, choice: &Permitted) -> BTreeMap<Action, Amounts> {
        choice.candidates().iter().map(|candidate| (candidate.action, self.most_of(candidate.action))).collect()
    }

    /// The actions that fit the budgets, and of those, if `paced`, the ones that keep to the pace, where there are any.
    /// `None`: nothing fits.
    pub fn choice(&self, offer: &Offer, paced: bool) -> Option<Permitted> {
        let fits = |at: &usize| self.most[*at].is_ok() && offer.refused[*at].is_none();
        let on_pace = |at: &usize| fits(at) && offer.ahead[*at].is_none();
        let of = |places: &mut dyn Iterator<Item = usize>| {
            Permitted::new(places.map(|at| self.permitted.candidates()[at]).collect()).ok()
        };
        let all = 0..self.most.len();
        let kept = if paced { of(&mut all.clone().filter(on_pace)) } else { None };
        kept.or_else(|| of(&mut all.filter(fits)))
    }

    /// Says in the reason what budgets took away, and names them as the reason if they took the whole cloud. `is_asked`:
    /// the route was not for the policy to choose.
    pub fn explain(&self, offer: &Offer, choice: &Permitted, is_asked: bool, decision: &mut Decision) {
        let candidates = self.permitted.candidates();
        let taken: Vec<usize> = (0..candidates.len()).filter(|at| !choice.contains(candidates[*at].action)).collect();
        let Some(why) = taken.iter().find_map(|at| self.why(offer, *at)) else { return };
        let has_cloud = |permitted: &Permitted| permitted.candidates().iter().any(|c| c.action.route() == Route::Cloud);
        let only_paced = taken.iter().all(|at| offer.refused[*at].is_none() && self.most[*at].is_ok());
        if decision.action.route() == Route::Local && has_cloud(&self.permitted) && !has_cloud(choice) && !is_asked {
            let code = if only_paced { "over_pace" } else { "over_budget" };
            decision.reason = Reason::new(code, format!("no cloud action is within the budgets: {why}"));
        } else {
            decision.reason.detail.push_str(&format!("; budgets left out {} actions: {why}", taken.len()));
        }
    }

    /// Why the action at this place is left out.
    pub fn why(&self, offer: &Offer, at: usize) -> Option<String> {
        match self.most[at] {
            Err(resource) => Some(format!("its most in {} cannot be told before", resource.name())),
            Ok(_) => offer.refused[at].as_ref().or(offer.ahead[at].as_ref()).map(Refused::to_string),
        }
    }
}
