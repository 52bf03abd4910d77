//! What the settings mean, checked.

use super::budgets::BudgetSettings;
use super::file::{CloudConfig, ConfigFile, DropWhenFull, LogFormat, PolicyName};
use super::link::LinkSettings;
use super::load::ConfigError;
use super::power::PowerSettings;
use crate::image_codec::EncodeOptions;
use crate::store::Limits;
use crate::views::ViewsConfig;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_models::{LoadOptions, OnContextFull};
use tether_protocol::ActionSpace;
use tether_protocol::limits::{MAX_ANSWER_TOKENS, MAX_DEADLINE_MS, MAX_TEXT_BYTES};

/// Everything that a daemon is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    pub local_only: bool,
    pub socket: SocketSettings,
    /// `None`: no local model is wanted.
    pub model: Option<ModelSettings>,
    pub cloud: CloudConfig,
    pub views: ViewsConfig,
    /// How pictures are written before they travel.
    pub images: EncodeOptions,
    /// The actions that the views give.
    pub space: ActionSpace,
    pub policy: PolicySettings,
    /// Whether ratings correct the policy's values.
    pub learn_from_ratings: bool,
    /// The folder of a CLIP.
    pub clip: Option<PathBuf>,
    pub default_deadline_ms: Option<u64>,
    pub cloud_patience_ms: u64,
    pub default_max_tokens: u32,
    pub sessions: SessionSettings,
    pub ledger: LedgerSettings,
    pub budgets: BudgetSettings,
    pub power: PowerSettings,
    pub link: LinkSettings,
    pub log: LogSettings,
    pub metrics_enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSettings {
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    pub group: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ModelSettings {
    pub source: ModelSource,
    /// More local models, beside `source`.
    pub zoo: Vec<ModelSource>,
    /// The satisfaction that the zoo keeps.
    pub zoo_alpha: f64,
    pub load: LoadOptions,
    pub on_context_full: OnContextFull,
    pub queue_limit: usize,
    /// `None`: the daemon's own short one.
    pub system_prompt: Option<String>,
    pub cache: CacheSettings,
    /// `None`: the model stays in memory.
    pub keep_alive: Option<Duration>,
    pub speculation: bool,
    pub threads_on_battery: Option<usize>,
}

/// Which policy decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    pub name: PolicyName,
    /// The config of a learned policy; `None`: the one that is built in.
    pub file: Option<PathBuf>,
}

/// What is kept of earlier turns' arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    pub max_bytes: usize,
    /// 0: nothing goes to disk.
    pub max_disk_bytes: u64,
    /// Beside the ledger.
    pub folder: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    Registry(String),
    Path(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    pub max_messages: usize,
    pub max_bytes: usize,
    pub max_sessions: usize,
    pub ttl_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSettings {
    pub path: PathBuf,
    pub limits: Limits,
    /// Whether text and images of turns are kept.
    pub content: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub level: String,
    pub format: LogFormat,
}

/// Where things are for this user. Passed in, so that a test needs no environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    pub home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    pub state_home: Option<PathBuf>,
    /// `RUNTIME_DIRECTORY` and `STATE_DIRECTORY`, which systemd sets for a unit that asks for them.
    pub service_runtime: Option<PathBuf>,
    pub service_state: Option<PathBuf>,
}

impl Settings {
    /// From what was written to what is meant. Relative paths are relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key and its legal values.
    pub(super) fn resolve(written: ConfigFile, file: Option<PathBuf>, places: &Places) -> Result<Self, ConfigError> {
        let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let ConfigFile {
            local_only,
            socket,
            model,
            cloud,
            views,
            images,
            policy,
            association,
            sessions,
            ledger,
            budgets,
            energy,
            power,
            link,
            log,
            metrics,
        } = written;
        let mut views = views;
        for folder in views.0.iter_mut().filter_map(|view| view.folder.as_mut()) {
            *folder = base.join(&*folder);
        }
        let space = views.check().map_err(|error| invalid("views", error.to_string()))?;
        in_range("model.max_tokens", u64::from(model.max_tokens), 1, u64::from(MAX_ANSWER_TOKENS))?;
        if let Some(deadline_ms) = policy.deadline_ms {
            in_range("policy.deadline_ms", deadline_ms, 1, MAX_DEADLINE_MS)?;
        }
        let has_model = model.path.is_some() || model.name != "none";
        let ledger_path = ledger.path.map_or_else(|| places.ledger(), |path| base.join(path));
        let settings = Self {
            local_only,
            socket: SocketSettings {
                path: socket.path.map_or_else(|| places.socket(), |path| base.join(path)),
                mode: mode(socket.mode.as_deref(), socket.group.is_some())?,
                group: socket.group,
            },
            default_max_tokens: model.max_tokens,
            budgets: budgets.resolve(energy, &cloud, has_model)?,
            power: power.resolve()?,
            link: link.resolve()?,
            model: resolve_model(model, &base, ledger_path.with_file_name("cache"))?,
            cloud,
            views,
            images,
            space,
            clip: association.clip.map(|folder| base.join(folder)),
            policy: resolve_policy(policy.name, policy.file, &base)?,
            learn_from_ratings: policy.learn_from_ratings,
            default_deadline_ms: policy.deadline_ms,
            cloud_patience_ms: in_range("policy.cloud_patience_ms", policy.cloud_patience_ms, 1, MAX_DEADLINE_MS)?,
            sessions: SessionSettings {
                max_messages: in_range("sessions.max_messages", sessions.max_messages as u64, 2, 100_000)? as usize,
                max_bytes: in_range("sessions.max_bytes", sessions.max_bytes as u64, 1_024, 64 << 20)? as usize,
                max_sessions: in_range("sessions.max_sessions", sessions.max_sessions as u64, 1, 1_000_000)? as usize,
                ttl_ms: in_range("sessions.ttl_s", sessions.ttl_s, 1, 10 * 365 * 86_400)? as i64 * 1_000,
            },
            ledger: LedgerSettings {
                limits: Limits {
                    max_turns: in_range("ledger.max_turns", ledger.max_turns, 1, 1 << 40)?,
                    max_age_ms: in_range("ledger.max_age_days", ledger.max_age_days, 1, 36_500)? as i64 * 86_400_000,
                    max_bytes: in_range("ledger.max_bytes", ledger.max_bytes, 1 << 20, 1 << 50)?,
                },
                content: ledger.content,
                path: ledger_path,
            },
            log: LogSettings { level: log.level, format: log.format },
            metrics_enabled: metrics.enabled,
            file,
        };
        if settings.model.is_none() && matches!(settings.cloud, CloudConfig::None) {
            return Err(invalid("model.name", "is \"none\" and cloud.kind is \"none\": nothing could answer"));
        }
        Ok(settings)
    }
}

fn resolve_policy(name: PolicyName, file: Option<PathBuf>, base: &Path) -> Result<PolicySettings, ConfigError> {
    if file.is_some() && name != PolicyName::Tether {
        return Err(invalid("policy.file", "is read with policy.name = \"tether\" only; set that, too"));
    }
    Ok(PolicySettings { name, file: file.map(|file| base.join(file)) })
}

/// Local models, all of them loaded: four small ones are some GB already.
const MAX_LOCAL_ZOO: u64 = 4;

fn resolve_model(
    model: super::file::ModelFile,
    base: &Path,
    cache_folder: PathBuf,
) -> Result<Option<ModelSettings>, ConfigError> {
    let source = match model.path {
        Some(path) => ModelSource::Path(base.join(path)),
        None if model.name == "none" => return Ok(None),
        None => ModelSource::Registry(model.name),
    };
    in_range("model.zoo", model.zoo.len() as u64, 0, MAX_LOCAL_ZOO - 1)?;
    if !(model.zoo_alpha > 0.0 && model.zoo_alpha < 1.0) {
        let problem = format!("{} must lie above 0 and below 1, such as 0.85", model.zoo_alpha);
        return Err(invalid("model.zoo_alpha", &problem));
    }
    let named = |name: String| match name.contains('/') || name.ends_with(".gguf") {
        true => ModelSource::Path(base.join(name)),
        false => ModelSource::Registry(name),
    };
    let zoo: Vec<ModelSource> = model.zoo.into_iter().map(named).collect();
    if zoo.iter().enumerate().any(|(place, other)| *other == source || zoo[..place].contains(other)) {
        return Err(invalid("model.zoo", "names a model twice; the one of model.name or model.path is in it already"));
    }
    if let Some(tokens) = model.context_tokens {
        in_range("model.context_tokens", tokens as u64, 16, 1 << 20)?;
    }
    if let Some(threads) = model.threads {
        in_range("model.threads", threads as u64, 1, 1_024)?;
    }
    if let Some(threads) = model.threads_on_battery {
        in_range("model.threads_on_battery", threads as u64, 1, 1_024)?;
    }
    in_range("model.queue", model.queue as u64, 1, 10_000)?;
    let prompt_bytes = model.system_prompt.as_ref().map_or(0, String::len) as u64;
    in_range("model.system_prompt", prompt_bytes, 0, MAX_TEXT_BYTES as u64 / 2)?;
    Ok(Some(ModelSettings {
        source,
        zoo,
        zoo_alpha: model.zoo_alpha,
        load: LoadOptions { context_tokens: model.context_tokens, threads: model.threads, ..LoadOptions::default() },
        on_context_full: match model.on_context_full {
            DropWhenFull::Error => OnContextFull::Error,
            DropWhenFull::DropOldest => OnContextFull::DropOldest,
        },
        queue_limit: model.queue,
        system_prompt: model.system_prompt,
        cache: CacheSettings {
            max_bytes: in_range("model.cache_bytes", model.cache_bytes, 0, 1 << 40)? as usize,
            max_disk_bytes: in_range("model.cache_disk_bytes", model.cache_disk_bytes, 0, 1 << 50)?,
            folder: cache_folder,
        },
        keep_alive: match in_range("model.keep_alive_s", model.keep_alive_s, 0, 10 * 365 * 86_400)? {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        },
        speculation: model.speculation,
        threads_on_battery: model.threads_on_battery,
    }))
}

impl Places {
    fn socket(&self) -> PathBuf {
        if let Some(folder) = &self.service_runtime {
            return folder.join("tether.sock");
        }
        let folder = self.runtime_dir.clone().unwrap_or_else(|| PathBuf::from("/run"));
        folder.join("tether/tether.sock")
    }

    fn ledger(&self) -> PathBuf {
        if let Some(folder) = &self.service_state {
            return folder.join("tether.db");
        }
        let user = self.state_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")));
        user.unwrap_or_else(|| PathBuf::from("/var/lib")).join("tether/tether.db")
    }
}

fn mode(written: Option<&str>, with_group: bool) -> Result<u32, ConfigError> {
    let Some(written) = written else { return Ok(if with_group { 0o660 } else { 0o600 }) };
    let mode = u32::from_str_radix(written, 8).ok().filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600);
    mode.ok_or_else(|| invalid("socket.mode", format!("{written:?} must be octal text such as \"600\" or \"660\"")))
}

fn in_range(key: &'static str, value: u64, low: u64, high: u64) -> Result<u64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(invalid(key, format!("{value} is not in {low}..={high}")))
}

fn invalid(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.into(), problem: problem.into() }
}
