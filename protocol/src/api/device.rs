//! Everything beside the answers: models, feedback, pushed views, status, turns.

use super::budget::BudgetStatus;
use crate::context::{Battery, Link, Load, Machine, Power};
use crate::id::ViewName;
use crate::reading::Reading;
use crate::record::TurnRecord;
use crate::{ActionSpace, ViewSet};
use serde::{Deserialize, Serialize};

/// `GET /v1/models`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`
    pub object: String,
    pub data: Vec<ModelCard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    pub id: String,
    /// `model`
    pub object: String,
    /// Seconds since the Unix epoch; the daemon's start.
    pub created: i64,
    /// `tether` for `auto`, `local`, or `cloud`.
    pub owned_by: String,
}

/// `POST /v1/feedback`: a rating in 0..1 joins the turn's record; a second one replaces the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackRequest {
    pub turn_id: String,
    pub rating: f64,
}

/// The answer to feedback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub turn_id: String,
    pub rating: f64,
    /// The rating that this one replaced.
    pub replaced: Option<f64>,
    /// What the gateway that answered made of it; `None` for a local answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRating>,
}

/// What became of a rating at the gateway. The ledger has it in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayRating {
    /// It teaches the gateway's routing; a second rating of the turn does not.
    Recorded,
    /// The cloud does not learn from ratings.
    Unsupported,
    /// The gateway does not know the turn (any more): it was rated too late, or did not choose the model.
    UnknownTurn,
    /// The gateway did not reply in time, so it does not learn from this rating.
    Unreachable,
}

/// The answer to `PUT /v1/cameras/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraPushed {
    pub view: ViewName,
    pub width: u32,
    pub height: u32,
    pub bytes: u64,
}

/// The answer to `PUT /v1/sensors/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorPushed {
    pub sensor: String,
    pub bytes: u64,
}

/// The query of `GET /v1/turns`: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnsQuery {
    /// 1 to 1000; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only turns before this turn id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// `GET /v1/turns`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnList {
    pub turns: Vec<TurnRecord>,
    /// Give it as `before` for the next page; null on the last page.
    pub next_before: Option<String>,
}

impl TurnList {
    /// A page of at most `limit` turns. One more than that is asked for: it tells whether there is a next page.
    pub fn page(mut turns: Vec<TurnRecord>, limit: u32) -> Self {
        let more = turns.len() > limit as usize;
        turns.truncate(limit as usize);
        let next_before = turns.last().filter(|_| more).map(|turn| turn.turn_id.to_string());
        Self { turns, next_before }
    }
}

/// `GET /version`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    /// The QUIC protocol's version, as in its ALPN.
    pub protocol: String,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_s: f64,
    /// `None`: no local model; `model_problem` says why.
    pub model: Option<LocalModelStatus>,
    pub model_problem: Option<String>,
    /// Where several local models answer under `model = "auto"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zoo: Option<ZooStatus>,
    pub cloud: CloudStatus,
    #[serde(default)]
    pub battery: Reading<Battery>,
    #[serde(default)]
    pub power: Reading<Power>,
    #[serde(default)]
    pub machine: Reading<Machine>,
    pub policy: String,
    /// Nothing leaves this device at all.
    pub local_only: bool,
    /// How many actions the views give: 1 + 2^X.
    pub actions: u32,
    pub views: Vec<ViewStatus>,
    /// Sensors pushed so far, with their ages.
    pub sensors: Vec<ViewStatus>,
    pub sessions: u64,
    /// Turns in the ledger.
    pub turns: u64,
    /// Turns being answered now.
    pub active_turns: u32,
    /// `GET /v1/budgets` says more.
    #[serde(default)]
    pub budgets: Vec<BudgetStatus>,
    /// Of this process; `None`: the system does not tell.
    #[serde(default)]
    pub memory: Option<MemoryStatus>,
    /// What went wrong without ending the daemon, such as a ledger that cannot be written.
    pub problems: Vec<String>,
}

/// The local models among which MESS+ chooses, and how the agreed satisfaction is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZooStatus {
    /// The mean satisfaction to keep.
    pub alpha: f64,
    pub answered: u64,
    pub rated: u64,
    /// The mean of the ratings; `None` before the first.
    pub satisfaction: Option<f64>,
    /// The mean over all answers is at least this, rated or not.
    pub satisfaction_at_least: f64,
    pub queue: f64,
    /// `J`, or `s` as long as no answer's energy was known.
    pub cost_unit: String,
    /// Cost per satisfied answer at which the models are compared now.
    pub shadow_price: Option<f64>,
    /// Such as an alpha that no model reaches.
    pub warning: Option<String>,
    /// Smallest first.
    pub models: Vec<ZooModelStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZooModelStatus {
    pub name: String,
    /// Turns that it was chosen for.
    pub calls: u64,
    /// Ratings learned, forgetting after a change.
    pub labels: f64,
    pub satisfaction: Option<f64>,
    /// In the zoo's `cost_unit`.
    pub mean_cost: Option<f64>,
    pub state: ModelState,
}

/// Memory of the daemon's process, mapped files that are in memory included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    pub resident_bytes: u64,
    /// The most since the process started.
    pub peak_resident_bytes: u64,
}

/// Whether the local model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    #[default]
    Loaded,
    /// A turn has come that may need it.
    Loading,
    /// Nobody needed it for `model.keep_alive_s`; the next turn loads it.
    Unloaded,
}

/// What the local model keeps of earlier turns, and what that saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelCacheStatus {
    /// Dialogues whose keys and values are in memory.
    pub sequences: u64,
    /// Of their pages, those that several share once.
    pub bytes: u64,
    pub max_bytes: u64,
    /// Dialogues that had to leave memory so far.
    pub evicted: u64,
    /// Dialogues on disk, see `model.cache_disk_bytes`.
    pub disk_sequences: u64,
    pub disk_bytes: u64,
    /// Dialogues that were read back from disk so far.
    pub restored: u64,
    /// Prompt tokens of all answers so far, and those of them that were not computed again.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Tokens guessed from what was said before, and those of them that the model then said.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalModelStatus {
    pub name: String,
    pub path: String,
    pub architecture: String,
    pub quantization: String,
    pub parameter_count: u64,
    pub file_bytes: u64,
    pub context_tokens: u64,
    pub load: Load,
    /// From the start of loading to the first possible token.
    pub load_ms: f64,
    #[serde(default)]
    pub state: ModelState,
    /// After how long without a turn it is unloaded; `None`: never.
    #[serde(default)]
    pub keep_alive_s: Option<f64>,
    #[serde(default)]
    pub cache: ModelCacheStatus,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudStatus {
    /// `none`, `quic` or `openai`.
    pub kind: String,
    pub address: Option<String>,
    pub link: Reading<Link>,
    /// Whether bytes cost money there.
    #[serde(default)]
    pub metered: Reading<bool>,
    /// What was sent only to know the link's rate.
    #[serde(default)]
    pub probe_bytes: u64,
    /// Why the cloud that is configured cannot be used now.
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub fix: Option<String>,
}

/// A view or a sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewStatus {
    pub name: String,
    /// `camera`, `sensors` (the bundle as a view) or `sensor` (one of the bundle).
    pub kind: String,
    pub local_only: bool,
    /// Bytes held and their age; unknown if nothing was pushed or it is too old.
    pub bytes: Reading<u64>,
}

impl TurnRecord {
    /// The views of this record as a set of the present space; views that are no longer configured are left out.
    pub fn view_set(&self, space: &ActionSpace) -> ViewSet {
        let known = self.views.iter().filter_map(|view| space.view_index(view.as_str()));
        known.fold(ViewSet::EMPTY, ViewSet::with)
    }
}
