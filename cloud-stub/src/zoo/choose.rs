//! Which backend answers: a pure choice among facts, so that another chooser (MESS+) can take its place.

use crate::config::Settings;
use crate::routing::RoutingStatus;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tether_protocol::TurnId;
use tether_protocol::record::Usage;
use tether_protocol::wire::{ErrorCode, FeedbackReply, Vision, WireError};

/// What a chooser may know of a turn before anything is asked.
#[derive(Debug, Clone, Copy)]
pub struct TurnFacts<'a> {
    /// Who asks, as authenticated, and what.
    pub key: TurnKey<'a>,
    /// A model asked for by name.
    pub model: Option<&'a str>,
    pub image_count: usize,
    /// What [`Chooser::read`] made of the newest user message.
    pub features: &'a [f32],
    /// Tokens of the whole prompt, estimated.
    pub prompt_tokens: u32,
}

/// What a chooser may know of a backend, in the order of the settings.
#[derive(Debug, Clone)]
pub struct BackendFacts {
    pub name: String,
    pub vision: Vision,
    /// False while it is out: it failed, and no probe has succeeded since.
    pub healthy: bool,
    /// Tried for this turn already, and failed or turned it away.
    pub tried: bool,
    /// When a full queue is expected to have room again; `None` while there is room.
    pub full_for_ms: Option<u32>,
}

/// Picks a backend by its place in `zoo`, or says why none can answer.
pub trait Chooser: Send + Sync + 'static {
    /// Whether some backend could answer; without any effect.
    fn check(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<(), Refusal>;

    /// What the chooser needs of the newest user message, once a turn; it may take a while, never the runtime's threads.
    fn read(&self, _text: &str) -> BoxFuture<'static, Vec<f32>> {
        ready(Vec::new()).boxed()
    }

    fn choose(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<Picked, Refusal>;

    /// The backend that was chosen last has answered the turn whole. Ready once a rating of it would be understood,
    /// within a bounded time.
    fn answered(&self, _turn: &TurnKey<'_>, _model: &str, _usage: Usage, _cost_usd: f64) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }

    /// The backend that was chosen last has not answered, or not whole.
    fn failed(&self, _turn: &TurnKey<'_>) {}

    /// A rating of an earlier turn, from 0 to 1. `None` if nobody can say now whether it counts; sending it again later
    /// does no harm.
    fn rate(&self, _turn: &TurnKey<'_>, _rating: f64) -> BoxFuture<'static, Option<FeedbackReply>> {
        ready(Some(FeedbackReply::Unsupported)).boxed()
    }

    /// The zoo and the tenants have new settings.
    ///
    /// # Errors
    /// What in them cannot be; the old ones stay.
    fn reload(&self, _settings: &Settings) -> anyhow::Result<()> {
        Ok(())
    }

    /// What it has learned, for people.
    fn status(&self) -> Option<RoutingStatus> {
        None
    }
}

/// Names a turn: an id is unique only for its client.
#[derive(Debug, Clone, Copy)]
pub struct TurnKey<'a> {
    pub tenant: &'a str,
    pub turn_id: &'a TurnId,
}

/// A backend by its place, and why this one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Picked {
    pub index: usize,
    pub reason: &'static str,
    /// By a chooser that predicts.
    pub predicted: Option<Predicted>,
}

/// What a chooser expected of the backend that it chose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// The probability that the answer satisfies.
    pub satisfaction: f64,
    /// `None` while nothing is known of it.
    pub cost_usd: Option<f64>,
    /// What one more satisfied answer was worth, where that decided.
    pub shadow_price_usd: Option<f64>,
}

/// Why no backend can answer a turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the gateway has no model {asked:?}; it has {}", known.join(", "))]
    UnknownModel { asked: String, known: Vec<String> },
    #[error("{what} cannot take images; send the turn without views, or ask for a model with vision")]
    NoVision { what: String },
    #[error("the gateway's settings do not allow {tenant} the model {what}")]
    NotAllowed { tenant: String, what: String },
    #[error("the queue of {what} is full; try again in {retry_after_ms} ms")]
    Full { what: String, retry_after_ms: u32 },
    #[error("{what} is out after a failure and has not answered a probe yet")]
    Out { what: String },
}

/// How long a client should wait when everything is out: about the prober's first waits.
const OUT_RETRY_AFTER_MS: u32 = 2_000;

impl From<Refusal> for WireError {
    fn from(refusal: Refusal) -> Self {
        let (code, retry_after_ms) = match &refusal {
            Refusal::UnknownModel { .. } | Refusal::NotAllowed { .. } => (ErrorCode::UnknownModel, None),
            Refusal::NoVision { .. } => (ErrorCode::NoVision, None),
            Refusal::Full { retry_after_ms, .. } => (ErrorCode::Overloaded, Some(*retry_after_ms)),
            Refusal::Out { .. } => (ErrorCode::BackendFailed, Some(OUT_RETRY_AFTER_MS)),
        };
        WireError { code, message: refusal.to_string(), retry_after_ms }
    }
}

/// The model that was asked for; else the first backend, in the order of the settings, that is healthy, has room and
/// can serve the turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstAble;

impl Chooser for FirstAble {
    fn check(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<(), Refusal> {
        self.choose(turn, zoo).map(drop)
    }

    fn choose(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<Picked, Refusal> {
        let (named, reason) = match turn.model {
            Some(name) => (vec![named(name, zoo)?], "named"),
            None => ((0..zoo.len()).collect(), "first_able"),
        };
        first_able(turn, zoo, &named).map(|index| Picked { index, reason, predicted: None })
    }

    fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        anyhow::ensure!(settings.routing.is_none(), "routing cannot be turned on while the gateway runs; restart it");
        Ok(())
    }
}

pub(crate) fn named(name: &str, zoo: &[BackendFacts]) -> Result<usize, Refusal> {
    zoo.iter().position(|backend| backend.name == name).ok_or_else(|| Refusal::UnknownModel {
        asked: name.to_owned(),
        known: zoo.iter().map(|backend| backend.name.clone()).collect(),
    })
}

/// The first candidate without an obstacle; else the refusal that waiting cures soonest, a full queue before a
/// failure.
pub(crate) fn first_able(turn: &TurnFacts<'_>, zoo: &[BackendFacts], candidates: &[usize]) -> Result<usize, Refusal> {
    let sees = |&&index: &&usize| turn.image_count == 0 || zoo[index].vision != Vision::None;
    let able: Vec<usize> = candidates.iter().filter(sees).copied().collect();
    let what = |indices: &[usize]| match indices {
        [only] => format!("model {}", zoo[*only].name),
        _ => "every model of the zoo".to_owned(),
    };
    if able.is_empty() {
        return Err(Refusal::NoVision { what: what(candidates) });
    }
    let up: Vec<usize> = able.iter().copied().filter(|&index| zoo[index].healthy && !zoo[index].tried).collect();
    if let Some(&index) = up.iter().find(|&&index| zoo[index].full_for_ms.is_none()) {
        return Ok(index);
    }
    match up.iter().filter_map(|&index| zoo[index].full_for_ms).min() {
        Some(retry_after_ms) => Err(Refusal::Full { what: what(&up), retry_after_ms }),
        None => Err(Refusal::Out { what: what(&able) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    fn backend(name: &str, vision: Vision) -> BackendFacts {
        BackendFacts { name: name.into(), vision, healthy: true, tried: false, full_for_ms: None }
    }

    fn turn(model: Option<&str>, image_count: usize) -> TurnFacts<'_> {
        static TURN_ID: LazyLock<TurnId> = LazyLock::new(|| TurnId::new("turn-1").unwrap());
        let key = TurnKey { tenant: "robot", turn_id: &TURN_ID };
        TurnFacts { key, model, image_count, features: &[], prompt_tokens: 0 }
    }

    fn choose(turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<usize, Refusal> {
        FirstAble.choose(turn, zoo).map(|picked| picked.index)
    }

    fn zoo() -> Vec<BackendFacts> {
        vec![backend("blind", Vision::None), backend("measuring", Vision::Measured), backend("seeing", Vision::Native)]
    }

    #[test]
    fn the_first_able_one_answers() {
        let mut zoo = zoo();
        assert_eq!(choose(&turn(None, 0), &zoo), Ok(0));
        assert_eq!(choose(&turn(None, 1), &zoo), Ok(1));
        zoo[1].healthy = false;
        assert_eq!(choose(&turn(None, 1), &zoo), Ok(2));
        zoo[0].full_for_ms = Some(100);
        assert_eq!(choose(&turn(None, 0), &zoo), Ok(2));
    }

    #[test]
    fn a_named_model_answers_or_nobody_does() {
        let mut zoo = zoo();
        assert_eq!(choose(&turn(Some("seeing"), 0), &zoo), Ok(2));
        let refusal = choose(&turn(Some("blind"), 1), &zoo).unwrap_err();
        assert_eq!(refusal, Refusal::NoVision { what: "model blind".into() });
        zoo[2].healthy = false;
        assert_eq!(choose(&turn(Some("seeing"), 0), &zoo), Err(Refusal::Out { what: "model seeing".into() }));
        let refusal = choose(&turn(Some("gpt"), 0), &zoo).unwrap_err();
        assert_eq!(refusal.to_string(), "the gateway has no model \"gpt\"; it has blind, measuring, seeing");
    }

    #[test]
    fn a_full_queue_is_told_before_a_failure() {
        let mut zoo = zoo();
        zoo[0].healthy = false;
        zoo[1].full_for_ms = Some(700);
        zoo[2].full_for_ms = Some(300);
        let error = WireError::from(choose(&turn(None, 0), &zoo).unwrap_err());
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Overloaded, Some(300)));
        zoo[1].tried = true;
        zoo[2].tried = true;
        let error = WireError::from(choose(&turn(None, 0), &zoo).unwrap_err());
        assert_eq!(error.code, ErrorCode::BackendFailed);
    }
}
