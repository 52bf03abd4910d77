//! MESS+ in the gateway: hard facts first, then the router decides, and ratings teach it. What it learned survives
//! the process (`journal.rs`), and several gateways may share it (`shared.rs`).

mod agreement;
mod encoder;
mod event;
mod flush;
mod journal;
mod shared;

use crate::config::{EncoderSettings, Settings, StateSettings};
use crate::zoo::choose::{BackendFacts, Chooser, Picked, Predicted, Refusal, TurnFacts, TurnKey, first_able, named};
use agreement::{Agreement, agree};
use anyhow::{Context, ensure};
use encoder::TextEncoder;
use event::{Event, Outcome, Request};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use journal::{Found, Journal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use shared::{Applied, Shared, SharedStatus};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tether_policies::mess::{Answer, ModelStatus, Router, TenantConfig, TenantStatus};
use tether_protocol::record::Usage;
use tether_protocol::wire::{FeedbackReply, Vision};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The chooser that learns.
#[derive(Debug)]
pub struct Routing {
    encoder: TextEncoder,
    encoder_settings: EncoderSettings,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    router: Router,
    /// The name of what the router's features come from.
    encoder: String,
    levels: Levels,
    keeper: Keeper,
    random: StdRng,
    /// Said once, until writing works again.
    write_failed: bool,
}

/// Where the learned state is kept.
#[derive(Debug)]
enum Keeper {
    /// Nowhere.
    Memory,
    /// In a folder of this gateway's own.
    File(Journal),
    /// In a log that several gateways follow.
    Shared(Box<Shared>),
}

/// How long the end of a turn, or a rating, waits until it stands in a shared log.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
const RATED_WITHIN: Duration = Duration::from_secs(2);

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is agreed with whom.
#[derive(Debug, Clone)]
struct Levels {
    default: TenantConfig,
    tenants: HashMap<String, TenantConfig>,
}

impl Levels {
    fn of(agreement: &Agreement) -> Self {
        Self { default: agreement.default.clone(), tenants: agreement.tenants.iter().cloned().collect() }
    }

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
    /// What turns a prompt into numbers.
    #[serde(default)]
    pub encoder: String,
    /// Turns that were routed by the models' means because the encoder was busy.
    #[serde(default)]
    pub unread: u64,
    /// Turns that can still be rated.
    pub awaiting_rating: usize,
    /// False while the learned state cannot be written, or is not to be kept.
    pub kept: bool,
    /// Where several gateways share one state.
    #[serde(default)]
    pub shared: Option<SharedStatus>,
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
    /// A state that cannot be used.
    pub fn open(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(routing) = &settings.routing else { return Ok(None) };
        let agreement = Agreement::of(settings, routing);
        let encoder = TextEncoder::open(&routing.encoder)?;
        let fresh = agreement.fresh(encoder.width())?;
        if settings.zoo.len() == 1 {
            tracing::warn!(model = settings.zoo[0].name, "routing has one model to choose from: it answers every turn");
        }
        let inner = |router, keeper| Inner {
            router,
            encoder: encoder.name().to_owned(),
            levels: Levels::of(&agreement),
            keeper,
            random: StdRng::from_os_rng(),
            write_failed: false,
        };
        let new = |inner| Self {
            encoder: encoder.clone(),
            encoder_settings: routing.encoder.clone(),
            inner: Arc::new(Mutex::new(inner)),
        };
        let routing = match &routing.state {
            StateSettings::Memory => new(inner(fresh, Keeper::Memory)),
            StateSettings::File(folder) => {
                let (journal, Found { router, events }) = Journal::open(folder, encoder.name())?;
                let mut router = router.unwrap_or(fresh);
                let replayed = events.iter().filter(|event| event.apply(&mut router).is_ok()).count();
                agree(&mut router, &agreement)?;
                tracing::info!(replayed, "what was learned before is read");
                let mut inner = inner(router, Keeper::File(journal));
                inner.save()?;
                new(inner)
            }
            shared => {
                let opened = shared::open(shared, encoder.name(), &agreement, &fresh)?;
                let (router, shared, threads) = opened.context("a state that several gateways share")?;
                let routing = new(inner(router, Keeper::Shared(Box::new(shared))));
                threads.start(&routing.inner);
                routing.agree_with_others(&agreement)?;
                routing
            }
        };
        tracing::info!(tenants = routing.inner().router.tenant_count(), "routing with MESS+");
        Ok(Some(routing))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Brings these settings to all gateways of the shared state, if they hold others. Blocks until it is so.
    fn agree_with_others(&self, agreement: &Agreement) -> anyhow::Result<()> {
        let mut heard = {
            let mut inner = self.inner();
            let Keeper::Shared(shared) = &mut inner.keeper else { return Ok(()) };
            if shared.agreed == *agreement {
                return Ok(());
            }
            shared.send_and_hear(Event::Agreed(agreement.clone()))
        };
        let begun = Instant::now();
        while let Some(receiver) = &mut heard {
            match receiver.try_recv() {
                Ok(applied) => return applied.map(drop).context("the settings of the zoo and the levels"),
                Err(oneshot::error::TryRecvError::Closed) => return Ok(()),
                Err(oneshot::error::TryRecvError::Empty) if begun.elapsed() > RATED_WITHIN => break,
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        anyhow::bail!("the shared state cannot be reached, and it holds other settings of the zoo or the levels")
    }
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
    /// Takes note of an event: at once, or when it comes back from the shared log.
    fn happen(&mut self, event: Event) -> Happened {
        if let Keeper::Shared(shared) = &mut self.keeper {
            return Happened::Sent(shared.send_and_hear(event));
        }
        let applied = event.apply(&mut self.router);
        if applied.as_ref().is_ok_and(|outcome| *outcome != Outcome::Nothing) {
            self.write(&event);
        }
        Happened::Applied(applied)
    }

    fn write(&mut self, event: &Event) {
        let Keeper::File(journal) = &mut self.keeper else { return };
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
        let Keeper::File(journal) = &mut self.keeper else { return Ok(()) };
        journal.rotate(self.router.snapshot(&self.encoder))?()
    }

    fn save_in_background(&mut self) -> std::io::Result<()> {
        let Keeper::File(journal) = &mut self.keeper else { return Ok(()) };
        let write = journal.rotate(self.router.snapshot(&self.encoder))?;
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
        let request = Request {
            tenant: turn.key.tenant.to_owned(),
            turn: turn_name(&turn.key),
            values: turn.features.to_vec(),
            prompt_tokens: turn.prompt_tokens,
            permitted: places.iter().map(Option::is_some).collect(),
            now_ms: now_ms(),
            u: self.random.random(),
        };
        let features = request.features();
        let chosen = match &self.keeper {
            Keeper::Shared(_) => self.router.decide(&request.call(&features)),
            Keeper::Memory | Keeper::File(_) => self.router.route(&request.call(&features)),
        };
        let choice = match chosen {
            Ok(choice) => choice,
            Err(problem) => {
                tracing::debug!(%problem, "not routed: the first able model answers, and nothing is learned of it");
                return None;
            }
        };
        let predicted = Predicted {
            satisfaction: choice.satisfaction,
            cost_usd: choice.cost,
            shadow_price_usd: choice.shadow_price,
        };
        let event = Event::Routed { request, decision: self.router.decision(&choice) };
        match &mut self.keeper {
            Keeper::Shared(shared) => {
                if !shared.send(event) {
                    tracing::warn!("too much waits to be written to the shared state; this turn teaches nothing");
                }
            }
            // Remembered already.
            Keeper::Memory | Keeper::File(_) => self.write(&event),
        }
        let reason = choice.reason.as_str();
        Some(Picked { index: places[choice.model]?, reason, predicted: Some(predicted) })
    }
}

/// What became of an event.
enum Happened {
    Applied(Applied),
    /// On its way to the shared log; `None` where it would be long until it is heard of.
    Sent(Option<oneshot::Receiver<Applied>>),
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

    fn read(&self, text: &str) -> BoxFuture<'static, Vec<f32>> {
        self.encoder.read(text)
    }

    fn choose(&self, turn: &TurnFacts<'_>, zoo: &[BackendFacts]) -> Result<Picked, Refusal> {
        let mut inner = self.inner();
        let candidates = inner.candidates(turn, zoo)?;
        let first = first_able(turn, zoo, &candidates)?;
        if turn.model.is_some() {
            return Ok(Picked { index: first, reason: "named", predicted: None });
        }
        let able: Vec<usize> = candidates.into_iter().filter(|&index| is_able(turn, &zoo[index])).collect();
        let other = Picked { index: first, reason: "first_able", predicted: None };
        Ok(inner.route(turn, zoo, &able).unwrap_or(other))
    }

    fn answered(&self, turn: &TurnKey<'_>, model: &str, usage: Usage, cost_usd: f64) -> BoxFuture<'static, ()> {
        let answer = Answer { cost: cost_usd, tokens: Some(usage.completion_tokens) };
        let event = Event::Answered { turn: turn_name(turn), model: model.to_owned(), answer, now_ms: now_ms() };
        // A turn that named its model was never routed: that is no news.
        match self.inner().happen(event) {
            // So that the client's rating finds the turn at every gateway.
            Happened::Sent(Some(heard)) => async { drop(timeout(HEARD_WITHIN, heard).await) }.boxed(),
            Happened::Sent(None) | Happened::Applied(_) => ready(()).boxed(),
        }
    }

    fn failed(&self, turn: &TurnKey<'_>) {
        let _ = self.inner().happen(Event::Withdrawn { turn: turn_name(turn) });
    }

    fn rate(&self, turn: &TurnKey<'_>, rating: f64) -> BoxFuture<'static, Option<FeedbackReply>> {
        let (client, turn_id) = (turn.tenant.to_owned(), turn.turn_id.clone());
        let event = Event::Rated { tenant: client.clone(), turn: turn_name(turn), rating, now_ms: now_ms() };
        let reply = move |applied: Applied| match applied {
            Ok(_) => FeedbackReply::Recorded,
            Err(problem) => {
                tracing::info!(client, %turn_id, %problem, "a rating teaches nothing");
                FeedbackReply::UnknownTurn
            }
        };
        match self.inner().happen(event) {
            Happened::Applied(applied) => ready(Some(reply(applied))).boxed(),
            Happened::Sent(None) => ready(None).boxed(),
            Happened::Sent(Some(heard)) => async move {
                let heard = timeout(RATED_WITHIN, heard).await.ok()?;
                // Closed: it was in a snapshot that this gateway went over to, and so counted.
                Some(heard.map_or(FeedbackReply::Recorded, reply))
            }
            .boxed(),
        }
    }

    fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        let Some(routing) = &settings.routing else {
            anyhow::bail!("routing cannot be turned off while the gateway runs; restart it")
        };
        ensure!(
            routing.encoder == self.encoder_settings,
            "routing.encoder cannot change while the gateway runs, because what was learned on one means nothing on \
             another; restart it"
        );
        let agreement = Agreement::of(settings, routing);
        self.agree_with_others(&agreement)?;
        let mut inner = self.inner();
        if !matches!(inner.keeper, Keeper::Shared(_)) {
            let mut router = inner.router.clone();
            agree(&mut router, &agreement)?;
            inner.router = router;
        }
        inner.levels = Levels::of(&agreement);
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
            encoder: self.encoder.name().to_owned(),
            unread: self.encoder.unread(),
            awaiting_rating: router.pending_count(),
            kept: match &inner.keeper {
                Keeper::Memory => false,
                Keeper::File(_) => !inner.write_failed,
                Keeper::Shared(shared) => shared.is_reachable(),
            },
            shared: match &inner.keeper {
                Keeper::Shared(shared) => Some(shared.status()),
                Keeper::Memory | Keeper::File(_) => None,
            },
        })
    }
}

#[cfg(test)]
mod tests;
