//! Settings: one TOML file and the environment, checked once into [`Settings`].
//!
//! Two types. [`ConfigFile`] is what may be written, with every default; [`Settings`] is what is meant: paths are
//! resolved, names are legal, the action space exists. Without any file the defaults are a working daemon: the
//! default local model, no cloud.
//!
//! Every key can be set in the environment too: `model.context_tokens` is `TETHER_MODEL_CONTEXT_TOKENS`. A value is
//! read as TOML, and as a plain string where that fails. The environment wins over the file.

mod budgets;
mod file;
mod keys;
mod link;
mod load;
mod power;
mod settings;

pub use budgets::{BudgetSettings, BudgetsFile, EnergyFile, OnExhausted, TokenPrices};
pub use file::{
    AssociationFile, CloudConfig, ConfigFile, DropWhenFull, LedgerFile, LogFile, LogFormat, MetricsFile, ModelFile,
    PolicyFile, PolicyName, SessionsFile, SocketFile,
};
pub use keys::{defaults, env_name, known_keys};
pub use link::{LinkFile, LinkSettings, Metered};
pub use load::{ConfigError, Loaded, Origin, find_file, load, load_from};
pub use power::{PowerFile, PowerSettings, SourceName};
pub use settings::{
    CacheSettings, LedgerSettings, LogSettings, ModelSettings, ModelSource, PolicySettings, SessionSettings, Settings,
    SocketSettings,
};
