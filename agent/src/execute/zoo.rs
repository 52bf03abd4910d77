//! Several local models under `model = "auto"`: MESS+ chooses which one answers a local turn, so that the agreed
//! satisfaction is kept at the least energy. All of them stay loaded.

use super::LocalModel;
use crate::daemon::unix_ms;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tether_policies::mess::{
    Answer, Call, Decision, Encoder, HashedEncoder, ModelSpec, ModelStatus, Params, RequestFeatures, Router, Snapshot,
    TenantConfig, TenantStatus,
};
use tether_protocol::api::{ZooModelStatus, ZooStatus};
use tether_protocol::record::{Outcome, TurnRecord};
use tether_protocol::{Route, TurnId};

/// What is learned is written to its file this often at most, and at the end; a kill loses no more than that.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// One device, one level.
const TENANT: &str = "device";
/// English text; only to tell which models' contexts a prompt can fit.
const BYTES_PER_TOKEN: usize = 4;

/// The local models, smallest file first: a token costs about the reading of the weights.
pub struct LocalZoo {
    models: Vec<Arc<LocalModel>>,
    alpha: f64,
    state: Mutex<State>,
    file: PathBuf,
}

struct State {
    router: Router,
    /// Joules a second of answering, once an answer's energy was measured. Costs are in seconds before, and in joules
    /// from then on.
    watts: Option<f64>,
    saved: Instant,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    watts: Option<f64>,
    snapshot: Snapshot,
}

/// Which model is to answer a turn; it counts once [`LocalZoo::begin`] is told.
pub(crate) struct ZooChoice {
    pub(crate) model: Arc<LocalModel>,
    decision: Decision,
    features: RequestFeatures,
    permitted: Vec<bool>,
    u: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    #[error("model.zoo: {0}")]
    Zoo(#[from] tether_policies::mess::ZooError),
    #[error("model.zoo: what was learned cannot be set aside: {0}")]
    Io(#[from] io::Error),
}

impl LocalZoo {
    /// Takes up what `file` holds, if it is there; a damaged file is set aside with a message.
    ///
    /// # Errors
    /// Two models of one name, or an alpha that cannot be.
    pub fn open(mut models: Vec<Arc<LocalModel>>, alpha: f64, file: PathBuf) -> Result<Self, ZooError> {
        models.sort_by_key(|model| model.info().file_bytes);
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        let level = TenantConfig::new(alpha).map_err(tether_policies::mess::ZooError::Tenant)?;
        let specs = names.iter().map(|name| spec(name)).collect();
        // An answer that nobody saw is rated by nobody.
        let params = Params { extra: 0.0, ..Params::default() };
        let fresh = Router::new(specs, HashedEncoder.width(), level.clone(), params)?;
        let (mut router, watts) = read(&file)?.unwrap_or((fresh, None));
        agree(&mut router, &names, level)?;
        tracing::info!(
            models = names.join(","),
            alpha,
            "local turns go to the model that keeps the level at the least cost"
        );
        Ok(Self { models, alpha, state: Mutex::new(State { router, watts, saved: Instant::now() }), file })
    }

    pub fn models(&self) -> &[Arc<LocalModel>] {
        &self.models
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model for a text, of `prompt_bytes` with the dialogue before it; nothing is remembered yet.
    pub(crate) fn choose(&self, turn_id: &TurnId, text: &str, prompt_bytes: usize, u: f64) -> Option<ZooChoice> {
        let tokens = prompt_bytes / BYTES_PER_TOKEN;
        let fits: Vec<bool> = self.models.iter().map(|model| tokens < model.context_tokens() as usize).collect();
        // Where the prompt fits nobody, each may say so itself.
        let permitted = if fits.contains(&true) { fits } else { vec![true; self.models.len()] };
        let features = HashedEncoder.features(text, u32::try_from(tokens).unwrap_or(u32::MAX).max(1));
        let call = call(turn_id, &features, &permitted, u);
        let state = self.state();
        let choice = state.router.decide(&call).inspect_err(|problem| tracing::warn!(%problem, "not routed")).ok()?;
        let decision = state.router.decision(&choice);
        drop(state);
        let model = self.models.iter().find(|model| model.name() == decision.model)?.clone();
        tracing::info!(
            %turn_id, model = decision.model, reason = decision.reason.as_str(),
            predicted_satisfaction = choice.satisfaction, predicted_cost = choice.cost, "local model chosen"
        );
        Some(ZooChoice { model, decision, features, permitted, u })
    }

    /// The chosen model begins to answer.
    pub(crate) fn begin(&self, turn_id: &TurnId, choice: &ZooChoice) {
        let call = call(turn_id, &choice.features, &choice.permitted, choice.u);
        if let Err(problem) = self.state().router.record(&call, &choice.decision) {
            tracing::warn!(%turn_id, %problem, "this turn teaches the local zoo nothing");
        }
    }

    /// A turn is over: what it cost is learned, or its choice is taken back. Turns that were not chosen for here are
    /// passed over.
    pub(crate) fn settled(&self, record: &TurnRecord) {
        let mut state = self.state();
        let turn = record.turn_id.as_str();
        let answered = record.route == Route::Local && matches!(record.outcome, Outcome::Answered { .. });
        let (Some(model), true) = (record.model.as_deref(), answered) else {
            state.router.withdraw(turn);
            return;
        };
        let cost = state.cost(seconds(record), record.measured.energy_j);
        // A turn that named its model was never chosen for: that is no news.
        let _ = state.router.answered(turn, model, Answer { cost, tokens: None }, unix_ms());
    }

    /// Learns a rating, once; whether the turn was one of the zoo's.
    pub(crate) fn rate(&self, turn_id: &TurnId, rating: f64) -> bool {
        let mut state = self.state();
        let rated = state.router.rate_served(TENANT, turn_id.as_str(), rating, unix_ms());
        if rated.is_ok() && state.saved.elapsed() >= SAVE_EVERY {
            state.saved = Instant::now();
            let (saved, file) = (state.save(), self.file.clone());
            drop(state);
            std::thread::spawn(move || keep(&saved, &file));
        }
        rated.is_ok()
    }

    /// How the level is kept, and what was learned of each model.
    pub fn status(&self) -> ZooStatus {
        let state = self.state();
        let level: Option<TenantStatus> = state.router.tenant_status(TENANT);
        let model = |status: ModelStatus| {
            let model = self.models.iter().find(|model| model.name() == status.name);
            let ModelStatus { name, calls, labels, satisfaction, mean_cost } = status;
            let state = model.map(|model| model.state().0).unwrap_or_default();
            ZooModelStatus { name, calls, labels, satisfaction, mean_cost, state }
        };
        ZooStatus {
            alpha: self.alpha,
            answered: level.as_ref().map_or(0, |level| level.answered),
            rated: level.as_ref().map_or(0, |level| level.rated),
            satisfaction: level.as_ref().and_then(|level| level.satisfaction),
            satisfaction_at_least: level.as_ref().map_or(0.0, |level| level.satisfaction_at_least),
            queue: level.as_ref().map_or(0.0, |level| level.queue),
            cost_unit: if state.watts.is_some() { "J" } else { "s" }.to_owned(),
            shadow_price: level.as_ref().and_then(|level| level.shadow_price),
            warning: level.and_then(|level| level.warning),
            models: state.router.model_status().into_iter().map(model).collect(),
        }
    }
}

impl Drop for LocalZoo {
    fn drop(&mut self) {
        let saved = self.state().save();
        keep(&saved, &self.file);
    }
}

impl State {
    /// Joules where they are known, and seconds until then; one of the two for all, so that costs compare.
    fn cost(&mut self, seconds: f64, joules: Option<f64>) -> f64 {
        let measured = joules.filter(|joules| joules.is_finite() && *joules > 0.0);
        if let (Some(joules), None) = (measured, self.watts)
            && seconds > 0.0
        {
            let watts = joules / seconds;
            let names: Vec<String> = self.router.model_names().map(str::to_owned).collect();
            for name in names {
                // The factor was checked above.
                let _ = self.router.reprice(&name, None, watts);
            }
            self.watts = Some(watts);
        }
        measured.unwrap_or(seconds * self.watts.unwrap_or(1.0))
    }

    fn save(&self) -> Saved {
        Saved { watts: self.watts, snapshot: self.router.snapshot(HashedEncoder.name()) }
    }
}

/// The time a model worked on an answer, without its wait.
fn seconds(record: &TurnRecord) -> f64 {
    let (total, queue) = (record.timings.total_ms.unwrap_or(0.0), record.timings.queue_ms.unwrap_or(0.0));
    ((total - queue) / 1e3).max(1e-3)
}

fn spec(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_owned(), price: None }
}

fn call<'a>(turn_id: &'a TurnId, features: &'a RequestFeatures, permitted: &'a [bool], u: f64) -> Call<'a> {
    Call { tenant: TENANT, turn: turn_id.as_str(), features, permitted, now_ms: unix_ms(), u }
}

/// Brings what was read to the models and the level of today; models that stay keep what was learned of them.
fn agree(router: &mut Router, names: &[&str], level: TenantConfig) -> Result<(), tether_policies::mess::ZooError> {
    for (rung, name) in names.iter().enumerate() {
        if !router.model_names().any(|known| known == *name) {
            router.add_model(spec(name), rung)?;
        }
    }
    let gone: Vec<String> = router.model_names().filter(|known| !names.contains(known)).map(str::to_owned).collect();
    gone.iter().try_for_each(|name| router.remove_model(name))?;
    router.set_default_tenant(level)
}

fn read(file: &Path) -> io::Result<Option<(Router, Option<f64>)>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let saved = serde_json::from_str::<Saved>(&text).map_err(|problem| problem.to_string());
    let restored = saved.and_then(|Saved { watts, snapshot }| {
        let router = Router::restore(snapshot, HashedEncoder.name()).map_err(|problem| problem.to_string())?;
        Ok((router, watts.filter(|watts| watts.is_finite() && *watts > 0.0)))
    });
    match restored {
        Ok(restored) => Ok(Some(restored)),
        Err(problem) => {
            let aside = file.with_extension("json.damaged");
            tracing::error!(file = %file.display(), problem, moved_to = %aside.display(),
                "what the local zoo had learned is damaged and was set aside; it is learned again");
            std::fs::rename(file, aside)?;
            Ok(None)
        }
    }
}

fn keep(saved: &Saved, file: &Path) {
    if let Err(problem) = write(saved, file) {
        tracing::error!(file = %file.display(), %problem, "what the local zoo learned could not be written");
    }
}

/// Whole or not at all.
fn write(saved: &Saved, file: &Path) -> io::Result<()> {
    let part = file.with_extension("part");
    let mut out = std::fs::File::create(&part)?;
    out.write_all(&serde_json::to_vec(saved)?)?;
    out.sync_all()?;
    std::fs::rename(part, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let names = vec![spec("small"), spec("large")];
        let level = TenantConfig::new(0.8).unwrap();
        let router = Router::new(names, HashedEncoder.width(), level, Params::default()).unwrap();
        State { router, watts: None, saved: Instant::now() }
    }

    #[test]
    fn costs_are_seconds_until_joules_are_known_and_stay_comparable() {
        let mut state = state();
        assert_eq!(state.cost(2.0, None), 2.0);
        assert_eq!(state.cost(2.0, Some(f64::NAN)), 2.0, "a reading that is no number is unknown");
        assert_eq!(state.cost(2.0, Some(10.0)), 10.0);
        assert_eq!(state.watts, Some(5.0));
        assert_eq!(state.cost(3.0, None), 15.0, "an unmeasured answer at the power that was measured");
    }

    #[test]
    fn what_was_learned_is_read_again_for_the_models_of_today_and_damage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zoo.json");
        assert!(read(&file).unwrap().is_none());
        let mut state = state();
        state.cost(1.0, Some(4.0));
        write(&state.save(), &file).unwrap();
        let (mut router, watts) = read(&file).unwrap().unwrap();
        assert_eq!(watts, Some(4.0));
        agree(&mut router, &["small", "middle"], TenantConfig::new(0.9).unwrap()).unwrap();
        assert_eq!(router.model_names().collect::<Vec<_>>(), ["small", "middle"]);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &text[..text.len() / 2]).unwrap();
        assert!(read(&file).unwrap().is_none());
        assert!(!file.exists() && folder.path().join("zoo.json.damaged").exists());
    }
}
