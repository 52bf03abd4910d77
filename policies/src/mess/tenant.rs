//! One tenant: its agreed level, its virtual queue, and how far up the ladder it has had to go.

use super::bound::{queue_bound, shortfall};
use super::guard::Guard;
use super::params::Params;
use serde::{Deserialize, Serialize};

/// What a tenant agreed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// The mean satisfaction to keep, above 0 and below 1.
    pub alpha: f64,
    /// Names of the models that may answer; `None`: all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TenantError {
    #[error("alpha is {0}; it must lie above 0 and below 1, such as 0.85")]
    Alpha(f64),
    #[error("no model is allowed; name at least one, or leave `models` out to allow all")]
    NoModels,
}

impl TenantConfig {
    pub fn new(alpha: f64) -> Result<Self, TenantError> {
        Self { alpha, models: None }.checked()
    }

    pub(super) fn checked(self) -> Result<Self, TenantError> {
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return Err(TenantError::Alpha(self.alpha));
        }
        if self.models.as_ref().is_some_and(Vec::is_empty) {
            return Err(TenantError::NoModels);
        }
        Ok(self)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tenant {
    pub(super) config: TenantConfig,
    /// The virtual queue of the paper: never below zero.
    pub(super) queue: f64,
    /// The same sum, with a bounded surplus remembered.
    pub(super) deficit: f64,
    pub(super) answered: u64,
    pub(super) rated: u64,
    pub(super) satisfied: f64,
    /// Models of the ladder, from the cheapest, among which requests are routed.
    pub(super) reach: usize,
    pub(super) guard: Guard,
    pub(super) shadow_price: Option<f64>,
    pub(super) since_price: u64,
}

impl Tenant {
    pub(super) fn new(config: TenantConfig) -> Self {
        Self {
            config,
            queue: 0.0,
            deficit: 0.0,
            answered: 0,
            rated: 0,
            satisfied: 0.0,
            reach: 2,
            guard: Guard::default(),
            shadow_price: None,
            since_price: 0,
        }
    }

    /// A rating of the answer that was returned, in 0..1.
    pub(super) fn rate(&mut self, satisfied: f64, params: &Params) {
        let step = self.config.alpha - satisfied;
        self.queue = (self.queue + step).max(0.0);
        self.deficit = (self.deficit + step).max(-params.bank);
        self.rated += 1;
        self.satisfied += satisfied;
        self.guard.follow(self.queue, params.q_max);
    }

    /// Whether the shadow price must be solved for anew.
    pub(super) fn price_is_due(&self, params: &Params) -> bool {
        self.shadow_price.is_none() || self.since_price >= params.price_every
    }

    /// The satisfaction to aim at now. `best` is the highest measured mean, `reachable` the highest mean predicted.
    pub(super) fn target(&self, best: f64, reachable: f64, params: &Params) -> f64 {
        let alpha = self.config.alpha;
        let margin = (best - alpha).max(1e-4);
        let horizon =
            if self.deficit > 0.0 { params.horizon } else { params.horizon * (1.0 + (params.room / margin).powi(2)) };
        let wanted = alpha + (self.deficit / horizon).clamp(-0.08, 0.08);
        let push = params.push + (1.0 - params.push) * (self.deficit / params.peek).clamp(0.0, 1.0);
        wanted.min(alpha.max(alpha + push * (reachable - alpha)))
    }

    pub(super) fn is_sound(&self) -> bool {
        let numbers = [self.queue, self.deficit, self.satisfied, self.shadow_price.unwrap_or(0.0)];
        numbers.iter().all(|number| number.is_finite()) && self.queue >= 0.0 && self.config.clone().checked().is_ok()
    }
}

/// What a tenant's metrics show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantStatus {
    pub alpha: f64,
    pub answered: u64,
    pub rated: u64,
    /// The mean of the ratings; `None` before the first.
    pub satisfaction: Option<f64>,
    pub queue: f64,
    /// What the queue stays below, if some permitted model reaches alpha + 0.02 (with 99 % probability).
    pub queue_bound: f64,
    /// The mean over all answers is at least this, rated or not.
    pub satisfaction_at_least: f64,
    /// Cost per satisfied answer at which models are compared now.
    pub shadow_price: Option<f64>,
    /// The guard answers, not the predictor.
    pub guarding: bool,
    /// Set when alpha seems to be out of every permitted model's reach.
    pub warning: Option<String>,
}

impl Tenant {
    pub(super) fn status(&self, models: usize, warning: Option<String>, params: &Params) -> TenantStatus {
        let alpha = self.config.alpha;
        TenantStatus {
            alpha,
            answered: self.answered,
            rated: self.rated,
            satisfaction: (self.rated > 0).then(|| self.satisfied / self.rated as f64),
            queue: self.queue,
            queue_bound: queue_bound(alpha, params.q_max, models, params.trials, self.rated),
            satisfaction_at_least: (alpha - shortfall(self.queue, self.rated, self.answered)).max(0.0),
            shadow_price: self.shadow_price,
            guarding: self.guard.active,
            warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn alpha_is_checked_at_its_ends() {
        for bad in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(TenantConfig::new(bad), Err(TenantError::Alpha(_))), "{bad}");
        }
        assert!(TenantConfig::new(0.999).is_ok() && TenantConfig::new(0.001).is_ok());
    }

    proptest! {
        /// The certain part of the guarantee: for every sequence of ratings the mean is at least alpha - Q / n.
        #[test]
        fn the_queue_bounds_the_shortfall(ratings in prop::collection::vec(0.0f64..=1.0, 1..400), alpha in 0.01f64..0.99) {
            let mut tenant = Tenant::new(TenantConfig::new(alpha).unwrap());
            for rating in &ratings {
                tenant.answered += 1;
                tenant.rate(*rating, &Params::default());
                let status = tenant.status(3, None, &Params::default());
                prop_assert!(status.satisfaction.unwrap() >= status.satisfaction_at_least - 1e-9);
                prop_assert!(tenant.deficit <= tenant.queue + 1e-9);
            }
        }
    }
}
