//! `[budgets]` and `[energy]`: what may be spent, and what is known of costs beforehand.

use super::file::CloudConfig;
use super::load::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tether_policies::budget::{Budget, BudgetName, Resource, Window};

/// `[budgets]`. A budget that is absent does not limit.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetsFile {
    pub usd_per_hour: Option<f64>,
    pub usd_per_day: Option<f64>,
    pub usd_per_mission: Option<f64>,
    pub energy_j_per_hour: Option<f64>,
    pub energy_j_per_day: Option<f64>,
    pub energy_j_per_mission: Option<f64>,
    pub uplink_bytes_per_hour: Option<u64>,
    pub uplink_bytes_per_day: Option<u64>,
    pub uplink_bytes_per_mission: Option<u64>,
    pub downlink_bytes_per_hour: Option<u64>,
    pub downlink_bytes_per_day: Option<u64>,
    pub downlink_bytes_per_mission: Option<u64>,
    /// How long a mission is expected to last, for pacing; absent: a mission's budgets are capped but not paced.
    pub mission_h: Option<f64>,
    /// With the battery at or below this, off mains, nothing is given from the energy budgets.
    pub battery_floor_percent: Option<f64>,
    /// Likewise for any budget, by its name; for an energy budget it goes before `battery_floor_percent`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub floor_percent: BTreeMap<String, f64>,
    /// Actions that are predicted to take longer are not permitted.
    pub latency_ms: Option<u64>,
    pub on_exhausted: OnExhausted,
    /// Whether the policy's spending is held to a straight line over each window.
    pub pacing: bool,
    /// What the dearest model of a gateway costs; an OpenAI-compatible cloud has its prices in `[cloud]`.
    pub usd_per_million_prompt_tokens: Option<f64>,
    pub usd_per_million_completion_tokens: Option<f64>,
    /// What it charges for a request and for an image, beside tokens.
    pub usd_per_request: f64,
    pub usd_per_image: f64,
    /// The most tokens that an image counts for. OpenAI's models count 765 for 768 by 768 pixels in high detail.
    pub image_tokens: u32,
}

impl Default for BudgetsFile {
    fn default() -> Self {
        Self {
            usd_per_hour: None,
            usd_per_day: None,
            usd_per_mission: None,
            energy_j_per_hour: None,
            energy_j_per_day: None,
            energy_j_per_mission: None,
            uplink_bytes_per_hour: None,
            uplink_bytes_per_day: None,
            uplink_bytes_per_mission: None,
            downlink_bytes_per_hour: None,
            downlink_bytes_per_day: None,
            downlink_bytes_per_mission: None,
            mission_h: None,
            battery_floor_percent: None,
            floor_percent: BTreeMap::new(),
            latency_ms: None,
            on_exhausted: OnExhausted::Refuse,
            pacing: true,
            usd_per_million_prompt_tokens: None,
            usd_per_million_completion_tokens: None,
            usd_per_request: 0.0,
            usd_per_image: 0.0,
            image_tokens: 1_000,
        }
    }
}

/// What becomes of a turn that no action can afford.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// 429 `insufficient_quota`, and when it will be possible.
    #[default]
    Refuse,
    /// The action that exceeds the budgets least answers all the same.
    Cheapest,
}

/// `[energy]`: power above idle, for joules that no meter measures.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnergyFile {
    /// While the local model computes, W.
    pub local_power_w: Option<f64>,
    /// While a cloud turn is under way (radio and waiting), W.
    pub cloud_power_w: Option<f64>,
}

/// `[budgets]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetSettings {
    pub budgets: Vec<Budget>,
    /// Applied to budgets that are set while running, too.
    pub mission_ms: Option<i64>,
    pub battery_floor_percent: Option<f64>,
    /// Of single budgets.
    pub floors_percent: BTreeMap<BudgetName, f64>,
    pub latency_ms: Option<u64>,
    pub on_exhausted: OnExhausted,
    pub pacing: bool,
    pub prices: Option<TokenPrices>,
    pub image_tokens: u32,
    pub energy: EnergyFile,
}

/// USD for one token, one request, one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenPrices {
    pub prompt: f64,
    pub completion: f64,
    pub request: f64,
    pub image: f64,
}

impl BudgetsFile {
    fn cap(&self, name: BudgetName) -> Option<f64> {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        match (name.resource, name.window) {
            (Resource::Usd, Window::Hour) => self.usd_per_hour,
            (Resource::Usd, Window::Day) => self.usd_per_day,
            (Resource::Usd, Window::Mission) => self.usd_per_mission,
            (Resource::EnergyJ, Window::Hour) => self.energy_j_per_hour,
            (Resource::EnergyJ, Window::Day) => self.energy_j_per_day,
            (Resource::EnergyJ, Window::Mission) => self.energy_j_per_mission,
            (Resource::UplinkBytes, Window::Hour) => bytes(self.uplink_bytes_per_hour),
            (Resource::UplinkBytes, Window::Day) => bytes(self.uplink_bytes_per_day),
            (Resource::UplinkBytes, Window::Mission) => bytes(self.uplink_bytes_per_mission),
            (Resource::DownlinkBytes, Window::Hour) => bytes(self.downlink_bytes_per_hour),
            (Resource::DownlinkBytes, Window::Day) => bytes(self.downlink_bytes_per_day),
            (Resource::DownlinkBytes, Window::Mission) => bytes(self.downlink_bytes_per_mission),
        }
    }

    /// # Errors
    /// [`ConfigError::Invalid`] names the key: out of range, or a budget whose cost nothing here can predict.
    pub(super) fn resolve(
        self,
        energy: EnergyFile,
        cloud: &CloudConfig,
        has_model: bool,
    ) -> Result<BudgetSettings, ConfigError> {
        range("budgets.mission_h", self.mission_h, 0.01, 87_600.0)?;
        range("budgets.battery_floor_percent", self.battery_floor_percent, 0.0, 100.0)?;
        range("budgets.usd_per_million_prompt_tokens", self.usd_per_million_prompt_tokens, 0.0, 1e6)?;
        range("budgets.usd_per_million_completion_tokens", self.usd_per_million_completion_tokens, 0.0, 1e6)?;
        range("budgets.usd_per_request", Some(self.usd_per_request), 0.0, 1e6)?;
        range("budgets.usd_per_image", Some(self.usd_per_image), 0.0, 1e6)?;
        range("energy.local_power_w", energy.local_power_w, 0.0, 10_000.0)?;
        range("energy.cloud_power_w", energy.cloud_power_w, 0.0, 10_000.0)?;
        let mut settings = BudgetSettings {
            budgets: Vec::new(),
            mission_ms: self.mission_h.map(|hours| (hours * 3.6e6) as i64),
            battery_floor_percent: self.battery_floor_percent,
            floors_percent: self.floors_percent()?,
            latency_ms: self.latency_ms,
            on_exhausted: self.on_exhausted,
            pacing: self.pacing,
            prices: self.prices(cloud),
            image_tokens: self.image_tokens,
            energy,
        };
        for name in BudgetName::all() {
            let Some(cap) = self.cap(name) else { continue };
            let invalid = |problem| ConfigError::Invalid { key: format!("budgets.{name}"), problem };
            let cap = settings.cap(name, cap).map_err(invalid)?;
            settings.predictable(name.resource, cloud, has_model).map_err(invalid)?;
            settings.budgets.push(settings.budget(name, cap));
        }
        if self.battery_floor_percent.is_some() && !settings.limits(Resource::EnergyJ) {
            let problem = "needs an energy budget (such as budgets.energy_j_per_day), which it is the floor of".into();
            return Err(ConfigError::Invalid { key: "budgets.battery_floor_percent".into(), problem });
        }
        if let Some(name) = settings.floors_percent.keys().find(|name| self.cap(**name).is_none()) {
            let problem = format!("needs budgets.{name}, which it is the floor of");
            return Err(ConfigError::Invalid { key: format!("budgets.floor_percent.{name}"), problem });
        }
        Ok(settings)
    }

    fn floors_percent(&self) -> Result<BTreeMap<BudgetName, f64>, ConfigError> {
        let floor = |(name, floor): (&String, &f64)| {
            let key = format!("budgets.floor_percent.{name}");
            range(&key, Some(*floor), 0.0, 100.0)?;
            let name = name.parse::<BudgetName>();
            Ok((name.map_err(|error| ConfigError::Invalid { key, problem: error.to_string() })?, *floor))
        };
        self.floor_percent.iter().map(floor).collect()
    }

    fn prices(&self, cloud: &CloudConfig) -> Option<TokenPrices> {
        let per_token = |prompt: f64, completion: f64| TokenPrices {
            prompt: prompt / 1e6,
            completion: completion / 1e6,
            request: self.usd_per_request,
            image: self.usd_per_image,
        };
        match (self.usd_per_million_prompt_tokens, self.usd_per_million_completion_tokens, cloud) {
            (Some(prompt), Some(completion), _) => Some(per_token(prompt, completion)),
            (_, _, CloudConfig::OpenAi(config)) => {
                Some(per_token(config.usd_per_million_prompt_tokens, config.usd_per_million_completion_tokens))
            }
            _ => None,
        }
    }
}

impl BudgetSettings {
    pub fn budget(&self, name: BudgetName, cap: u64) -> Budget {
        let of_energy = self.battery_floor_percent.filter(|_| name.resource == Resource::EnergyJ);
        let floor_percent = self.floors_percent.get(&name).copied().or(of_energy);
        let mission_ms = self.mission_ms.filter(|_| name.window == Window::Mission);
        Budget { name, cap, mission_ms, floor_percent }
    }

    /// A cap in counts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn cap(&self, name: BudgetName, cap: f64) -> Result<u64, String> {
        // Half of what SQLite's integers hold: sums of a cap and a cost stay exact.
        let counts = name.resource.count(cap).filter(|counts| *counts <= i64::MAX as u64 / 2);
        counts.ok_or_else(|| {
            format!("{cap} must be a number from 0 to {:e}", i64::MAX as f64 / 2.0 / name.resource.scale())
        })
    }

    /// Whether the most that a turn may cost of a resource can be told before it.
    ///
    /// # Errors
    /// Which setting is missing.
    pub fn predictable(&self, resource: Resource, cloud: &CloudConfig, has_model: bool) -> Result<(), String> {
        let has_cloud = !matches!(cloud, CloudConfig::None);
        match resource {
            Resource::Usd if has_cloud && self.prices.is_none() => Err(
                "needs budgets.usd_per_million_prompt_tokens and budgets.usd_per_million_completion_tokens, the prices of the gateway's dearest model: a turn's cost is reserved before it begins".into(),
            ),
            Resource::EnergyJ if has_model && self.energy.local_power_w.is_none() => {
                Err("needs energy.local_power_w: a turn's energy is reserved before it begins".into())
            }
            Resource::EnergyJ if has_cloud && self.energy.cloud_power_w.is_none() => {
                Err("needs energy.cloud_power_w: a turn's energy is reserved before it begins".into())
            }
            _ => Ok(()),
        }
    }

    pub fn limits(&self, resource: Resource) -> bool {
        self.budgets.iter().any(|budget| budget.name.resource == resource)
    }
}

fn range(key: &str, value: Option<f64>, low: f64, high: f64) -> Result<(), ConfigError> {
    match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(ConfigError::Invalid { key: key.to_owned(), problem: format!("{value} is not in {low}..={high}") })
        }
        _ => Ok(()),
    }
}
