//! What happened to the router since its last snapshot; replaying it gives the same router.

use serde::{Deserialize, Serialize};
use tether_policies::mess::{Answer, Call, Choice, LabelOutcome, RateError, RequestFeatures, RouteError, Router};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    Route(Route),
    Answered { turn: String, model: String, answer: Answer, now_ms: i64 },
    Withdrawn { turn: String },
    Rated { tenant: String, turn: String, rating: f64, now_ms: i64 },
}

/// A request, with everything that its decision depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) tenant: String,
    pub(super) turn: String,
    pub(super) values: Vec<f32>,
    pub(super) prompt_tokens: u32,
    pub(super) permitted: Vec<bool>,
    pub(super) now_ms: i64,
    pub(super) u: f64,
}

impl Route {
    pub(super) fn decide(&self, router: &mut Router) -> Result<Choice, RouteError> {
        let features = RequestFeatures { values: self.values.clone(), prompt_tokens: self.prompt_tokens };
        router.route(&Call {
            tenant: &self.tenant,
            turn: &self.turn,
            features: &features,
            permitted: &self.permitted,
            now_ms: self.now_ms,
            u: self.u,
        })
    }
}

/// What an event did.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Chosen(Choice),
    Done,
    Label(LabelOutcome),
    /// Nothing changed, so nothing needs to be written down.
    Nothing,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EventError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Rate(#[from] RateError),
}

impl Event {
    pub(super) fn apply(&self, router: &mut Router) -> Result<Outcome, EventError> {
        Ok(match self {
            Self::Route(route) => Outcome::Chosen(route.decide(router)?),
            Self::Answered { turn, model, answer, now_ms } => {
                router.answered(turn, model, *answer, *now_ms)?;
                Outcome::Done
            }
            Self::Withdrawn { turn } => match router.withdraw(turn) {
                true => Outcome::Done,
                false => Outcome::Nothing,
            },
            Self::Rated { tenant, turn, rating, now_ms } => {
                match router.rate_served(tenant, turn, *rating, *now_ms)? {
                    LabelOutcome::Duplicate => Outcome::Nothing,
                    learned @ LabelOutcome::Learned => Outcome::Label(learned),
                }
            }
        })
    }
}
