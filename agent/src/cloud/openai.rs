//! An OpenAI-compatible server over HTTPS, without a gateway.

use super::{CloudError, CloudStream, CloudTurn};
use serde::Deserialize;
use std::path::PathBuf;
use tether_protocol::Reading;
use tether_protocol::context::Link;

/// `[cloud]` with `kind = "openai"`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// Up to and including `/v1`.
    pub base_url: String,
    pub model: String,
    /// File or environment variable that holds the key; at most one of the two.
    pub api_key_file: Option<PathBuf>,
    pub api_key_env: Option<String>,
    /// Whether the model takes images.
    #[serde(default)]
    pub vision: bool,
    #[serde(default)]
    pub usd_per_million_prompt_tokens: f64,
    #[serde(default)]
    pub usd_per_million_completion_tokens: f64,
}

pub struct OpenAiCloud {
    config: OpenAiConfig,
}

impl OpenAiCloud {
    pub fn new(config: OpenAiConfig) -> Result<Self, CloudError> {
        Ok(Self { config })
    }

    pub async fn turn(&self, turn: CloudTurn) -> Result<CloudStream, CloudError> {
        let _ = turn;
        Err(CloudError::Config("not written yet".into()))
    }

    pub fn link(&self) -> Reading<Link> {
        Reading::unknown("not measured over HTTPS")
    }

    pub fn address(&self) -> String {
        self.config.base_url.clone()
    }
}
