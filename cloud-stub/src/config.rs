//! The gateway's settings: [`form`] is what people write (TOML), [`Settings`] what it means, checked.

pub mod form;
mod nearest;
mod resolve;
mod routing;
mod zoo;

use crate::backend::scripted::Script;
use crate::price::Prices;
use crate::secret::Secret;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_models::registry::{Registry, RegistryError};
use tether_policies::mess::TenantConfig;
use tether_protocol::openai::MaxTokensName;
use tether_protocol::wire::Vision;

/// The address that a gateway listens on unless told otherwise: every interface, IPv6 and IPv4.
pub const DEFAULT_LISTEN: &str = "[::]:4433";
/// Where metrics and health are served: only for this machine until told otherwise.
pub const DEFAULT_METRICS: &str = "127.0.0.1:9464";
/// Backends in one zoo.
pub const MAX_ZOO: usize = 64;
/// Turns that one backend may run at once, and that may wait for it.
pub const MAX_CONCURRENCY: usize = 4_096;
pub const MAX_QUEUE: usize = 65_536;

/// Everything that `tether-cloud serve` needs, checked and with absolute paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Certificate chain and private key, PEM.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Mutual TLS: the CA of the clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
    pub tokens: Vec<Token>,
    /// `None`: no metrics and health page.
    pub metrics: Option<SocketAddr>,
    /// How long turns under way may take after SIGTERM.
    pub drain: Duration,
    /// The longest a turn may take, queue included; a client's own deadline may be shorter.
    pub turn_limit: Duration,
    pub log: LogSettings,
    /// In order of preference; never empty, names differ.
    pub zoo: Vec<BackendSettings>,
    /// `None`: no level is agreed with anybody, and the first able backend answers.
    pub routing: Option<RoutingSettings>,
}

/// What MESS+ is to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingSettings {
    /// For clients that are not among `tenants`.
    pub default: TenantConfig,
    /// By the client's name; names differ.
    pub tenants: Vec<(String, TenantConfig)>,
    pub encoder: EncoderSettings,
    pub state: StateSettings,
}

/// What turns a prompt into numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderSettings {
    Hashed,
    /// all-MiniLM-L6-v2: weights and tokenizer, or what `tether models pull` fetched.
    Sentence(Option<(PathBuf, PathBuf)>),
}

impl std::fmt::Display for EncoderSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hashed => f.write_str("hashed"),
            Self::Sentence(None) => f.write_str("sentence"),
            Self::Sentence(Some((weights, _))) => write!(f, "sentence, {}", weights.display()),
        }
    }
}

/// Where the learned state is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum StateSettings {
    /// Nowhere: forgotten at the end.
    Memory,
    /// In a folder of this gateway's own.
    File(PathBuf),
    /// In a folder that several gateways share.
    Files(PathBuf),
    /// In a server that several gateways share.
    Redis(RedisSettings),
}

impl std::fmt::Display for StateSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory only"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Files(path) => write!(f, "{}, shared", path.display()),
            Self::Redis(server) => write!(f, "{} as {:?}, shared", server.url, server.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RedisSettings {
    /// `redis://HOST:PORT/DATABASE` or `unix:///PATH`; holds no secret.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Gateways of the same name share one state.
    pub name: String,
}

impl Settings {
    /// Threads of the embedded models: candle has one pool, so the largest wish counts.
    pub fn threads(&self) -> Option<usize> {
        let wishes = self.zoo.iter().filter_map(|backend| match &backend.kind {
            Kind::Candle(candle) => candle.threads,
            Kind::OpenAi(_) | Kind::Scripted(_) => None,
        });
        wishes.max()
    }
}

/// A client's bearer token, as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub sha256: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A `tracing` filter such as `info` or `tether_cloud=debug`.
    pub level: String,
    pub json: bool,
}

/// One backend of the zoo.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSettings {
    pub name: String,
    pub vision: Vision,
    /// `None`: what the model itself says (candle), or not checked here (other servers check it).
    pub context_tokens: Option<u32>,
    pub prices: Prices,
    /// Turns that run at once, and that may wait.
    pub concurrency: usize,
    pub queue: usize,
    /// The most tokens of an answer, and how many if the turn does not say.
    pub max_tokens: u32,
    pub default_max_tokens: u32,
    /// Silence after which the backend counts as failed.
    pub first_token_timeout: Duration,
    pub token_timeout: Duration,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Candle(CandleSettings),
    OpenAi(OpenAiSettings),
    Scripted(Script),
}

impl Kind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Candle(_) => "candle",
            Self::OpenAi(_) => "openai",
            Self::Scripted(_) => "scripted",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CandleSettings {
    /// A registry name, or the path of a GGUF file.
    pub model: String,
    pub threads: Option<usize>,
    pub on_context_full: tether_models::OnContextFull,
}

impl CandleSettings {
    /// The GGUF file.
    ///
    /// # Errors
    /// Says what is missing, and the command that fetches it.
    pub fn resolve_model(&self) -> Result<PathBuf, RegistryError> {
        Registry::from_env()?.resolve(&self.model)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct OpenAiSettings {
    /// Up to and including `/v1`, without a slash at the end.
    pub base_url: String,
    /// The server's own name for the model.
    pub model: String,
    pub api_key: Option<Secret>,
    /// PEM; trusted instead of the public roots.
    pub ca: Option<Vec<u8>>,
    pub max_tokens_name: MaxTokensName,
}

/// What is wrong with the settings: the key, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {problem}")]
    Read { path: PathBuf, problem: std::io::Error },
    #[error("{path}: {problem}")]
    Parse { path: PathBuf, problem: String },
    #[error("{path}: {key}: {problem}")]
    Value { path: PathBuf, key: String, problem: String },
}

impl Settings {
    /// Reads and checks a file. Relative paths in it start at its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|problem| ConfigError::Read { path: path.to_owned(), problem })?;
        Self::parse(&text, path)
    }

    /// Checks the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let form: form::Form = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), problem: nearest::explain(&error) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        resolve::resolve(form, folder).map_err(|(key, problem)| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })
    }
}

#[cfg(test)]
mod tests;
