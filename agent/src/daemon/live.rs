//! What a reload can change.

use super::{Reloaded, StartError};
use crate::cloud::{Cloud, openai::OpenAiCloud, quic::QuicCloud};
use crate::config::{CloudConfig, ModelSettings, Settings};
use crate::execute::LocalModel;
use crate::policy;
use crate::prompt;
use crate::views::Views;
use std::sync::Arc;
use tether_models::OnContextFull;
use tether_policies::Policy;

/// Settings, and what is made from them and can be made again while turns run.
pub struct Live {
    pub settings: Settings,
    pub policy: Box<dyn Policy>,
    cloud: Option<Arc<Cloud>>,
}

impl Live {
    pub(super) fn new(settings: Settings) -> Result<Self, StartError> {
        let policy = policy::load(&settings.policy)?;
        let cloud = cloud(&settings)?.map(Arc::new);
        Ok(Self { policy, cloud, settings })
    }

    /// What a start or a reload would refuse, without either: the files that the settings name are looked at. Returns what
    /// would be told loudly and not refused.
    ///
    /// # Errors
    /// As [`Daemon::start`](super::Daemon::start).
    pub fn check(settings: &Settings) -> Result<Option<String>, StartError> {
        policy::load(&settings.policy)?;
        cloud(settings)?;
        Views::new(settings.views.clone(), settings.images)?;
        match settings.model.as_ref().map_or(Ok(()), LocalModel::check) {
            Ok(()) => Ok(None),
            Err(error) if settings.cloud != CloudConfig::None => {
                Ok(Some(format!("{error}; only the cloud can answer")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the cloud's connection if its settings did not change; gives it up where nothing may leave any more.
    pub(super) fn reload(old: &Live, mut settings: Settings) -> Result<Self, StartError> {
        // Before anything else is made: a bad file changes nothing.
        let policy = policy::load(&settings.policy)?;
        let cloud = match &old.cloud {
            Some(cloud) if settings.cloud == old.settings.cloud && !settings.local_only => Some(cloud.clone()),
            _ => cloud(&settings)?.map(Arc::new),
        };
        // These were built into the daemon at its start.
        settings.socket = old.settings.socket.clone();
        settings.ledger = old.settings.ledger.clone();
        settings.views = old.settings.views.clone();
        settings.space = old.settings.space.clone();
        settings.images = old.settings.images;
        Ok(Self { policy, cloud, settings })
    }

    pub(super) fn compare(&self, new: &Settings) -> Reloaded {
        let old = &self.settings;
        let mut reloaded = Reloaded::default();
        let applied = [
            ("policy", old.policy != new.policy || old.default_deadline_ms != new.default_deadline_ms),
            ("policy.learn_from_ratings", old.learn_from_ratings != new.learn_from_ratings),
            ("policy.cloud_patience_ms", old.cloud_patience_ms != new.cloud_patience_ms),
            ("cloud", old.cloud != new.cloud),
            ("local_only", old.local_only != new.local_only),
            ("sessions", old.sessions != new.sessions),
            ("model.max_tokens", old.default_max_tokens != new.default_max_tokens),
            ("model.system_prompt", old.system_prompt() != new.system_prompt()),
            ("model.on_context_full", old.on_context_full() != new.on_context_full()),
            ("log", old.log != new.log),
            ("budgets", old.budgets != new.budgets),
            ("link", old.link != new.link),
            ("metrics", old.metrics_enabled != new.metrics_enabled),
        ];
        let source = |settings: &Settings| {
            settings.model.as_ref().map(|model| (model.source.clone(), model.zoo.clone(), model.zoo_alpha))
        };
        let built = |settings: &Settings| {
            let model = settings.model.as_ref();
            model.map(|model| {
                let ModelSettings { load, queue_limit, cache, keep_alive, speculation, .. } = model;
                (load.context_tokens, load.threads, *queue_limit, cache.clone(), *keep_alive, *speculation)
            })
        };
        let needs_restart = [
            ("socket", old.socket != new.socket),
            ("model", source(old) != source(new) || built(old) != built(new)),
            ("views", old.views != new.views || old.images != new.images),
            ("ledger", old.ledger != new.ledger),
            ("power", old.power != new.power),
            ("association", old.clip != new.clip),
        ];
        let changed = |list: &[(&'static str, bool)]| -> Vec<&'static str> {
            list.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect()
        };
        reloaded.applied = changed(&applied);
        reloaded.needs_restart = changed(&needs_restart);
        reloaded
    }

    /// The cloud, or why there is none, in words for the client.
    pub fn cloud(&self) -> Result<&Arc<Cloud>, &'static str> {
        if self.settings.local_only {
            return Err("the daemon is local_only: nothing leaves this device");
        }
        self.cloud.as_ref().ok_or("no cloud is configured ([cloud] in the settings)")
    }
}

impl Live {
    /// W above idle while the local model computes, and while a cloud turn is under way.
    pub(crate) fn power_w(&self) -> (Option<f64>, Option<f64>) {
        let energy = &self.settings.budgets.energy;
        (energy.local_power_w, energy.cloud_power_w)
    }
}

impl Settings {
    /// Put before a dialogue that brings no system message; empty: none.
    pub(crate) fn system_prompt(&self) -> &str {
        let own = self.model.as_ref().and_then(|model| model.system_prompt.as_deref());
        own.unwrap_or(prompt::DEFAULT_SYSTEM_PROMPT)
    }

    pub(crate) fn on_context_full(&self) -> OnContextFull {
        self.model.as_ref().map_or(OnContextFull::Error, |model| model.on_context_full)
    }
}

/// None where nothing may leave the device: making one would greet the gateway, with the token.
fn cloud(settings: &Settings) -> Result<Option<Cloud>, StartError> {
    Ok(match &settings.cloud {
        _ if settings.local_only => None,
        CloudConfig::None => None,
        CloudConfig::Quic(config) => Some(Cloud::Quic(QuicCloud::new(config.clone())?)),
        CloudConfig::OpenAi(config) => Some(Cloud::OpenAi(OpenAiCloud::new(config.clone())?)),
    })
}
