//! What `ask` and `chat` have in common: the options of a turn, and the request they make.

use super::attach::{SensorArg, ViewArg};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::collections::BTreeMap;
use tether_protocol::api::{ChatRequest, Content, MessageForm, PartForm, RouteChoice, StreamOptions, TetherRequest};

/// The options of one turn.
#[derive(Debug, Clone, Args)]
pub(crate) struct TurnOptions {
    /// A camera's picture (JPEG or PNG) for this turn; may be given several times
    #[arg(long, value_name = "NAME=FILE")]
    pub view: Vec<ViewArg>,
    /// A sensor's reading as JSON for this turn, from a file or written out; may be given several times
    #[arg(long, value_name = "NAME=FILE|JSON")]
    pub sensor: Vec<SensorArg>,
    /// The only views that may travel to the cloud, with commas; `none` for none [default: the policy chooses]
    #[arg(long, value_name = "NAMES")]
    pub allow_views: Option<String>,
    /// The dialogue to continue; the daemon remembers it
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Where to answer
    #[arg(long, value_enum, default_value_t = RouteArg::Auto)]
    pub route: RouteArg,
    /// Nothing of this turn ever leaves the device, not as history of a later turn either
    #[arg(long, conflicts_with = "allow_views")]
    pub local_only: bool,
    /// Give up after this time, answer included
    #[arg(long, value_name = "MS")]
    pub deadline_ms: Option<u64>,
    /// Longest answer
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens: Option<u64>,
    /// Makes sampling repeatable
    #[arg(long)]
    pub seed: Option<i64>,
    /// 0 always takes the likeliest token
    #[arg(long)]
    pub temperature: Option<f64>,
    /// What kind of task this is, for the policy
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// A model by name, as `curl --unix-socket ... /v1/models` lists them
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RouteArg {
    Auto,
    Local,
    Cloud,
}

impl RouteArg {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }
}

impl From<RouteArg> for RouteChoice {
    fn from(route: RouteArg) -> Self {
        match route {
            RouteArg::Auto => Self::Auto,
            RouteArg::Local => Self::Local,
            RouteArg::Cloud => Self::Cloud,
        }
    }
}

impl TurnOptions {
    /// The request for one turn; reads the images and the readings.
    pub(crate) fn request(&self, text: &str, stream: bool) -> anyhow::Result<ChatRequest> {
        let tether = TetherRequest {
            session: self.session.clone(),
            route: Some(self.route.into()),
            views: self.allow_views.as_deref().map(view_names),
            task: self.task.clone(),
            deadline_ms: self.deadline_ms,
            local_only: self.local_only.then_some(true),
            sensors: self.readings()?,
        };
        Ok(ChatRequest {
            model: self.model.clone(),
            messages: vec![self.message(text)?],
            stream: Some(stream),
            stream_options: stream.then_some(StreamOptions { include_usage: Some(true), ..StreamOptions::default() }),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            tether: Some(tether),
            ..ChatRequest::default()
        })
    }

    fn message(&self, text: &str) -> anyhow::Result<MessageForm> {
        if self.view.is_empty() {
            return Ok(MessageForm::text("user", text));
        }
        let mut parts = vec![PartForm::text(text)];
        for view in &self.view {
            parts.push(view.part()?);
        }
        Ok(MessageForm { content: Some(Content::Parts(parts)), ..MessageForm::text("user", "") })
    }

    /// They go with the request rather than as pushed readings, so that `--local-only` covers them too.
    fn readings(&self) -> anyhow::Result<Option<BTreeMap<String, Value>>> {
        let read = |sensor: &SensorArg| Ok((sensor.name.to_string(), sensor.json()?));
        let readings = self.sensor.iter().map(read).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        Ok(Some(readings).filter(|readings| !readings.is_empty()))
    }
}

fn view_names(given: &str) -> Vec<String> {
    let names = given.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "none");
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_names_are_split_and_none_is_none() {
        assert_eq!(view_names("front, side,"), ["front", "side"]);
        assert!(view_names("none").is_empty());
    }
}
