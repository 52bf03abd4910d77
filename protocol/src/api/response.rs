//! Answers: one object, or a stream of chunks.

use crate::action::Route;
use crate::id::{TurnId, ViewName};
use crate::record::{FinishReason, TaskSource, Upload, Usage};
use crate::wire::Vision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    pub id: String,
    /// `chat.completion`
    pub object: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
    /// The model that answered.
    pub model: String,
    pub choices: Vec<Choice>,
    pub usage: UsageBody,
    pub tether: TetherAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub index: u32,
    pub message: AnswerMessage,
    /// Always null: refused when asked for.
    pub logprobs: Option<()>,
    pub finish_reason: FinishReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerMessage {
    pub role: String,
    pub content: String,
    pub refusal: Option<String>,
}

/// One event of a streamed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    pub id: String,
    /// `chat.completion.chunk`
    pub object: String,
    pub created: i64,
    pub model: String,
    /// One, or none in the chunk that carries the usage.
    pub choices: Vec<ChunkChoice>,
    /// Absent unless `stream_options.include_usage`; then null in every chunk but the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageBody>>,
    /// In the first chunk and in the last one, which adds the costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tether: Option<TetherAnswer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkChoice {
    pub index: u32,
    pub delta: Delta,
    pub logprobs: Option<()>,
    /// Null in every chunk but the last with a choice.
    pub finish_reason: Option<FinishReason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageBody {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    /// Absent where the model that answered does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Prompt tokens that were computed for an earlier turn, and not again.
    pub cached_tokens: u32,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, completion_tokens } = usage;
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: None }
    }
}

/// The response extension: where the answer was made, what left the device, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TetherAnswer {
    pub turn_id: TurnId,
    pub route: Route,
    /// Views whose bytes left the device for this answer.
    pub views: Vec<ViewName>,
    /// How the model that answered saw the images that travelled; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<Vision>,
    /// A word for programs, such as `views_needed`.
    pub reason: String,
    /// The same for people.
    pub reason_detail: String,
    /// Set when the chosen route failed before the first token: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The task category that the policy saw, and who says so; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_source: Option<TaskSource>,
    pub policy: String,
    /// The probability with which the policy chose this action.
    pub propensity: f64,
    /// The policy's value of each permitted action, in the order of the record's `permitted`, from policies that have
    /// values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<f64>>,
    pub decision_us: u64,
    /// What the answer cost; in a stream only in the last chunk.
    #[serde(flatten)]
    pub costs: Option<TetherCosts>,
}

/// What one answer cost. `null` is unknown, not zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TetherCosts {
    /// From the request's arrival to the last token.
    pub latency_ms: f64,
    pub usd: Option<f64>,
    pub joules: Option<f64>,
    /// `measured`, `modelled` or `unknown`.
    pub joules_source: String,
    pub uplink_bytes: Option<u64>,
    pub downlink_bytes: Option<u64>,
    /// What went up: how long that took, and how large the pictures were made for the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// From the request's arrival to the first token.
    pub first_token_ms: Option<f64>,
    /// The cloud did not count its tokens: `usage` and `usd` are estimates from bytes.
    #[serde(default)]
    pub usage_estimated: bool,
    /// Messages left out because the model's context was full.
    pub dropped_messages: u32,
    /// Images of earlier messages: a dialogue's memory is text.
    pub dropped_images: u32,
    /// Why the ledger and the session's memory could not be written; it is tried again with the next turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_recorded: Option<String>,
    /// What is left of each budget, by its name; empty without budgets.
    pub budget_remaining: BTreeMap<String, f64>,
}
