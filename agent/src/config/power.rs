//! `[power]`: where battery and power readings come from.

use super::load::ConfigError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerFile {
    pub source: SourceName,
    /// The folder that holds `sys` and `proc`.
    pub root: PathBuf,
    /// Simulated: the battery's capacity, Wh.
    pub capacity_wh: f64,
    /// Simulated: its charge at the daemon's start.
    pub percent: f64,
    /// Simulated: drawn all the time, W.
    pub power_w: f64,
}

impl Default for PowerFile {
    /// The simulated battery is a small robot's: 40 Wh, full, at 10 W.
    fn default() -> Self {
        Self { source: SourceName::Auto, root: "/".into(), capacity_wh: 40.0, percent: 100.0, power_w: 10.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceName {
    /// Whatever the machine has: power supplies, INA3221, RAPL.
    #[default]
    Auto,
    Simulated,
    None,
}

/// `[power]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerSettings {
    pub source: SourceName,
    pub root: PathBuf,
    pub capacity_j: f64,
    pub percent: f64,
    pub power_w: f64,
}

impl PowerFile {
    /// # Errors
    /// [`ConfigError::Invalid`] names the key and its legal values.
    pub(super) fn resolve(self) -> Result<PowerSettings, ConfigError> {
        let range = |key: &str, value: f64, low: f64, high: f64| match (low..=high).contains(&value) {
            true => Ok(value),
            false => Err(ConfigError::Invalid {
                key: format!("power.{key}"),
                problem: format!("{value} is not in {low}..={high}"),
            }),
        };
        Ok(PowerSettings {
            source: self.source,
            root: self.root,
            capacity_j: range("capacity_wh", self.capacity_wh, 0.1, 1e6)? * 3_600.0,
            percent: range("percent", self.percent, 0.0, 100.0)?,
            power_w: range("power_w", self.power_w, 0.0, 10_000.0)?,
        })
    }
}
