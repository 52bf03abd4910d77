//! The log: to standard error, as text or JSON, its level changeable while the daemon runs.

use crate::config::{LogFormat, LogSettings};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.level {level:?} is not a filter such as \"info\" or \"warn,tether=debug\": {problem}")]
    Level { level: String, problem: String },
    #[error("the log was already started: {0}")]
    Twice(String),
}

/// Changes the level.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Starts the log of this process. A journal stamps the time itself, so then text carries none.
///
/// # Errors
/// A level that is not a filter; a second call.
pub fn start(settings: &LogSettings) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level)?);
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(stderr).with_ansi(colours);
    let lines: Box<dyn Layer<_> + Send + Sync> = match settings.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => lines.without_time().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| LogError::Twice(error.to_string()))?;
    Ok(LogHandle { filter: handle })
}

impl LogHandle {
    /// # Errors
    /// A level that is not a filter; the old one stays.
    pub fn set_level(&self, settings: &LogSettings) -> Result<(), LogError> {
        let filter = filter(&settings.level)?;
        self.filter.reload(filter).map_err(|error| LogError::Twice(error.to_string()))
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|error| LogError::Level { level: level.into(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_named() {
        assert!(filter("warn,tether=debug").is_ok());
        assert!(filter("tether=loud").unwrap_err().to_string().contains("tether=loud"));
    }
}
