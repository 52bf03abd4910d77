//! The JSON beside the weights: what a network was made for, checked before a weight is read.

use crate::tmo::honest::response::ResponseModel;
use crate::tmo::tether::scene::{self, HISTORY, KNOWN_TASKS};
use serde::{Deserialize, Serialize};
use tether_protocol::limits::{MAX_NAME_BYTES, MAX_VIEWS};

/// What the file says it is, and the one version of features and layers that this code computes.
pub const KIND: &str = "tether-tmo-policy";
pub const VERSION: u32 = 1;
/// A config is some 400 bytes.
pub const MAX_CONFIG_BYTES: usize = 64 * 1024;
/// Width of both hidden layers: buffers for it are on the stack, and 128 already costs four times the 64 in use.
pub const MAX_HIDDEN: usize = 128;
/// Turns that the mask may be told to reserve for. M4A1's dialogues have 2 to 5.
pub const MAX_MAX_TURNS: u32 = 64;
/// Responses are of M4A1's scale, whose usual answer is 1.
const MAX_RESPONSE: f64 = 10.0;

/// What to do when no permitted action fits the budgets together with the turns that may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenNothingFits {
    /// [`crate::Policy::try_decide`] refuses, with words for the user.
    Refuse,
    /// The action whose worst overshoot, as a share of what is left, is the least.
    LeastOvershoot,
}

/// Everything about a network but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub kind: String,
    pub version: u32,
    /// Name and version of the policy, as recorded with every turn.
    pub name: String,
    /// Task names in the order of their inputs; any other name is "other", none is "unknown".
    pub tasks: Vec<String>,
    /// Views that the network can tell apart by their place; 0: views differ only by their association and cost,
    /// so their number and order may change freely.
    pub view_slots: usize,
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// Turns that a dialogue is taken to have where nobody knows: budgets are reserved for the rest of them.
    pub max_turns: u32,
    /// 0: the best score, propensity 1. Above: a draw from `softmax(score / temperature)`, so that feedback can be
    /// weighted by its propensity.
    pub temperature: f64,
    pub when_nothing_fits: WhenNothingFits,
    /// What answers were worth in training, so that ratings can correct the values; without it they correct nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responses: Option<ResponseModel>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("the policy's config has {given} bytes, at most {MAX_CONFIG_BYTES} are allowed")]
    TooLarge { given: usize },
    #[error("the policy's config is not of the expected form: {0}")]
    Json(String),
    #[error("this is a {given:?}, expected a {KIND:?}")]
    Kind { given: String },
    #[error("the policy has version {given}, this build reads version {VERSION}; train it anew or take another build")]
    Version { given: u32 },
    #[error("{field} is {given}; {allowed}")]
    Field { field: &'static str, given: String, allowed: String },
}

impl Config {
    /// A config of this build's version.
    pub fn new(name: impl Into<String>, tasks: Vec<String>, view_slots: usize, hidden: usize) -> Config {
        Config {
            kind: KIND.to_owned(),
            version: VERSION,
            name: name.into(),
            tasks,
            view_slots,
            hidden,
            max_turns: HISTORY as u32,
            temperature: 0.0,
            when_nothing_fits: WhenNothingFits::LeastOvershoot,
            responses: None,
        }
    }

    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge { given: text.len() });
        }
        // Kind and version first: a config of another version may well have another form.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| ConfigError::Json(e.to_string()))?;
        let kind = value.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        if kind != KIND {
            return Err(ConfigError::Kind { given: kind.chars().take(MAX_NAME_BYTES).collect() });
        }
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if version != u64::from(VERSION) {
            return Err(ConfigError::Version { given: version.try_into().unwrap_or(u32::MAX) });
        }
        let config: Config = serde_json::from_value(value).map_err(|e| ConfigError::Json(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Every field within its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, given: String, allowed: String| Err(ConfigError::Field { field, given, allowed });
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return wrong("name", format!("{} bytes long", self.name.len()), format!("1 to {MAX_NAME_BYTES}"));
        }
        if self.tasks.len() > KNOWN_TASKS || self.tasks.iter().any(|task| task.len() > MAX_NAME_BYTES) {
            return wrong("tasks", format!("{:?}", self.tasks.len()), format!("at most {KNOWN_TASKS} short names"));
        }
        if self.view_slots > MAX_VIEWS {
            return wrong("view_slots", self.view_slots.to_string(), format!("0 to {MAX_VIEWS}"));
        }
        if self.hidden == 0 || self.hidden > MAX_HIDDEN {
            return wrong("hidden", self.hidden.to_string(), format!("1 to {MAX_HIDDEN}"));
        }
        if self.max_turns == 0 || self.max_turns > MAX_MAX_TURNS {
            return wrong("max_turns", self.max_turns.to_string(), format!("1 to {MAX_MAX_TURNS}"));
        }
        if !(0.0..=100.0).contains(&self.temperature) {
            return wrong("temperature", self.temperature.to_string(), "0 to 100".to_owned());
        }
        if let Some(responses) = &self.responses
            && !(responses.tasks() <= KNOWN_TASKS && responses.all(|response| response.abs() <= MAX_RESPONSE))
        {
            let allowed = format!("means of {KNOWN_TASKS} tasks at most, none beyond {MAX_RESPONSE}");
            return wrong("responses", format!("of {} tasks", responses.tasks()), allowed);
        }
        Ok(())
    }

    /// The input of a task's name: its place, or the place after the last for any other name.
    pub fn task(&self, name: &str) -> usize {
        self.tasks.iter().position(|task| task == name).unwrap_or(KNOWN_TASKS)
    }

    /// Inputs that describe the turn, and inputs that describe one action.
    pub fn inputs(&self) -> (usize, usize) {
        (scene::turn_inputs(self.view_slots), scene::action_inputs(self.view_slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Config, ConfigError> {
        let config = Config::new("t", vec!["Query".to_owned()], 0, 64);
        let mut value = serde_json::to_value(config).unwrap();
        edit(&mut value);
        Config::parse(&value.to_string())
    }

    #[test]
    fn a_config_round_trips_and_knows_its_tasks() {
        let config = edited(|_| {}).unwrap();
        assert_eq!((config.task("Query"), config.task("Juggling")), (0, KNOWN_TASKS));
    }

    #[test]
    fn another_kind_version_or_field_is_refused_with_its_name() {
        assert!(matches!(edited(|v| v["kind"] = "mess".into()), Err(ConfigError::Kind { .. })));
        assert!(matches!(edited(|v| v["version"] = 2.into()), Err(ConfigError::Version { given: 2 })));
        assert!(matches!(edited(|v| v["extra"] = 2.into()), Err(ConfigError::Json(text)) if text.contains("extra")));
        assert!(matches!(Config::parse("{"), Err(ConfigError::Json(_))));
        assert!(matches!(Config::parse(&" ".repeat(MAX_CONFIG_BYTES + 1)), Err(ConfigError::TooLarge { .. })));
    }

    #[test]
    fn limits_hold_exactly_at_the_limit() {
        assert!(edited(|v| v["hidden"] = MAX_HIDDEN.into()).is_ok());
        assert!(edited(|v| v["hidden"] = (MAX_HIDDEN + 1).into()).is_err());
        assert!(edited(|v| v["hidden"] = 0.into()).is_err());
        assert!(edited(|v| v["view_slots"] = MAX_VIEWS.into()).is_ok());
        assert!(edited(|v| v["view_slots"] = (MAX_VIEWS + 1).into()).is_err());
        assert!(edited(|v| v["max_turns"] = 0.into()).is_err());
        assert!(edited(|v| v["temperature"] = (-0.1).into()).is_err());
        assert!(edited(|v| v["tasks"] = serde_json::json!(["a", "b", "c", "d", "e"])).is_err());
        let responses =
            |tasks: usize, best: f64| serde_json::json!({"routes": [1.0, best], "cells": vec![[1.0; 5]; tasks]});
        assert!(edited(|v| v["responses"] = responses(KNOWN_TASKS, MAX_RESPONSE)).is_ok());
        assert!(edited(|v| v["responses"] = responses(KNOWN_TASKS + 1, 1.0)).is_err());
        assert!(edited(|v| v["responses"] = responses(1, MAX_RESPONSE + 0.1)).is_err());
    }
}
