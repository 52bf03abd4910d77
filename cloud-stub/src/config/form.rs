//! What people write. Every key is optional or has a default in `resolve`; a key that is not here is refused.

use serde::Deserialize;
use std::path::PathBuf;
use tether_protocol::openai::MaxTokensName;
use tether_protocol::wire::Vision;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    pub listen: Option<String>,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    #[serde(default)]
    pub tokens: Vec<TokenForm>,
    pub metrics: Option<String>,
    pub drain_ms: Option<u64>,
    pub turn_limit_ms: Option<u64>,
    #[serde(default)]
    pub log: LogForm,
    #[serde(default)]
    pub zoo: Vec<BackendForm>,
    pub routing: Option<RoutingForm>,
    #[serde(default)]
    pub tenants: Vec<TenantForm>,
    pub state: Option<StateForm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingForm {
    pub alpha: Option<f64>,
    pub models: Option<Vec<String>>,
    #[serde(default)]
    pub encoder: EncoderForm,
    // sentence
    pub encoder_weights: Option<PathBuf>,
    pub encoder_tokenizer: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderForm {
    #[default]
    Hashed,
    Sentence,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantForm {
    pub name: String,
    pub alpha: Option<f64>,
    pub models: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateForm {
    #[serde(default)]
    pub kind: StateKindForm,
    // file, files
    pub path: Option<PathBuf>,
    // redis
    pub url: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKindForm {
    #[default]
    File,
    Files,
    Memory,
    Redis,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenForm {
    pub name: String,
    pub sha256: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogForm {
    pub level: Option<String>,
    #[serde(default)]
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindForm {
    Candle,
    #[serde(rename = "openai")]
    OpenAi,
    Scripted,
}

/// One `[[zoo]]` entry. The keys of one kind are refused for the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendForm {
    pub name: String,
    pub kind: KindForm,
    pub vision: Option<Vision>,
    pub context_tokens: Option<u32>,
    pub concurrency: Option<usize>,
    pub queue: Option<usize>,
    pub max_tokens: Option<u32>,
    pub default_max_tokens: Option<u32>,
    pub first_token_timeout_ms: Option<u64>,
    pub token_timeout_ms: Option<u64>,
    #[serde(default)]
    pub usd_per_million_prompt_tokens: f64,
    #[serde(default)]
    pub usd_per_million_completion_tokens: f64,
    #[serde(default)]
    pub usd_per_request: f64,
    #[serde(default)]
    pub usd_per_image: f64,

    /// candle: a registry name or a path; openai: the server's name for the model.
    pub model: Option<String>,
    // candle
    pub threads: Option<usize>,
    pub on_context_full: Option<OnContextFullForm>,
    // openai
    pub base_url: Option<String>,
    pub api_key_file: Option<PathBuf>,
    pub api_key_env: Option<String>,
    pub ca: Option<PathBuf>,
    pub max_tokens_name: Option<MaxTokensName>,
    // scripted
    pub script: Option<ScriptForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnContextFullForm {
    Error,
    DropOldest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptForm {
    pub answer: Option<String>,
    pub answer_tokens: Option<u32>,
    #[serde(default)]
    pub first_token_ms: u64,
    #[serde(default)]
    pub token_ms: u64,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub failed_probes: u32,
    #[serde(default)]
    pub faults: Vec<FaultForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultForm {
    pub kind: FaultKindForm,
    pub code: Option<String>,
    pub after_tokens: Option<usize>,
    pub probability: Option<f64>,
    pub first_turns: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKindForm {
    Error,
    Hang,
    Cut,
}
