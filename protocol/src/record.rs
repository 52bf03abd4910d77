//! The append-only record of one turn: what was known, permitted, chosen, spent and rated.

use crate::action::{Action, Route};
use crate::context::Context;
use crate::cost::Cost;
use crate::id::{SessionId, TurnId, ViewName};
use crate::wire::Vision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why an action was chosen. `code` has few values and labels metrics; `detail` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub detail: String,
}

impl Reason {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
}

/// Tokens of one answer, as counted by the model that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// Who says what the task of a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskSource {
    /// `tether.task` of the request.
    Request,
    /// The classifier, from the text of the newest message.
    Text,
}

impl TaskSource {
    pub fn as_str(self) -> &'static str {
        match self {
            TaskSource::Request => "request",
            TaskSource::Text => "text",
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    Stop,
    Length,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    Answered {
        finish_reason: FinishReason,
    },
    /// The client went away before the answer was complete.
    Cancelled,
    Failed {
        error: String,
    },
    /// No action was permitted, or none that was could be afforded: nobody was asked, and nothing was reserved or spent.
    /// The reason says why.
    Refused {
        /// What was permitted and could not be afforded.
        unaffordable: Vec<Unaffordable>,
        /// When one of these may be possible, in milliseconds since the Unix epoch; `None`: waiting alone does not help.
        possible_unix_ms: Option<i64>,
    },
    /// Started, and never heard of again: the daemon stopped in the middle.
    Unfinished,
}

impl Outcome {
    /// Its name in records and exports, and as a label of metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Answered { .. } => "answered",
            Outcome::Cancelled => "cancelled",
            Outcome::Failed { .. } => "failed",
            Outcome::Refused { .. } => "refused",
            Outcome::Unfinished => "unfinished",
        }
    }
}

/// An action that nothing was left for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unaffordable {
    pub action: Action,
    pub predicted: Cost,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// The decision alone, features included.
    pub decision_us: u64,
    /// Waiting for the model.
    pub queue_ms: Option<f64>,
    /// From the request's arrival to the first token.
    pub first_token_ms: Option<f64>,
    /// From the request's arrival to the end.
    pub total_ms: Option<f64>,
}

/// What went up with a cloud turn, as it was predicted and as it was.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Upload {
    /// How long it was predicted to take until all of it was acknowledged: as likely longer as shorter, and nine times in ten
    /// between the other two. Unknown before the link's rate is.
    pub predicted_ms: Option<f64>,
    pub predicted_low_ms: Option<f64>,
    pub predicted_high_ms: Option<f64>,
    /// `None`: nobody saw its end.
    pub measured_ms: Option<f64>,
    pub pictures: Vec<SentPicture>,
}

/// The form in which a picture travelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentPicture {
    pub view: ViewName,
    /// The longer side was scaled down to this.
    pub max_side_px: u32,
    pub jpeg_quality: u8,
    /// Before it was encoded.
    pub estimated_bytes: u64,
    pub bytes: u64,
}

/// One turn. Text and images are not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    pub turn_id: TurnId,
    pub session: Option<SessionId>,
    /// Who asked: the peer credentials of the socket, such as `uid=1000 pid=4711`.
    pub client: String,
    /// Milliseconds since the Unix epoch.
    pub started_unix_ms: i64,
    /// The task category; `None`: not known.
    pub task: Option<String>,
    #[serde(default)]
    pub task_source: Option<TaskSource>,
    pub local_only: bool,

    // What was known and permitted; of a refused turn nothing was, and its action and route say nothing.
    pub context: Context,
    pub permitted: Vec<Action>,

    // What was chosen, and why.
    pub action: Action,
    pub policy: String,
    pub reason: Reason,
    /// The probability with which the policy chose this action here.
    pub propensity: f64,
    /// The policy's value of each permitted action, in the order of `permitted`, where it has values.
    pub values: Option<Vec<f64>>,
    pub predicted: Cost,
    /// The predicted cost of each permitted action, in the order of `permitted`.
    #[serde(default)]
    pub predicted_costs: Vec<Cost>,
    /// The probability of each permitted action, in the order of `permitted`, where the policy tells them.
    #[serde(default)]
    pub probabilities: Option<Vec<f64>>,
    /// What was left of each budget before this turn, by the budget's name, in its resource's unit.
    #[serde(default)]
    pub budget_remaining: BTreeMap<String, f64>,
    /// The most that the turn might cost, held back from the budgets until it was settled; `None`: no budgets.
    #[serde(default)]
    pub reserved: Option<Cost>,

    // What happened. `route` and `views` tell what was done, which after a fallback is not what was chosen.
    pub route: Route,
    /// Views whose bytes left the device.
    pub views: Vec<ViewName>,
    /// How the model that answered saw the images that travelled; `None`: none did, or nobody told.
    #[serde(default)]
    pub vision: Option<Vision>,
    pub model: Option<String>,
    /// Set when the chosen route failed before the first token and another answered.
    pub fallback: Option<String>,
    pub measured: Cost,
    /// Of the last attempt at the cloud, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// Where `energy_j` comes from: `measured`, `simulated` (by a simulated battery or a replay), `modelled`, `unknown`, or
    /// `none`: the turn was refused.
    pub energy_source: String,
    pub usage: Usage,
    /// Prompt tokens that the local model had computed for an earlier turn; unknown for the cloud.
    #[serde(default)]
    pub cached_tokens: Option<u32>,
    /// The model that answered did not count its tokens; `usage` and the USD were estimated from bytes.
    #[serde(default)]
    pub usage_estimated: bool,
    /// Messages that did not fit into the model's context and were left out.
    pub dropped_messages: u32,
    pub timings: Timings,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// A rating in 0..1, once somebody gave one.
    pub rating: Option<f64>,
}

impl TurnRecord {
    /// As the ledger keeps it. Here and not where it is written, so that it is compiled with this crate's optimisation.
    ///
    /// # Errors
    /// None that is known: every part has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
