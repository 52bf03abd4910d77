//! The backends behind this gateway, each with its queue and its health.

pub mod choose;
pub mod gate;
pub mod health;

use crate::backend::Backend;
use crate::config::BackendSettings;
use choose::BackendFacts;
use gate::Gate;
use health::Health;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// One backend of the zoo.
#[derive(Debug)]
pub struct Member {
    pub settings: BackendSettings,
    pub backend: Backend,
    pub gate: Gate,
    health: Mutex<Health>,
}

/// The backends in the order of the settings.
#[derive(Debug)]
pub struct Zoo {
    members: Vec<Arc<Member>>,
}

impl Zoo {
    /// Builds every backend; one whose settings are the same as in `earlier` is taken over with its queue and its
    /// health. Blocks while models load.
    ///
    /// # Errors
    /// Names the backend that cannot be built.
    pub fn build(settings: &[BackendSettings], earlier: Option<&Zoo>) -> anyhow::Result<Self> {
        let taken_over =
            |settings: &BackendSettings| earlier?.members.iter().find(|member| member.settings == *settings).cloned();
        let members = settings.iter().map(|settings| match taken_over(settings) {
            Some(member) => Ok(member),
            None => Member::build(settings).map(Arc::new),
        });
        Ok(Self { members: members.collect::<anyhow::Result<_>>()? })
    }

    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// What a chooser may know now; `tried` tells of each member whether this turn was there already.
    pub fn facts(&self, tried: &[bool]) -> Vec<BackendFacts> {
        let facts = |(member, tried): (&Arc<Member>, &bool)| BackendFacts {
            name: member.settings.name.clone(),
            vision: member.settings.vision,
            healthy: member.is_healthy(),
            tried: *tried,
            full_for_ms: member.gate.full_for_ms(),
        };
        self.members.iter().zip(tried).map(facts).collect()
    }
}

impl Member {
    fn build(settings: &BackendSettings) -> anyhow::Result<Self> {
        Ok(Self {
            backend: Backend::build(settings)?,
            gate: Gate::new(settings.concurrency, settings.queue),
            health: Mutex::default(),
            settings: settings.clone(),
        })
    }

    pub fn is_healthy(&self) -> bool {
        self.health().is_healthy()
    }

    /// What took it out.
    pub fn problem(&self) -> Option<String> {
        self.health().problem().map(str::to_owned)
    }

    /// As configured, or as the embedded model says.
    pub fn context_tokens(&self) -> Option<u32> {
        match &self.backend {
            Backend::Candle(candle) => candle.context_tokens().try_into().ok(),
            _ => self.settings.context_tokens,
        }
    }

    /// Takes it out after a failed turn, and probes it in the background until it answers again.
    pub fn failed(self: &Arc<Self>, problem: &str) {
        let was_healthy = {
            let mut health = self.health();
            let was_healthy = health.is_healthy();
            health.turn_failed(problem, Instant::now());
            was_healthy
        };
        if was_healthy {
            tracing::warn!(model = self.settings.name, problem, "backend is out until a probe succeeds");
            tokio::spawn(probe_until_well(Arc::downgrade(self)));
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn probe(&self) -> bool {
        match self.backend.probe().await {
            Ok(()) => self.health().probe_succeeded(),
            Err(problem) => self.health().probe_failed(&problem.to_string(), Instant::now()),
        }
        self.is_healthy()
    }
}

/// Ends with success, or when the backend has left the zoo.
async fn probe_until_well(member: Weak<Member>) {
    loop {
        let Some(due) = member.upgrade().and_then(|member| member.health().next_probe()) else { return };
        tokio::time::sleep_until(due.into()).await;
        let Some(member) = member.upgrade() else { return };
        if member.probe().await {
            tracing::info!(model = member.settings.name, "backend answers again");
            return;
        }
    }
}
