//! The daemon as a value: what it is built from, what it holds, and how it stops.

mod budgets;
mod live;
mod serve;
mod surroundings;

pub use live::Live;
pub use serve::ServeError;

use crate::budget::{Energy, Keeper};
use crate::config::{CloudConfig, Settings};
use crate::context::{MeteredWatch, PowerSource, Sampler};
use crate::execute::{LoadError, LocalModel, LocalZoo, ZooError};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::question::Question;
use crate::sessions::SessionLocks;
use crate::sight::Sight;
use crate::socket::Socket;
use crate::store::{OpenError, Opened, Store, StoreError, ratings};
use crate::views::{Views, ViewsConfigError};
use budgets::{Budgets, keep_synced};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tether_policies::budget::Resource;
use tether_policies::ratings::Ratings;
use tether_protocol::api::BudgetList;
use tether_protocol::context::Battery;
use tether_protocol::{SessionId, TurnRecord};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Turns under way, waiting ones included. Each holds a dialogue of at most a few MB.
const MAX_ACTIVE_TURNS: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}\n  fetch it: `tether models pull NAME`; or name another file: model.path; or use a cloud: [cloud]")]
    Model(#[from] LoadError),
    #[error("[[views]]: {0}")]
    Views(#[from] ViewsConfigError),
    #[error("[cloud]: {0}")]
    Cloud(#[from] crate::cloud::CloudError),
    #[error("[association]: {0}")]
    Sight(tether_models::ModelError),
    #[error("[policy]: {0}")]
    Policy(#[from] crate::policy::PolicyError),
    #[error(transparent)]
    Zoo(#[from] ZooError),
    #[error(transparent)]
    Ledger(#[from] OpenError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the daemon could not start: {0}")]
    Fault(String),
}

/// Everything that turns share.
pub struct Daemon {
    live: RwLock<Arc<Live>>,
    /// The default model, or why there is none.
    local: Result<Arc<LocalModel>, String>,
    /// Where there are two or more local models.
    zoo: Option<LocalZoo>,
    views: Mutex<Views>,
    // Before the budgets, so that the database is closed when their lease says that all is well.
    store: Store,
    budgets: Budgets,
    energy: Energy,
    sampler: Arc<Sampler>,
    question: Question,
    /// Where a CLIP is configured.
    sight: Option<Sight>,
    pace: Mutex<Pace>,
    /// Of the newest rated turns.
    ratings: Mutex<Arc<Ratings>>,
    /// Started where there is a cloud and the settings do not say it.
    metered: OnceLock<MeteredWatch>,
    sessions: SessionLocks,
    metrics: Metrics,
    places: Arc<Semaphore>,
    problems: Mutex<BTreeMap<Cow<'static, str>, String>>,
    started: Instant,
    started_unix_ms: i64,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    pub applied: Vec<&'static str>,
    /// Changed in the file, but only a restart takes it up.
    pub needs_restart: Vec<&'static str>,
}

/// Starts a daemon and serves until `shutdown`; then lets running answers end for a while.
///
/// # Errors
/// [`StartError`], each naming what to change.
pub async fn run(socket: Socket, settings: Settings, shutdown: CancellationToken) -> Result<(), StartError> {
    let daemon = Daemon::start(settings).await?;
    Ok(daemon.serve(&socket, shutdown).await?)
}

impl Daemon {
    /// Loads the model and opens the database. After this every request can be answered.
    ///
    /// # Errors
    /// A model that is missing is an error only if no cloud could answer instead.
    pub async fn start(settings: Settings) -> Result<Arc<Self>, StartError> {
        let started = Instant::now();
        let views = Views::new(settings.views.clone(), settings.images)?;
        let (ledger, model) = (settings.ledger.path.clone(), settings.model.clone());
        // Both block for as long as a disk takes; side by side, so that start to ready is the longer of the two.
        let limits = settings.ledger.limits;
        let ledger = tokio::task::spawn_blocking(move || Store::open_with(&ledger, limits));
        let local = tokio::task::spawn_blocking(move || model.map(|model| LocalModel::load_all(&model)));
        let clip = settings.clip.clone();
        let sight = tokio::task::spawn_blocking(move || clip.map(|folder| Sight::open(&folder)).transpose());
        let fault = |error: tokio::task::JoinError| StartError::Fault(error.to_string());
        let Opened { store, budgets: saved, mut notices } = ledger.await.map_err(fault)??;
        let budgets = Budgets::open(&settings, &store, saved, &mut notices).await;
        // Without them decisions are as good as the training alone made them.
        let ratings = store.ratings().await.unwrap_or_else(|error| {
            notices.push(format!("earlier ratings could not be read and do not count: {error}"));
            Ratings::default()
        });
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        let has_cloud = !matches!(settings.cloud, CloudConfig::None);
        let local = match local.await.map_err(fault)? {
            None => Err("no local model is configured (model.name = \"none\")".to_owned()),
            Some(Ok(models)) => Ok(models),
            Some(Err(error)) if has_cloud => {
                tracing::error!(%error, "no local model; only the cloud can answer");
                Err(error.to_string())
            }
            Some(Err(error)) => return Err(error.into()),
        };
        let (local, zoo) = local_models(local, &settings)?;
        let models = local.iter().chain(zoo.iter().flat_map(|zoo| {
            zoo.models().iter().filter(|other| local.as_ref().is_ok_and(|default| !Arc::ptr_eq(default, other)))
        }));
        for model in models {
            model.set_max_age(Duration::from_millis(settings.sessions.ttl_ms.unsigned_abs()));
            model.idle().map(|idle| tokio::spawn(LocalModel::unload_when_idle(idle)));
        }
        let source = PowerSource::new(&settings.power);
        let sampler = Arc::new(Sampler::start(source, settings.power.root.clone()));
        let energy = Energy::default();
        energy.set_meter(Some(sampler.clone()));
        let sight = sight.await.map_err(fault)?.map_err(StartError::Sight)?;
        let live = Live::new(settings)?;
        let question = Question::built_in().map_err(|error| StartError::Fault(error.to_string()))?;
        let daemon = Arc::new(Self {
            live: RwLock::new(Arc::new(live)),
            local,
            zoo,
            views: Mutex::new(views),
            store,
            budgets,
            energy,
            sampler,
            question,
            sight,
            pace: Mutex::default(),
            ratings: Mutex::new(Arc::new(ratings)),
            metered: OnceLock::new(),
            sessions: SessionLocks::default(),
            metrics: Metrics::new(),
            places: Arc::new(Semaphore::new(MAX_ACTIVE_TURNS)),
            problems: Mutex::new(notices.into_iter().map(|notice| (Cow::Borrowed("start"), notice)).collect()),
            started,
            started_unix_ms: unix_ms(),
        });
        tokio::spawn(keep_synced(Arc::downgrade(&daemon), daemon.budgets.0.clone()));
        daemon.allow_probes();
        daemon.watch_surroundings();
        Ok(daemon)
    }

    /// Takes up new settings for turns that start from now on.
    ///
    /// # Errors
    /// The new settings cannot work; the old ones stay.
    pub fn reload(&self, settings: Settings) -> Result<Reloaded, StartError> {
        let old = self.live();
        let mut reloaded = old.compare(&settings);
        let new = Live::reload(&old, settings)?;
        if old.settings.cloud != new.settings.cloud {
            // Another cloud has another pace.
            *self.pace() = Pace::default();
        }
        // A policy's files may have changed although their path has not.
        let swapped = old.policy.name() != new.policy.name() && !reloaded.applied.contains(&"policy");
        reloaded.applied.extend(swapped.then_some("policy"));
        self.budgets.configure(&new.settings.budgets);
        for model in self.local_models() {
            model.set_max_age(Duration::from_millis(new.settings.sessions.ttl_ms.unsigned_abs()));
        }
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.allow_probes();
        Ok(reloaded)
    }

    /// A link may be measured without a turn only where its bytes cost nothing and no budget counts them: such bytes are no
    /// turn's.
    pub(crate) fn allow_probes(&self) {
        let live = self.live();
        let counted = self.budgets().with_accounts(|accounts| {
            accounts.limits(Resource::UplinkBytes) || accounts.limits(Resource::DownlinkBytes)
        });
        let paid = self.metered(&live).value() == Some(&true);
        if let Ok(cloud) = live.cloud() {
            cloud.allow_probes(live.settings.link.probe && !counted && !paid);
        }
    }

    /// The settings of this moment; a turn keeps the ones that it began with.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The default local model.
    pub fn local(&self) -> Result<&Arc<LocalModel>, &String> {
        self.local.as_ref()
    }

    /// Ends the local model's thread, which writes what it keeps to disk if that is wanted.
    async fn close_model(self: &Arc<Self>) {
        let daemon = self.clone();
        // A panic in there was reported when it happened.
        let _ = tokio::task::spawn_blocking(move || daemon.local_models().for_each(|model| model.close())).await;
    }

    /// Drops what the local model computed of a session, in memory and on disk.
    pub(crate) async fn forget_computed(self: &Arc<Self>, session: SessionId) {
        let daemon = self.clone();
        let forget = move || daemon.local_models().for_each(|model| model.forget(&session));
        let _ = tokio::task::spawn_blocking(forget).await;
    }

    /// The local models, where there are several.
    pub fn zoo(&self) -> Option<&LocalZoo> {
        self.zoo.as_ref()
    }

    /// Every local model; the default one first.
    pub(crate) fn local_models(&self) -> impl Iterator<Item = &Arc<LocalModel>> {
        let default = self.local.as_ref().ok();
        let others = self.zoo.iter().flat_map(|zoo| zoo.models());
        default
            .into_iter()
            .chain(others.filter(move |other| default.is_none_or(|default| !Arc::ptr_eq(default, other))))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn budgets(&self) -> &Keeper {
        &self.budgets.0
    }

    /// The budgets as they are now.
    pub(crate) fn budget_status(&self) -> BudgetList {
        let battery = self.sampler.battery();
        self.budgets().status(battery.value().and_then(Battery::draining_percent))
    }

    /// The newest readings of battery, power and load.
    pub(crate) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What tells a question's task and how much each view matters to it.
    pub(crate) fn question(&self) -> &Question {
        &self.question
    }

    /// The image-text encoder, where one is configured.
    pub(crate) fn sight(&self) -> Option<&Sight> {
        self.sight.as_ref()
    }

    /// How both sides have answered lately.
    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What people said of earlier answers, where that may correct the policy.
    pub(crate) fn ratings(&self, live: &Live) -> Arc<Ratings> {
        match live.settings.learn_from_ratings {
            true => self.ratings.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            false => Arc::default(),
        }
    }

    /// Takes up the rating of a turn: a new one at once, one that replaces another by reading all of them again.
    pub(crate) async fn learn(&self, turn: &TurnRecord, replaced: Option<f64>) -> Result<(), StoreError> {
        let read = match replaced {
            Some(_) => Some(self.store.ratings().await?),
            None => None,
        };
        let mut ratings = self.ratings.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(read) => *ratings = Arc::new(read),
            None => ratings::add(Arc::make_mut(&mut ratings), turn),
        }
        Ok(())
    }

    /// Where a meter of the device's energy is plugged in.
    pub fn energy(&self) -> &Energy {
        &self.energy
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The time that turns count in, see [`Keeper::now_ms`].
    pub(crate) fn now_ms(&self) -> i64 {
        self.budgets().now_ms()
    }

    pub(crate) fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sessions(&self) -> &SessionLocks {
        &self.sessions
    }

    pub(crate) fn places(&self) -> &Arc<Semaphore> {
        &self.places
    }

    pub(crate) fn active_turns(&self) -> usize {
        MAX_ACTIVE_TURNS - self.places.available_permits()
    }

    pub(crate) fn started(&self) -> (Instant, i64) {
        (self.started, self.started_unix_ms)
    }

    /// Names for `model` in a request.
    pub(crate) fn model_names(&self, live: &Live) -> Vec<String> {
        let local = self.local_models().map(|model| model.name().to_owned());
        let cloud = live.cloud().ok().map(|_| "cloud".to_owned());
        ["auto".to_owned()].into_iter().chain(local).chain(cloud).collect()
    }

    /// Notes what does not work, for `/v1/status`, and says it loudly in the log.
    pub(crate) fn report(&self, what: &'static str, problem: &str) {
        tracing::error!(what, problem, "the daemon goes on without");
        self.metrics.failed(what);
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.insert(what.into(), problem.to_owned());
    }

    pub(crate) fn clear_problem(&self, what: &'static str) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// Notes what does not work, or with no words that it does, without a log line.
    fn set_problem(&self, what: impl Into<Cow<'static, str>>, problem: String) {
        let what = what.into();
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem.is_empty() {
            true => problems.remove(&what),
            false => problems.insert(what, problem),
        };
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A ledger that cannot be written does not stop answers; that it cannot is told.
    pub(crate) fn ledger_result(&self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.clear_problem("ledger"),
            Err(error) => self.report("ledger", &error.to_string()),
        }
    }
}

type LocalModels = (Result<Arc<LocalModel>, String>, Option<LocalZoo>);

/// The first model answers where nothing else is asked for; two or more are a zoo, whose state lies beside the ledger.
fn local_models(models: Result<Vec<Arc<LocalModel>>, String>, settings: &Settings) -> Result<LocalModels, ZooError> {
    let models = match models {
        Ok(models) => models,
        Err(why) => return Ok((Err(why), None)),
    };
    let default = models.first().cloned().ok_or_else(|| "no local model is configured".to_owned());
    let zoo = match (models.len(), &settings.model) {
        (2.., Some(model)) => {
            let file = settings.ledger.path.with_file_name("zoo.json");
            Some(LocalZoo::open(models, model.zoo_alpha, file)?)
        }
        _ => None,
    };
    Ok((default, zoo))
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
