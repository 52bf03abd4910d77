//! What may be written in `config.toml`, with every default and its reason.

use super::budgets::{BudgetsFile, EnergyFile};
use super::link::LinkFile;
use super::power::PowerFile;
use crate::cloud::openai::OpenAiConfig;
use crate::cloud::quic::QuicConfig;
use crate::image_codec::EncodeOptions;
use crate::views::ViewsConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The file as a whole. Keys that are not here are refused, with the nearest one that is.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Nothing ever leaves this device: no text, no view, whatever a request asks for.
    pub local_only: bool,
    pub socket: SocketFile,
    pub model: ModelFile,
    /// Not written back: the default has no cloud, and no keys of one.
    #[serde(skip_serializing)]
    pub cloud: CloudConfig,
    pub views: ViewsConfig,
    pub images: EncodeOptions,
    pub policy: PolicyFile,
    pub association: AssociationFile,
    pub sessions: SessionsFile,
    pub ledger: LedgerFile,
    pub budgets: BudgetsFile,
    pub energy: EnergyFile,
    pub power: PowerFile,
    pub link: LinkFile,
    pub log: LogFile,
    pub metrics: MetricsFile,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketFile {
    /// `$XDG_RUNTIME_DIR/tether/tether.sock` for a user, `/run/tether/tether.sock` otherwise.
    pub path: Option<PathBuf>,
    /// Who may connect, as octal text: `"600"` for a user (the default), `"660"` with a group.
    pub mode: Option<String>,
    /// The group that owns the socket.
    pub group: Option<String>,
}

/// `[model]`: the local model.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelFile {
    /// A name of the registry (`tether models list`), or `none`: no local model.
    pub name: String,
    /// A GGUF file; wins over `name`.
    pub path: Option<PathBuf>,
    /// More local models, by name or path; with the one above they are a zoo, of which MESS+ chooses one for each local
    /// turn (docs/MESS.md).
    pub zoo: Vec<String>,
    /// The mean rating that the zoo keeps, above 0 and below 1, at the least energy.
    pub zoo_alpha: f64,
    /// Absent: the model's own, at most 8,192.
    pub context_tokens: Option<usize>,
    /// Absent: the physical cores.
    pub threads: Option<usize>,
    /// Threads while the device runs on its battery, at most `threads`; absent: as on mains. Fewer take longer and draw
    /// less power.
    pub threads_on_battery: Option<usize>,
    /// What happens to a dialogue that is longer than the context.
    pub on_context_full: DropWhenFull,
    /// Turns that may wait for the model. 16 short answers at 40 tokens/s are about a minute.
    pub queue: usize,
    /// Tokens of an answer where the request gives no `max_tokens`.
    pub max_tokens: u32,
    /// Put before every dialogue that brings no system message of its own; the empty string: none.
    pub system_prompt: Option<String>,
    /// Bytes of what was computed of earlier turns, kept in memory so that a turn computes only what is new. 256 MiB:
    /// a few dialogues of thousands of tokens, some twice the weights of the default model.
    pub cache_bytes: u64,
    /// The same on disk, for named sessions that have to leave memory, at a stop too. 0 (the default): none, because it
    /// saves a prefill and nothing else, and costs a small device's flash tens of MB a dialogue.
    pub cache_disk_bytes: u64,
    /// Seconds without a turn after which the model leaves memory; the next turn loads it again. 0 (the default):
    /// never, because a daemon is there to answer at once.
    pub keep_alive_s: u64,
    /// Whether tokens are guessed from what was said before. It changes no answer.
    pub speculation: bool,
}

impl Default for ModelFile {
    fn default() -> Self {
        Self {
            name: "smollm2-135m-instruct".into(),
            path: None,
            zoo: Vec::new(),
            // A guess, as in the gateway: five answers of six.
            zoo_alpha: 0.85,
            context_tokens: None,
            threads: None,
            threads_on_battery: None,
            on_context_full: DropWhenFull::DropOldest,
            queue: 16,
            max_tokens: 512,
            system_prompt: None,
            cache_bytes: 256 << 20,
            cache_disk_bytes: 0,
            keep_alive_s: 0,
            speculation: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropWhenFull {
    /// The turn fails with `context_length_exceeded`.
    Error,
    /// The oldest messages are left out, and the answer says how many.
    DropOldest,
}

/// `[cloud]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum CloudConfig {
    #[default]
    None,
    Quic(QuicConfig),
    OpenAi(OpenAiConfig),
}

impl CloudConfig {
    pub fn kind(&self) -> &'static str {
        match self {
            CloudConfig::None => "none",
            CloudConfig::Quic(_) => "quic",
            CloudConfig::OpenAi(_) => "openai",
        }
    }
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    pub name: PolicyName,
    /// A learned policy's config (JSON), its weights beside it as `.safetensors`, in place of the one that is built in;
    /// for `name = "tether"`.
    pub file: Option<PathBuf>,
    /// For a turn that brings no `deadline_ms`; absent: ten minutes.
    pub deadline_ms: Option<u64>,
    /// How long the cloud may take to its first token before the local model answers instead, where both may. A cold
    /// start of a large model takes longer; raise it there.
    pub cloud_patience_ms: u64,
    /// Ratings of earlier answers correct the learned policy's values.
    pub learn_from_ratings: bool,
}

impl Default for PolicyFile {
    fn default() -> Self {
        Self {
            name: PolicyName::Tether,
            file: None,
            deadline_ms: None,
            cloud_patience_ms: 15_000,
            learn_from_ratings: true,
        }
    }
}

/// `[association]`: how much each view matters to a question.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AssociationFile {
    /// A folder with a CLIP as published for transformers: `config.json`, `model.safetensors`, `tokenizer.json`. Absent:
    /// the question's text alone tells.
    pub clip: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// The short documented one.
    Rule,
    /// The learned one (TMO).
    #[default]
    Tether,
    AlwaysLocal,
    AlwaysCloud,
}

/// `[sessions]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsFile {
    /// Messages kept of one dialogue; the oldest go first, in whole exchanges.
    pub max_messages: usize,
    /// Bytes of text kept of one dialogue.
    pub max_bytes: usize,
    /// Dialogues kept; the longest unused goes first.
    pub max_sessions: usize,
    /// A dialogue that nobody continued for so long is forgotten. A day: a robot's shift, and the night after.
    pub ttl_s: u64,
}

impl Default for SessionsFile {
    fn default() -> Self {
        Self { max_messages: 200, max_bytes: 256 * 1024, max_sessions: 1_000, ttl_s: 86_400 }
    }
}

/// `[ledger]`: the database of sessions and turns.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerFile {
    /// `$XDG_STATE_HOME/tether/tether.db` for a user, `/var/lib/tether/tether.db` for root and services.
    pub path: Option<PathBuf>,
    /// Keeps the text and the images of turns, too. On this device only; still, a robot hears and sees a lot.
    pub content: bool,
    /// The oldest turns go first. A million are a turn every half minute for a year, and about 2.5 GB.
    pub max_turns: u64,
    pub max_age_days: u64,
    /// Of the database's pages in use; the file itself does not shrink.
    pub max_bytes: u64,
}

impl Default for LedgerFile {
    fn default() -> Self {
        Self { path: None, content: false, max_turns: 1_000_000, max_age_days: 365, max_bytes: 4 << 30 }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    /// A `tracing` filter: `info`, or `warn,tether=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsFile {
    /// Whether `GET /metrics` answers.
    pub enabled: bool,
}

impl Default for MetricsFile {
    fn default() -> Self {
        Self { enabled: true }
    }
}
