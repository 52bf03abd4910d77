//! MESS+ in the gateway: hard facts first, then the router decides, and ratings teach it. What it learned survives
//! the process; see `journal.rs`.

mod event;
mod journal;

use crate::config::{RoutingSettings, Settings};
use crate::price::Prices;
use crate::zoo::choose::{BackendFacts, Chooser, Picked, Refusal, TurnFacts, TurnKey, first_able, named};
use anyhow::Context;
use event::{Event, EventError, Outcome, Route};
use journal::{Found, Journal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tether_policies::mess::{
    Answer, Encoder, HashedEncoder, ModelSpec, ModelStatus, Params, Router, TenantConfig, TenantStatus, TokenPrice,
};
use tether_protocol::record::Usage;
use tether_protocol::wire::{FeedbackReply, Vision};

/// The chooser that learns.
#[derive(Debug)]
pub struct Routing {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    router: Router,
    levels: Levels,
    /// `None`: nothing is kept.
    journal: Option<Journal>,
    random: StdRng,
    /// Said once, until writing works again.
    write_failed: bool,
}

/// What is agreed with whom.
#[derive(Debug, Clone)]
struct Levels {
    default: TenantConfig,
    tenants: HashMap<String, TenantConfig>,
}

impl Levels {
    fn allows(&self, tenant: &str, model: &str) -> bool {
        let config = self.tenants.get(tenant).unwrap_or(&self.default);
        config.models.as_ref().is_none_or(|names| names.iter().any(|name| name == model))
    }
}

/// What `tether-cloud status` and `/metrics` tell of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutingStatus {
    pub tenant_count: usize,
    /// The first [`MAX_SHOWN_TENANTS`] by name.
    pub tenants: Vec<NamedTenant>,
    /// Cheapest first.
    pub models: Vec<ModelStatus>,
    /// Turns that can still be rated.
    pub awaiting_rating: usize,
    /// False while the learned state cannot be written, or is not to be kept.
    pub kept: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedTenant {
    pub name: String,
    #[serde(flatten)]
    pub status: TenantStatus,
}

/// Labels of a metric must stay few.
pub const MAX_SHOWN_TENANTS: usize = 100;

impl Routing {
    /// `None` where the settings agree on no level. Blocks while the state is read.
    ///
    /// # Errors
    /// A state folder that cannot be used.
    pub fn open(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(routing) = &settings.routing else { return Ok(None) };
        let (journal, Found { router, events }) = match &routing.state {
            Some(folder) => {
                Journal::open(folder, HashedEncoder.name()).map(|(journal, found)| (Some(journal), found))?
            }
            None => (None, Found::default()),
        };
        let mut router = match router {
            Some(router) => router,
            None => fresh(settings, routing)?,
        };
        let replayed = events.iter().filter(|event| event.apply(&mut router).is_ok()).count();
        let levels = agree(&mut router, settings, routing)?;
        if settings.zoo.len() == 1 {
            tracing::warn!(model = settings.zoo[0].name, "routing has one model to choose from: it answers every turn");
        }
        let mut inner = Inner { router, levels, journal, random: StdRng::from_os_rng(), write_failed: false };
        inner.save()?;
        tracing::info!(replayed, tenants = inner.router.tenant_count(), "routing with MESS+");
        Ok(Some(Self { inner: Mutex::new(inner) }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh(settings: &Settings, routing: &RoutingSettings) -> anyhow::Result<Router> {
    let mut zoo: Vec<_> = settings.zoo.iter().collect();
    zoo.sort_by(|a, b| nominal_usd(a.prices).total_cmp(&nominal_usd(b.prices)));
    let specs = zoo.iter().map(|backend| spec(&backend.name, backend.prices)).collect();
    // A label of an answer that nobody saw cannot be had here.
    let params = Params { extra: 0.0, ..Params::default() };
    Ok(Router::new(specs, HashedEncoder.width(), routing.default.clone(), params)?)
}

/// Brings a router to the zoo and the levels of the settings. Models that stay keep their rung and what was learned.
fn agree(router: &mut Router, settings: &Settings, routing: &RoutingSettings) -> anyhow::Result<Levels> {
    for backend in &settings.zoo {
        let wanted = spec(&backend.name, backend.prices);
        let known = router.specs().find(|spec| spec.name == wanted.name).cloned();
        match known {
            None => {
                let price = nominal_usd(backend.prices);
                let cheaper = |name: &str| {
                    settings.zoo.iter().any(|other| other.name == name && nominal_usd(other.prices) <= price)
                };
                let rung = router.model_names().filter(|name| cheaper(name)).count();
                make_room(router, settings)?;
                router.add_model(wanted, rung)?;
            }
            Some(known) if known.price != wanted.price => {
                let ratio = match (known.price, wanted.price) {
                    (Some(old), Some(new)) => nominal_of(new) / nominal_of(old),
                    _ => 1.0,
                };
                let factor = if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 };
                router.reprice(&wanted.name, wanted.price, factor)?;
            }
            Some(_) => {}
        }
    }
    while let Some(gone) = gone(router, settings) {
        router.remove_model(&gone)?;
    }
    router.clear_tenants();
    router.set_default_tenant(routing.default.clone())?;
    for (name, config) in &routing.tenants {
        router.set_tenant(name, config.clone())?;
    }
    Ok(Levels { default: routing.default.clone(), tenants: routing.tenants.iter().cloned().collect() })
}

fn gone(router: &Router, settings: &Settings) -> Option<String> {
    let stays = |name: &&str| settings.zoo.iter().any(|backend| backend.name == **name);
    router.model_names().find(|name| !stays(name)).map(str::to_owned)
}

/// A full ladder cannot take the new models before the old ones have left.
fn make_room(router: &mut Router, settings: &Settings) -> anyhow::Result<()> {
    if let Some(gone) = gone(router, settings)
        && router.model_names().count() > 1
    {
        router.remove_model(&gone)?;
    }
    Ok(())
}

fn spec(name: &str, prices: Prices) -> ModelSpec {
    let by_token = prices.usd_per_request == 0.0 && prices.usd_per_image == 0.0;
    let price = TokenPrice {
        input_per_token: prices.usd_per_million_prompt_tokens / 1e6,
        output_per_token: prices.usd_per_million_completion_tokens / 1e6,
    };
    ModelSpec { name: name.to_owned(), price: by_token.then_some(price) }
}

/// The order of the ladder: what a turn of 1,000 tokens with an answer of 200 costs, in USD.
fn nominal_usd(prices: Prices) -> f64 {
    prices.cost_usd(Usage { prompt_tokens: 1_000, completion_tokens: 200 }, 0)
}

fn nominal_of(price: TokenPrice) -> f64 {
    1_000.0 * price.input_per_token + 200.0 * price.output_per_token
}

/// Two clients may use the same id for their turns. A client's name has no blanks.
fn turn_name(key: &TurnKey<'_>) -> String {
    format!("{} {}", key.tenant, key.turn_id)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

impl Inner {
    /// Applies an event and writes it down.
    fn happen(&mut self, event: &Event) -> Result<Outcome, EventError> {
        let outcome = event.apply(&mut self.router)?;
        if outcome != Outcome::Nothing {
            self.write(event);
        }
        Ok(outcome)
    }

    fn write(&mut self, event: &Event) {
        let Some(journal) = &mut self.journal else { return };
        let written = journal.append(event);
        let full = journal.is_long();
        let done = match written {
            Ok(()) if full => self.save_in_background(),
            written => written,
        };
        match done {
            Ok(()) => self.write_failed = false,
            Err(problem) if !self.write_failed => {
                tracing::error!(%problem, "the learned state cannot be written; routing goes on and forgets at a restart");
                self.write_failed = true;
            }
            Err(_) => {}
        }
    }

    fn save(&mut self) -> std::io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.rotate(self.router.snapshot(HashedEncoder.name()))?()
    }

    fn save_in_background(&mut self) -> std::io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let write = journal.rotate(self.router.snapshot(HashedEncoder.name()))?;
        std::thread::spawn(move || {
            if let Err(problem) = write() {
                tracing::error!(%problem, "the snapshot of the learned state was not written; its logs are kept");
            }
        });
        Ok(())
    }

    /// The backends that the tenant's agreement leaves for this turn.
    fn candidates(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<Vec<usize>, Refusal> {
        let allowed = |index: &usize| self.levels.allows(turn.key.tenant, &zoo[*index].name);
        let not_allowed =
            |what: &str| Refusal::NotAllowed { tenant: turn.key.tenant.to_owned(), what: what.to_owned() };
        match turn.model {
            Some(name) => {
                let index = named(name, zoo)?;
                if allowed(&index) { Ok(vec![index]) } else { Err(not_allowed(name)) }
            }
            None => {
                let all: Vec<usize> = (0..zoo.len()).filter(allowed).collect();
                if all.is_empty() { Err(not_allowed("of any name that the zoo has now")) } else { Ok(all) }
            }
        }
    }

    fn route(&mut self, turn: &TurnFacts<'_>, zoo: &[BackendFacts], able: &[usize]) -> Option<Picked> {
        let place = |name: &str| able.iter().copied().find(|&index| zoo[index].name == name);
        let places: Vec<Option<usize>> = self.router.model_names().map(place).collect();
        let event = Event::Route(Route {
            tenant: turn.key.tenant.to_owned(),
            turn: turn_name(&turn.key),
            values: HashedEncoder.encode(turn.text),
            prompt_tokens: turn.prompt_tokens,
            permitted: places.iter().map(Option::is_some).collect(),
            now_ms: now_ms(),
            u: self.random.random(),
        });
        match self.happen(&event) {
            Ok(Outcome::Chosen(choice)) => Some(Picked { index: places[choice.model]?, reason: choice.reason }),
            Ok(_) => None,
            Err(problem) => {
                tracing::debug!(%problem, "not routed: the first able model answers, and nothing is learned of it");
                None
            }
        }
    }
}

/// No obstacle that is known now.
fn is_able(turn: &TurnFacts<'_>, backend: &BackendFacts) -> bool {
    let sees = turn.image_count == 0 || backend.vision != Vision::None;
    sees && backend.healthy && !backend.tried && backend.full_for_ms.is_none()
}

impl Chooser for Routing {
    fn check(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<(), Refusal> {
        let candidates = self.inner().candidates(turn, zoo)?;
        first_able(turn, zoo, &candidates).map(drop)
    }

    fn choose(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<Picked, Refusal> {
        let mut inner = self.inner();
        let candidates = inner.candidates(turn, zoo)?;
        let first = first_able(turn, zoo, &candidates)?;
        if turn.model.is_some() {
            return Ok(Picked { index: first, reason: "named" });
        }
        let able: Vec<usize> = candidates.into_iter().filter(|&index| is_able(turn, &zoo[index])).collect();
        Ok(inner.route(turn, zoo, &able).unwrap_or(Picked { index: first, reason: "first_able" }))
    }

    fn answered(&self, turn: &TurnKey<'_>, model: &str, usage: Usage, cost_usd: f64) {
        let answer = Answer { cost: cost_usd, tokens: Some(usage.completion_tokens) };
        let event = Event::Answered { turn: turn_name(turn), model: model.to_owned(), answer, now_ms: now_ms() };
        // A turn that named its model was never routed.
        let _ = self.inner().happen(&event);
    }

    fn failed(&self, turn: &TurnKey<'_>) {
        let _ = self.inner().happen(&Event::Withdrawn { turn: turn_name(turn) });
    }

    fn rate(&self, turn: &TurnKey<'_>, rating: f64) -> FeedbackReply {
        let event = Event::Rated { tenant: turn.tenant.to_owned(), turn: turn_name(turn), rating, now_ms: now_ms() };
        match self.inner().happen(&event) {
            Ok(_) => FeedbackReply::Recorded,
            Err(problem) => {
                tracing::info!(client = turn.tenant, turn_id = %turn.turn_id, %problem, "a rating teaches nothing");
                FeedbackReply::UnknownTurn
            }
        }
    }

    fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        let mut inner = self.inner();
        let Some(routing) = &settings.routing else {
            anyhow::bail!("routing cannot be turned off while the gateway runs; restart it")
        };
        let mut router = inner.router.clone();
        inner.levels = agree(&mut router, settings, routing)?;
        inner.router = router;
        inner.save().context("saving the learned state")
    }

    fn status(&self) -> Option<RoutingStatus> {
        let inner = self.inner();
        let router = &inner.router;
        let mut names: Vec<&str> = router.tenant_names().collect();
        names.sort_unstable();
        names.truncate(MAX_SHOWN_TENANTS);
        let named = |name: &str| Some(NamedTenant { name: name.to_owned(), status: router.tenant_status(name)? });
        Some(RoutingStatus {
            tenant_count: router.tenant_count(),
            tenants: names.into_iter().filter_map(named).collect(),
            models: router.model_status(),
            awaiting_rating: router.pending_count(),
            kept: inner.journal.is_some() && !inner.write_failed,
        })
    }
}

#[cfg(test)]
mod tests;
