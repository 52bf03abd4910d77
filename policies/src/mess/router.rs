//! The router: which model answers a request ([`decide`]), and what its ratings teach ([`learn`]).

mod decide;
mod learn;

use super::features::RequestFeatures;
use super::lru::Lru;
use super::model::{Model, ModelSpec, TokenPrice};
use super::params::Params;
use super::pending::PendingTurns;
use super::price::Recent;
use super::tenant::{Tenant, TenantConfig, TenantError, TenantStatus};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tether_protocol::limits::{MAX_NAME_BYTES, MAX_TENANTS, MAX_ZOO_MODELS};

/// Routes requests of many tenants among one zoo. Deterministic: the same calls in the same order give the same state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    pub(super) params: Params,
    /// Numbers in [`RequestFeatures::values`].
    pub(super) width: usize,
    /// The ladder, cheapest first.
    pub(super) models: Vec<Model>,
    pub(super) next_id: u32,
    pub(super) recent: Recent,
    pub(super) pending: PendingTurns,
    pub(super) default_tenant: TenantConfig,
    pub(super) configs: HashMap<String, TenantConfig>,
    pub(super) tenants: Lru<Tenant>,
}

/// One request to be routed.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub tenant: &'a str,
    /// Names the turn in later answers and ratings.
    pub turn: &'a str,
    pub features: &'a RequestFeatures,
    /// For each model of the ladder, whether hard facts permit it: it is up, it takes these images, it fits.
    pub permitted: &'a [bool],
    pub now_ms: i64,
    /// A uniform number in 0..1, the only source of chance.
    pub u: f64,
}

/// Why a model was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing else may answer.
    Only,
    /// Too little is known of it to predict anything.
    WarmUp,
    /// A rung that was just climbed to, or is looked at once to learn its price.
    Trial,
    /// The queue is too long: the highest measured mean.
    Guard,
    /// The cheapest mix over measured means.
    Mix,
    /// The least `cost - shadow price x satisfaction`.
    Price,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::WarmUp => "warm_up",
            Self::Trial => "trial",
            Self::Guard => "guard",
            Self::Mix => "mix",
            Self::Price => "price",
        }
    }
}

/// A choice as other routers of the same log are told of it: by name, because ladders may differ for a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub model: String,
    pub reason: Reason,
    pub propensity: f64,
    pub shadow_price: Option<f64>,
}

/// Which model answers, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Index into the ladder.
    pub model: usize,
    /// One more model to ask for its label alone; its answer is not returned.
    pub extra: Option<usize>,
    pub reason: Reason,
    /// The probability with which `model` was chosen.
    pub propensity: f64,
    /// Predictions for the chosen model.
    pub satisfaction: f64,
    pub cost: Option<f64>,
    pub shadow_price: Option<f64>,
}

/// What an answer cost. `tokens` are needed where the model's price per token is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub cost: f64,
    pub tokens: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ZooError {
    #[error("the zoo has no models; name at least one")]
    Empty,
    #[error("the zoo has {0} models, at most {MAX_ZOO_MODELS} are allowed")]
    TooMany(usize),
    #[error("model name {0:?} is empty, too long or given twice")]
    Name(String),
    #[error("the price of {name} is {value}; a price must be a finite number of at least 0")]
    Price { name: String, value: f64 },
    #[error("no model of the zoo is called {0:?}")]
    Unknown(String),
    #[error(transparent)]
    Tenant(#[from] TenantError),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RouteError {
    #[error("no model is both permitted for this request and allowed to tenant {0:?}")]
    NoModel(String),
    #[error("{what} has {given} entries, this router needs {expected}")]
    Shape { what: &'static str, given: usize, expected: usize },
    #[error("a feature of the request is not a finite number")]
    NotFinite,
    #[error("tenant name {0:?} is empty or longer than {MAX_NAME_BYTES} bytes")]
    Tenant(String),
    #[error("turn {0} was routed already")]
    Repeated(String),
    #[error("the model {0:?} that was chosen has left the zoo")]
    Gone(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("turn {0} is unknown: never routed here, or rated too late")]
    Unknown(String),
    #[error("turn {0} belongs to another tenant")]
    Foreign(String),
    #[error("model {model:?} did not answer turn {turn}")]
    NotAsked { turn: String, model: String },
    #[error("{what} must be a finite number {range}")]
    Value { what: &'static str, range: &'static str },
}

/// What became of a rating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOutcome {
    Learned,
    /// This answer was rated before; the first rating stands.
    Duplicate,
}

/// Labels and calls of one model, for metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelStatus {
    pub name: String,
    pub calls: u64,
    pub labels: f64,
    pub satisfaction: Option<f64>,
    pub mean_cost: Option<f64>,
}

impl Router {
    /// `zoo` is the ladder, cheapest first; `width` the encoder's; `default_tenant` serves tenants without their own.
    pub fn new(
        zoo: Vec<ModelSpec>,
        width: usize,
        default_tenant: TenantConfig,
        params: Params,
    ) -> Result<Self, ZooError> {
        if zoo.is_empty() {
            return Err(ZooError::Empty);
        }
        let mut router = Self {
            params,
            width,
            models: Vec::new(),
            next_id: 0,
            recent: Recent::default(),
            pending: PendingTurns::default(),
            default_tenant: default_tenant.checked()?,
            configs: HashMap::new(),
            tenants: Lru::new(MAX_TENANTS),
        };
        for spec in zoo {
            router.add_model(spec, router.models.len())?;
        }
        Ok(router)
    }

    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| model.spec.name.as_str())
    }

    /// The ladder, cheapest first, as it was told.
    pub fn specs(&self) -> impl Iterator<Item = &ModelSpec> {
        self.models.iter().map(|model| &model.spec)
    }

    pub fn model_status(&self) -> Vec<ModelStatus> {
        let status = |model: &Model| ModelStatus {
            name: model.spec.name.clone(),
            calls: model.calls,
            labels: model.labels.count,
            satisfaction: model.labels.mean(),
            mean_cost: model.costs.mean(),
        };
        self.models.iter().map(status).collect()
    }

    /// Agrees on a level with a tenant; its queue so far is kept.
    pub fn set_tenant(&mut self, tenant: &str, config: TenantConfig) -> Result<(), ZooError> {
        let config = config.checked()?;
        for name in config.models.iter().flatten() {
            self.position(name)?;
        }
        if let Some(known) = self.tenants.peek_mut(tenant) {
            known.config = config.clone();
        }
        self.configs.insert(tenant.to_owned(), config);
        Ok(())
    }

    /// Adds a model at a rung of the ladder, at run time too.
    pub fn add_model(&mut self, spec: ModelSpec, rung: usize) -> Result<(), ZooError> {
        check_price(&spec.name, spec.price)?;
        if self.models.len() >= MAX_ZOO_MODELS {
            return Err(ZooError::TooMany(self.models.len() + 1));
        }
        let fresh = !spec.name.is_empty() && spec.name.len() <= MAX_NAME_BYTES && self.position(&spec.name).is_err();
        if !fresh {
            return Err(ZooError::Name(spec.name.chars().take(MAX_NAME_BYTES).collect()));
        }
        let rung = rung.min(self.models.len());
        self.models.insert(rung, Model::new(self.next_id, spec, rung, self.width, &self.params));
        self.next_id += 1;
        self.recent.clear();
        for tenant in self.tenants.values_mut().filter(|tenant| rung < tenant.reach) {
            tenant.reach += 1;
        }
        Ok(())
    }

    /// Takes a model out; answers of it that are still on their way teach nobody.
    pub fn remove_model(&mut self, name: &str) -> Result<(), ZooError> {
        let position = self.position(name)?;
        if self.models.len() == 1 {
            return Err(ZooError::Empty);
        }
        let removed = self.models.remove(position);
        self.recent.clear();
        for tenant in self.tenants.values_mut() {
            tenant.guard.remove(removed.id);
            if position < tenant.reach {
                tenant.reach = (tenant.reach - 1).max(1);
            }
        }
        Ok(())
    }

    /// Tells of a new price. `factor` is new over old cost where prices per token are not known, else 1.
    pub fn reprice(&mut self, name: &str, price: Option<TokenPrice>, factor: f64) -> Result<(), ZooError> {
        check_price(name, price)?;
        if !(factor.is_finite() && factor > 0.0) {
            return Err(ZooError::Price { name: name.to_owned(), value: factor });
        }
        let position = self.position(name)?;
        self.models[position].reprice(price, factor);
        // Forecasts of the old price would set the shadow price for the next few hundred requests.
        self.recent.clear();
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize, ZooError> {
        let found = self.models.iter().position(|model| model.spec.name == name);
        found.ok_or_else(|| ZooError::Unknown(name.chars().take(MAX_NAME_BYTES).collect()))
    }

    pub fn tenant_status(&self, tenant: &str) -> Option<TenantStatus> {
        let known = self.tenants.get(tenant)?;
        let allowed = self.allowed(&known.config);
        Some(known.status(allowed.len(), self.warning(known, &allowed), &self.params))
    }

    /// Tenants seen, in no order.
    pub fn tenant_names(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().map(|(name, _)| name)
    }

    /// The level of tenants without their own, from now on; and of those seen already that have none.
    pub fn set_default_tenant(&mut self, config: TenantConfig) -> Result<(), ZooError> {
        self.default_tenant = config.checked()?;
        let (configs, default) = (&self.configs, &self.default_tenant);
        self.tenants.retune(|name, tenant| {
            if !configs.contains_key(name) {
                tenant.config = default.clone();
            }
        });
        Ok(())
    }

    /// Ends every tenant's own agreement; the default holds until [`Router::set_tenant`] says otherwise.
    pub fn clear_tenants(&mut self) {
        self.configs.clear();
    }

    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// Turns that can still be rated.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    fn warning(&self, tenant: &Tenant, allowed: &[usize]) -> Option<String> {
        let alpha = tenant.config.alpha;
        let below = |&m: &usize| {
            let labels = &self.models[m].labels;
            labels.mean().is_some_and(|mean| mean + (alpha * (1.0 - alpha) / labels.count).sqrt() * 2.0 < alpha)
        };
        (tenant.guard.active && allowed.iter().all(below))
            .then(|| format!("alpha {alpha} is above what any permitted model reaches; the best measured one answers"))
    }

    fn allowed(&self, config: &TenantConfig) -> Vec<usize> {
        let allowed = |m: &usize| {
            let name = &self.models[*m].spec.name;
            config.models.as_ref().is_none_or(|names| names.contains(name))
        };
        (0..self.models.len()).filter(allowed).collect()
    }
}

fn check_price(name: &str, price: Option<TokenPrice>) -> Result<(), ZooError> {
    let values = price.map_or([0.0; 2], |price| [price.input_per_token, price.output_per_token]);
    match values.into_iter().find(|value| !(value.is_finite() && *value >= 0.0)) {
        Some(value) => Err(ZooError::Price { name: name.to_owned(), value }),
        None => Ok(()),
    }
}
