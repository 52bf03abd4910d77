//! What happened to the router since its last snapshot; applying it all in order gives the same router.

use super::agreement::{Agreement, agree};
use serde::{Deserialize, Serialize};
use tether_policies::mess::{
    Answer, Call, Decision, LabelOutcome, RateError, RequestFeatures, RouteError, Router, ZooError,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    Routed { request: Request, decision: Decision },
    Answered { turn: String, model: String, answer: Answer, now_ms: i64 },
    Withdrawn { turn: String },
    Rated { tenant: String, turn: String, rating: f64, now_ms: i64 },
    Agreed(Agreement),
}

/// A request, with everything that a decision depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) tenant: String,
    pub(super) turn: String,
    pub(super) values: Vec<f32>,
    pub(super) prompt_tokens: u32,
    /// In the order of the ladder that the decision was made on.
    pub(super) permitted: Vec<bool>,
    pub(super) now_ms: i64,
    pub(super) u: f64,
}

impl Request {
    pub(super) fn features(&self) -> RequestFeatures {
        RequestFeatures { values: self.values.clone(), prompt_tokens: self.prompt_tokens }
    }

    pub(super) fn call<'a>(&'a self, features: &'a RequestFeatures) -> Call<'a> {
        Call {
            tenant: &self.tenant,
            turn: &self.turn,
            features,
            permitted: &self.permitted,
            now_ms: self.now_ms,
            u: self.u,
        }
    }
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
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
    #[error(transparent)]
    Zoo(#[from] ZooError),
}

impl Event {
    /// Whose it is; empty for what is everybody's.
    pub(super) fn tenant(&self) -> &str {
        match self {
            Self::Routed { request, .. } => &request.tenant,
            Self::Rated { tenant, .. } => tenant,
            // A turn's name begins with its client's, which has no blanks.
            Self::Answered { turn, .. } | Self::Withdrawn { turn } => turn.split(' ').next().unwrap_or_default(),
            Self::Agreed(_) => "",
        }
    }

    pub(super) fn apply(&self, router: &mut Router) -> Result<Outcome, EventError> {
        Ok(match self {
            Self::Routed { request, decision } => {
                record(router, request, decision)?;
                Outcome::Done
            }
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
            Self::Agreed(agreement) => {
                // Whole or not at all.
                let mut changed = router.clone();
                agree(&mut changed, agreement)?;
                *router = changed;
                Outcome::Done
            }
        })
    }
}

fn record(router: &mut Router, request: &Request, decision: &Decision) -> Result<(), RouteError> {
    let features = request.features();
    let ladder = router.model_names().count();
    if request.permitted.len() == ladder {
        return router.record(&request.call(&features), decision);
    }
    // The ladder has changed between the decision and its place in a shared log; what was permitted then is not known.
    let permitted = vec![true; ladder];
    router.record(&Call { permitted: &permitted, ..request.call(&features) }, decision)
}
