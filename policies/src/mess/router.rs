//! The router: which model answers a request, and what its ratings teach.

use super::features::RequestFeatures;
use super::lru::Lru;
use super::model::{Model, ModelSpec, TokenPrice, with_bias};
use super::params::Params;
use super::pending::{Asked, Pending, PendingTurns};
use super::price::{Forecast, Recent};
use super::static_mix::{self, Means};
use super::tenant::{Tenant, TenantConfig, TenantError, TenantStatus};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
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

/// Which model answers, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Index into the ladder.
    pub model: usize,
    /// One more model to ask for its label alone; its answer is not returned.
    pub extra: Option<usize>,
    /// `warm_up`, `trial`, `guard`, `mix`, `price` or `only`.
    pub reason: &'static str,
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

// Deciding.
impl Router {
    /// Chooses the model that answers. The turn then waits for [`Router::answered`] and [`Router::rate`].
    pub fn route(&mut self, call: &Call<'_>) -> Result<Choice, RouteError> {
        self.check(call)?;
        let config = self.configs.get(call.tenant).unwrap_or(&self.default_tenant).clone();
        let ladder: Vec<usize> = self.allowed(&config).into_iter().filter(|&m| call.permitted[m]).collect();
        if ladder.is_empty() {
            return Err(RouteError::NoModel(call.tenant.to_owned()));
        }
        let x = with_bias(call.features);
        let view = self.view(&x, call.features.prompt_tokens);
        self.recent.push(view.iter().map(|seen| seen.forecast).collect(), self.params.recent);
        self.tenants.get_or_insert_with(call.tenant, || Tenant::new(config));
        let mut choice = self.choose(call, &ladder, &view);
        choice.extra = self.extra(call, &ladder, &view, &choice);
        self.remember(call, x, &choice);
        Ok(choice)
    }

    fn check(&self, call: &Call<'_>) -> Result<(), RouteError> {
        let shape = |what, given, expected| {
            if given == expected { Ok(()) } else { Err(RouteError::Shape { what, given, expected }) }
        };
        shape("the list of permitted models", call.permitted.len(), self.models.len())?;
        shape("the feature vector", call.features.values.len(), self.width)?;
        if !call.features.values.iter().all(|value| value.is_finite() && value.abs() < 1e3) {
            return Err(RouteError::NotFinite);
        }
        if call.tenant.is_empty() || call.tenant.len() > MAX_NAME_BYTES {
            return Err(RouteError::Tenant(call.tenant.chars().take(MAX_NAME_BYTES).collect()));
        }
        if self.pending.contains(call.turn) {
            return Err(RouteError::Repeated(call.turn.to_owned()));
        }
        Ok(())
    }

    fn view(&self, x: &[f32], prompt_tokens: u32) -> Vec<Seen> {
        let seen = |model: &Model| {
            let score = model.score(x);
            let satisfaction = score.probability();
            Seen {
                forecast: Forecast { satisfaction, cost: model.cost(x, prompt_tokens) },
                hoped: score.optimistic(self.params.optimism),
                deviation: f64::from(score.variance.sqrt()) * satisfaction * (1.0 - satisfaction),
            }
        };
        self.models.iter().map(seen).collect()
    }

    /// The order of precedence: what must be tried, then the guard, then the static mix, then the predictor.
    fn choose(&mut self, call: &Call<'_>, ladder: &[usize], view: &[Seen]) -> Choice {
        let blind = |model, reason, propensity| Choice {
            model,
            extra: None,
            reason,
            propensity,
            satisfaction: view[model].forecast.satisfaction,
            cost: view[model].forecast.cost,
            shadow_price: None,
        };
        if let [only] = ladder {
            return blind(*only, "only", 1.0);
        }
        if let Some(next) = self.climb(call.tenant, ladder) {
            return blind(next, "trial", 1.0);
        }
        let tenant = self.tenant(call.tenant);
        let usable = &ladder[..tenant.reach.clamp(1, ladder.len())];
        if let Some(&new) = usable.iter().find(|&&m| self.models[m].calls < WARM_UP_CALLS) {
            return blind(new, "warm_up", 1.0);
        }
        let untried =
            |m: usize| ladder[..2.min(ladder.len())].contains(&m) || self.models[m].calls >= self.params.trials;
        if let Some(&new) = usable.iter().find(|&&m| !untried(m)) {
            return blind(new, "trial", 1.0);
        }
        if tenant.guard.active {
            let ids: Vec<u32> = usable.iter().map(|&m| self.models[m].id).collect();
            let best = tenant.guard.best(&ids).and_then(|id| usable.iter().find(|&&m| self.models[m].id == id));
            return blind(*best.unwrap_or(&usable[usable.len() - 1]), "guard", 1.0);
        }
        let skill: f64 = usable.iter().map(|&m| self.models[m].skill()).sum();
        if self.recent.len() < MIN_RECENT || skill < -self.params.floor {
            let (model, share) = self.mix(tenant, usable, call.u);
            return blind(model, "mix", share);
        }
        let usable = usable.to_vec();
        let price = self.shadow_price(call.tenant, &usable);
        let worth = |m: usize| view[m].forecast.cost.map_or(f64::INFINITY, |cost| cost - price * view[m].hoped);
        let best = usable.iter().copied().min_by(|&a, &b| worth(a).total_cmp(&worth(b)));
        Choice { shadow_price: Some(price), ..blind(best.unwrap_or(usable[0]), "price", 1.0) }
    }

    fn tenant(&self, tenant: &str) -> &Tenant {
        self.tenants.get(tenant).expect("route() has just inserted this tenant")
    }

    /// Climbs the ladder where the rungs in use have left a deficit; the model to ask once, to learn its price.
    fn climb(&mut self, name: &str, ladder: &[usize]) -> Option<usize> {
        let tenant = self.tenant(name);
        let (deficit, reach) = (tenant.deficit, tenant.reach.clamp(1, ladder.len()));
        let &next = ladder.get(reach)?;
        let top = ladder[reach - 1];
        if deficit < self.params.peek {
            return None;
        }
        let Some(next_cost) = self.models[next].costs.mean() else {
            return (self.models[next].calls < WARM_UP_CALLS).then_some(next);
        };
        let ratio = next_cost / self.models[top].costs.mean().unwrap_or(next_cost).max(f64::MIN_POSITIVE);
        let patience = self.params.patience * ratio.max(1.0).ln();
        if deficit >= patience.clamp(self.params.peek, self.params.q_max.max(self.params.peek)) {
            let weaker = self.models[top].clone();
            self.models[next].inherit(&weaker);
            if let Some(tenant) = self.tenants.peek_mut(name) {
                (tenant.reach, tenant.shadow_price) = (reach + 1, None);
            }
        }
        None
    }

    /// The cheapest mix over the measured means, drawn by `u`; the share of the model drawn.
    fn mix(&self, tenant: &Tenant, usable: &[usize], u: f64) -> (usize, f64) {
        let means = |&m: &usize| {
            let model = &self.models[m];
            Means { satisfaction: model.labels.mean().unwrap_or(0.5), cost: model.costs.mean().unwrap_or(0.0) }
        };
        let means: Vec<Means> = usable.iter().map(means).collect();
        let best = (0..means.len()).max_by(|&a, &b| means[a].satisfaction.total_cmp(&means[b].satisfaction));
        let best = best.unwrap_or(0);
        let alpha = tenant.target(means[best].satisfaction, means[best].satisfaction, &self.params);
        match static_mix::cheapest(&means, alpha) {
            Some(mix) if u < mix.share => (usable[mix.upper], mix.share),
            Some(mix) => (usable[mix.lower], 1.0 - mix.share),
            None => (usable[best], 1.0),
        }
    }

    fn shadow_price(&mut self, name: &str, usable: &[usize]) -> f64 {
        let tenant = self.tenant(name);
        if let Some(price) = tenant.shadow_price
            && tenant.since_price < self.params.price_every
        {
            return price;
        }
        let means = usable.iter().filter_map(|&m| self.models[m].labels.mean());
        let target = tenant.target(means.fold(0.0, f64::max), self.recent.reachable(usable), &self.params);
        let costs = usable.iter().filter_map(|&m| self.models[m].costs.mean());
        let price = self.recent.shadow_price(usable, target, costs.fold(f64::MIN_POSITIVE, f64::max));
        if let Some(tenant) = self.tenants.peek_mut(name) {
            (tenant.shadow_price, tenant.since_price) = (Some(price), 0);
        }
        price
    }

    /// One much cheaper model whose label could change such a decision, now and then.
    fn extra(&self, call: &Call<'_>, ladder: &[usize], view: &[Seen], choice: &Choice) -> Option<usize> {
        let price = choice.shadow_price?;
        // The digits of `u` below the ones that the mix uses.
        if (call.u * 4096.0).fract() >= self.params.extra {
            return None;
        }
        let chosen = &view[choice.model];
        let chosen_cost = chosen.forecast.cost?;
        let useful = |&m: &usize| {
            let (seen, cost) = (&view[m], view[m].forecast.cost.unwrap_or(f64::INFINITY));
            let behind = (cost - price * seen.hoped) - (chosen_cost - price * chosen.hoped);
            m != choice.model && cost <= self.params.extra_cost * chosen_cost && behind < 2.0 * price * seen.deviation
        };
        ladder.iter().copied().filter(useful).max_by(|&a, &b| view[a].deviation.total_cmp(&view[b].deviation))
    }

    fn remember(&mut self, call: &Call<'_>, x: Vec<f32>, choice: &Choice) {
        let blind = matches!(choice.reason, "guard" | "trial" | "warm_up" | "only");
        let asked = |m: usize, propensity: f64, served: bool| Asked {
            model: self.models[m].id,
            propensity,
            served,
            blind: served && blind,
            answered: false,
            rated: false,
        };
        let mut all = vec![asked(choice.model, choice.propensity, true)];
        all.extend(choice.extra.map(|m| asked(m, self.params.extra, false)));
        self.pending.insert(call.turn, Pending::new(call.tenant, x, all, call.now_ms));
        for m in [Some(choice.model), choice.extra].into_iter().flatten() {
            self.models[m].calls += 1;
        }
        if let Some(tenant) = self.tenants.peek_mut(call.tenant) {
            tenant.answered += 1;
            tenant.since_price += 1;
        }
    }
}

/// Each usable model is asked this often before anything is predicted of it.
const WARM_UP_CALLS: u64 = 3;
/// Fewer recent requests than these say too little about the stream.
const MIN_RECENT: usize = 16;

/// What is predicted of one model for one request.
struct Seen {
    forecast: Forecast,
    /// The satisfaction with hope added.
    hoped: f64,
    /// The standard deviation of the satisfaction's probability.
    deviation: f64,
}

// Learning.
impl Router {
    /// Tells what a model's answer to a turn cost. News of an unknown turn or a removed model is an error.
    pub fn answered(&mut self, turn: &str, model: &str, answer: Answer, now_ms: i64) -> Result<(), RateError> {
        if !(answer.cost.is_finite() && answer.cost >= 0.0) {
            return Err(RateError::Value { what: "the cost", range: "of at least 0" });
        }
        let (model, pending, entry) = self.asked(turn, model, now_ms)?;
        if std::mem::replace(&mut pending.asked[entry].answered, true) {
            return Ok(());
        }
        let length = match model.spec.price {
            Some(_) => answer.tokens.map_or(0.0, f64::from),
            None => answer.cost,
        };
        model.learn_cost(&pending.x, answer.cost, length);
        Ok(())
    }

    /// Learns a rating, 0 (not satisfied) to 1 (satisfied), of a model's answer to a turn of this tenant, once.
    pub fn rate(
        &mut self,
        tenant: &str,
        turn: &str,
        model: &str,
        satisfied: f64,
        now_ms: i64,
    ) -> Result<LabelOutcome, RateError> {
        if !(0.0..=1.0).contains(&satisfied) {
            return Err(RateError::Value { what: "a rating", range: "from 0 to 1" });
        }
        let params = self.params;
        let (learner, pending, entry) = self.asked(turn, model, now_ms)?;
        if pending.tenant != tenant {
            return Err(RateError::Foreign(turn.to_owned()));
        }
        if std::mem::replace(&mut pending.asked[entry].rated, true) {
            return Ok(LabelOutcome::Duplicate);
        }
        let asked = pending.asked[entry].clone();
        let weight = (1.0 / asked.propensity.max(1e-3)).min(f64::from(params.max_weight)) as f32;
        let changed = learner.learn_label(&pending.x, satisfied, weight, &params);
        if let Some(tenant) = self.tenants.peek_mut(tenant) {
            if asked.blind {
                tenant.guard.learn(asked.model, satisfied);
            }
            if asked.served {
                tenant.rate(satisfied, &params);
            }
        }
        if changed {
            self.tenants.values_mut().for_each(|tenant| tenant.guard.forget(asked.model));
        }
        Ok(LabelOutcome::Learned)
    }

    /// Learns a rating of the answer that was returned, for a caller that does not remember whose it was.
    pub fn rate_served(
        &mut self,
        tenant: &str,
        turn: &str,
        satisfied: f64,
        now_ms: i64,
    ) -> Result<LabelOutcome, RateError> {
        let unknown = || RateError::Unknown(turn.to_owned());
        let pending = self.pending.get_mut(turn, now_ms).ok_or_else(unknown)?;
        let served = pending.asked.iter().find(|asked| asked.served && asked.answered).map(|asked| asked.model);
        let model = self.models.iter().find(|model| Some(model.id) == served).ok_or_else(unknown)?;
        let name = model.spec.name.clone();
        self.rate(tenant, turn, &name, satisfied, now_ms)
    }

    /// Takes a decision back whose answer never came, so that the turn may be routed again and nobody can rate it.
    /// False, and nothing happens, if it is unknown or was answered.
    pub fn withdraw(&mut self, turn: &str) -> bool {
        let came = |pending: &Pending| pending.asked.iter().any(|asked| asked.answered);
        if self.pending.get(turn).is_none_or(came) {
            return false;
        }
        let Some(pending) = self.pending.remove(turn) else { return false };
        for asked in &pending.asked {
            if let Some(model) = self.models.iter_mut().find(|model| model.id == asked.model) {
                model.calls = model.calls.saturating_sub(1);
            }
        }
        if let Some(tenant) = self.tenants.peek_mut(&pending.tenant) {
            tenant.answered = tenant.answered.saturating_sub(1);
        }
        true
    }

    fn asked(&mut self, turn: &str, model: &str, now_ms: i64) -> Result<(&mut Model, &mut Pending, usize), RateError> {
        let not_asked = || RateError::NotAsked { turn: turn.to_owned(), model: model.to_owned() };
        let learner = self.models.iter_mut().find(|known| known.spec.name == model).ok_or_else(not_asked)?;
        let pending = self.pending.get_mut(turn, now_ms).ok_or_else(|| RateError::Unknown(turn.to_owned()))?;
        let entry = pending.asked.iter().position(|asked| asked.model == learner.id).ok_or_else(not_asked)?;
        Ok((learner, pending, entry))
    }

    /// Whether every number can be that of a router; what a loaded state is checked for.
    pub(super) fn is_sound(&self) -> bool {
        let ids: HashSet<u32> = self.models.iter().map(|model| model.id).collect();
        !self.models.is_empty()
            && self.models.len() <= MAX_ZOO_MODELS
            && ids.len() == self.models.len()
            && ids.iter().all(|&id| id < self.next_id)
            && self.models.iter().all(|model| model.is_sound(self.width))
            && self.recent.is_sound(self.models.len())
            && self.pending.is_sound(self.width)
            && self.tenants.iter().all(|(_, tenant)| tenant.is_sound())
            && self.default_tenant.clone().checked().is_ok()
    }
}
