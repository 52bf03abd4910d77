//! A decision among the permitted actions, with its reason and its probability.

use crate::observation::Observation;
use tether_protocol::{Action, Cost, Reason};

/// A permitted action and what it would cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub action: Action,
    pub predicted: Cost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no action is permitted")]
pub struct NoAction;

/// The actions that privacy, configuration and hard facts permit: at least one, in ascending order, none twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Permitted(Vec<Candidate>);

impl Permitted {
    pub fn new(mut candidates: Vec<Candidate>) -> Result<Self, NoAction> {
        candidates.sort_by_key(|candidate| candidate.action);
        candidates.dedup_by_key(|candidate| candidate.action);
        if candidates.is_empty() { Err(NoAction) } else { Ok(Self(candidates)) }
    }

    pub fn candidates(&self) -> &[Candidate] {
        &self.0
    }

    pub fn get(&self, action: Action) -> Option<&Candidate> {
        self.0.binary_search_by_key(&action, |candidate| candidate.action).ok().map(|i| &self.0[i])
    }

    pub fn contains(&self, action: Action) -> bool {
        self.get(action).is_some()
    }

    /// The lowest permitted action: local if local is permitted.
    pub fn first(&self) -> Candidate {
        self.0[0]
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Always one of the permitted actions.
    pub action: Action,
    pub reason: Reason,
    /// The probability of this action under this policy, given this observation; 1 for a deterministic one.
    pub propensity: f64,
    /// Of each permitted action, in their order, from policies that draw.
    pub probabilities: Option<Vec<f64>>,
    /// A value for each permitted action, in their order, from policies that have values.
    pub values: Option<Vec<f64>>,
}

impl Decision {
    pub fn certain(action: Action, code: &'static str, detail: impl Into<String>) -> Self {
        Self { action, reason: Reason::new(code, detail), propensity: 1.0, probabilities: None, values: None }
    }

    /// Of each of the actions that were permitted: the policy's own, or 1 and 0 of a choice without chance. `None` from
    /// a policy that drew and does not tell how.
    pub fn probabilities(&self, permitted: &[Candidate]) -> Option<Vec<f64>> {
        let certain = |candidate: &Candidate| if candidate.action == self.action { 1.0 } else { 0.0 };
        let without_chance = || (self.propensity == 1.0).then(|| permitted.iter().map(certain).collect());
        self.probabilities.clone().or_else(without_chance)
    }
}

/// A decision rule, learned or fixed. `seed` is the only source of randomness.
pub trait Policy: Send + Sync {
    /// Name and version, as recorded with every turn.
    fn name(&self) -> &str;

    fn decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Decision;

    /// As [`Policy::decide`], or a refusal from a policy that is told to refuse what fits no budget.
    fn try_decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Result<Decision, Refusal> {
        Ok(self.decide(observation, permitted, seed))
    }
}

/// Why a policy would rather not answer at all: a code for metrics, words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub code: &'static str,
    pub detail: String,
}
