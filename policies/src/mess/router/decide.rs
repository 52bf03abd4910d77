//! Deciding: which model answers a request.
//!
//! [`Router::route`] decides and remembers at once. Where several routers follow one log, [`Router::decide`] only
//! reads, and every router of the log remembers the decision with [`Router::record`] when it comes by.

use super::super::model::{Model, with_bias};
use super::super::pending::{Asked, Pending};
use super::super::price::Forecast;
use super::super::static_mix::{self, Means};
use super::super::tenant::Tenant;
use super::{Call, Choice, Decision, Reason, RouteError, Router};
use tether_protocol::limits::MAX_NAME_BYTES;

impl Router {
    /// Chooses the model that answers. The turn then waits for [`Router::answered`] and [`Router::rate`].
    ///
    /// # Errors
    /// What is wrong with the call; nothing has changed then.
    pub fn route(&mut self, call: &Call<'_>) -> Result<Choice, RouteError> {
        let ladder = self.check_new(call)?;
        let request = self.see(call);
        let peeked = self.prepare(call, &ladder, &request);
        let choice = self.choose(call, &ladder, &request, self.tenant(call.tenant), peeked);
        self.remember(call, request.x, &choice);
        Ok(choice)
    }

    /// What [`Router::route`] would choose; nothing is remembered, and a turn that is known may be decided again.
    ///
    /// # Errors
    /// What is wrong with the call.
    pub fn decide(&self, call: &Call<'_>) -> Result<Choice, RouteError> {
        let ladder = self.check(call)?;
        let request = self.see(call);
        let fresh;
        let tenant = match self.tenants.get(call.tenant) {
            Some(tenant) => tenant,
            None => {
                fresh = Tenant::new(self.config(call.tenant).clone());
                &fresh
            }
        };
        let peeked = self.peek(tenant, &ladder);
        Ok(self.choose(call, &ladder, &request, tenant, peeked))
    }

    /// Remembers a decision that was made on this state or on another router's of the same log.
    ///
    /// # Errors
    /// What is wrong with the call, or a model that has left meanwhile; nothing has changed then.
    pub fn record(&mut self, call: &Call<'_>, decision: &Decision) -> Result<(), RouteError> {
        let ladder = self.check_new(call)?;
        let chosen = self.model_names().position(|name| name == decision.model);
        let model = chosen.ok_or_else(|| RouteError::Gone(decision.model.clone()))?;
        let request = self.see(call);
        self.prepare(call, &ladder, &request);
        let forecast = request.view[model].forecast;
        let choice = Choice {
            model,
            extra: None,
            reason: decision.reason,
            propensity: decision.propensity.clamp(0.0, 1.0),
            satisfaction: forecast.satisfaction,
            cost: forecast.cost,
            shadow_price: decision.shadow_price.filter(|price| price.is_finite()),
        };
        self.remember(call, request.x, &choice);
        Ok(())
    }

    /// The choice with its model by name. An extra question is this router's own affair and is not told.
    pub fn decision(&self, choice: &Choice) -> Decision {
        Decision {
            model: self.models[choice.model].spec.name.clone(),
            reason: choice.reason,
            propensity: choice.propensity,
            shadow_price: choice.shadow_price,
        }
    }

    fn check_new(&self, call: &Call<'_>) -> Result<Vec<usize>, RouteError> {
        if self.pending.contains(call.turn) {
            return Err(RouteError::Repeated(call.turn.to_owned()));
        }
        self.check(call)
    }

    /// The models that may answer, cheapest first; never empty.
    fn check(&self, call: &Call<'_>) -> Result<Vec<usize>, RouteError> {
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
        let allowed = self.allowed(self.config(call.tenant));
        let ladder: Vec<usize> = allowed.into_iter().filter(|&m| call.permitted[m]).collect();
        if ladder.is_empty() {
            return Err(RouteError::NoModel(call.tenant.to_owned()));
        }
        Ok(ladder)
    }

    fn config(&self, tenant: &str) -> &super::super::tenant::TenantConfig {
        self.configs.get(tenant).unwrap_or(&self.default_tenant)
    }

    fn see(&self, call: &Call<'_>) -> Request {
        let x = with_bias(call.features);
        let seen = |model: &Model| {
            let score = model.score(&x);
            let satisfaction = score.probability();
            Seen {
                forecast: Forecast { satisfaction, cost: model.cost(&x, call.features.prompt_tokens) },
                hoped: score.optimistic(self.params.optimism),
                deviation: f64::from(score.variance.sqrt()) * satisfaction * (1.0 - satisfaction),
            }
        };
        Request { view: self.models.iter().map(seen).collect(), x }
    }

    /// What a request changes before anything is chosen; a model to ask once, to learn its price.
    fn prepare(&mut self, call: &Call<'_>, ladder: &[usize], request: &Request) -> Option<usize> {
        self.recent.push(request.view.iter().map(|seen| seen.forecast).collect(), self.params.recent);
        let config = self.config(call.tenant).clone();
        self.tenants.get_or_insert_with(call.tenant, || Tenant::new(config));
        let peeked = self.peek(self.tenant(call.tenant), ladder);
        if peeked.is_none() {
            self.climb(call.tenant, ladder);
        }
        peeked
    }

    /// The order of precedence: what must be tried, then the guard, then the static mix, then the predictor.
    fn choose(
        &self,
        call: &Call<'_>,
        ladder: &[usize],
        request: &Request,
        tenant: &Tenant,
        peeked: Option<usize>,
    ) -> Choice {
        let mut choice = self.choose_one(call, ladder, &request.view, tenant, peeked);
        choice.extra = self.extra(call, ladder, &request.view, &choice);
        choice
    }

    fn choose_one(
        &self,
        call: &Call<'_>,
        ladder: &[usize],
        view: &[Seen],
        tenant: &Tenant,
        peeked: Option<usize>,
    ) -> Choice {
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
            return blind(*only, Reason::Only, 1.0);
        }
        if let Some(next) = peeked {
            return blind(next, Reason::Trial, 1.0);
        }
        let usable = &ladder[..tenant.reach.clamp(1, ladder.len())];
        if let Some(&new) = usable.iter().find(|&&m| self.models[m].calls < WARM_UP_CALLS) {
            return blind(new, Reason::WarmUp, 1.0);
        }
        let untried =
            |m: usize| ladder[..2.min(ladder.len())].contains(&m) || self.models[m].calls >= self.params.trials;
        if let Some(&new) = usable.iter().find(|&&m| !untried(m)) {
            return blind(new, Reason::Trial, 1.0);
        }
        if tenant.guard.active {
            let ids: Vec<u32> = usable.iter().map(|&m| self.models[m].id).collect();
            let best = tenant.guard.best(&ids).and_then(|id| usable.iter().find(|&&m| self.models[m].id == id));
            return blind(*best.unwrap_or(&usable[usable.len() - 1]), Reason::Guard, 1.0);
        }
        let skill: f64 = usable.iter().map(|&m| self.models[m].skill()).sum();
        if self.recent.len() < MIN_RECENT || skill < -self.params.floor {
            let (model, share) = self.mix(tenant, usable, call.u);
            return blind(model, Reason::Mix, share);
        }
        let price = self.shadow_price(tenant, usable);
        let worth = |m: usize| view[m].forecast.cost.map_or(f64::INFINITY, |cost| cost - price * view[m].hoped);
        let best = usable.iter().copied().min_by(|&a, &b| worth(a).total_cmp(&worth(b)));
        Choice { shadow_price: Some(price), ..blind(best.unwrap_or(usable[0]), Reason::Price, 1.0) }
    }

    fn tenant(&self, tenant: &str) -> &Tenant {
        self.tenants.get(tenant).expect("route() has just inserted this tenant")
    }

    /// The next rung, to be asked once, where there is a deficit and nothing is known of its price.
    fn peek(&self, tenant: &Tenant, ladder: &[usize]) -> Option<usize> {
        let &next = ladder.get(tenant.reach.clamp(1, ladder.len()))?;
        let unknown = self.models[next].costs.mean().is_none() && self.models[next].calls < WARM_UP_CALLS;
        (tenant.deficit >= self.params.peek && unknown).then_some(next)
    }

    /// Climbs the ladder where the rungs in use have left a deficit.
    fn climb(&mut self, name: &str, ladder: &[usize]) {
        let tenant = self.tenant(name);
        let (deficit, reach) = (tenant.deficit, tenant.reach.clamp(1, ladder.len()));
        let Some(&next) = ladder.get(reach) else { return };
        let top = ladder[reach - 1];
        let Some(next_cost) = self.models[next].costs.mean() else { return };
        let ratio = next_cost / self.models[top].costs.mean().unwrap_or(next_cost).max(f64::MIN_POSITIVE);
        let patience = self.params.patience * ratio.max(1.0).ln();
        if deficit < patience.clamp(self.params.peek, self.params.q_max.max(self.params.peek)) {
            return;
        }
        let weaker = self.models[top].clone();
        self.models[next].inherit(&weaker);
        if let Some(tenant) = self.tenants.peek_mut(name) {
            (tenant.reach, tenant.shadow_price) = (reach + 1, None);
        }
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

    fn shadow_price(&self, tenant: &Tenant, usable: &[usize]) -> f64 {
        if let Some(price) = tenant.shadow_price
            && !tenant.price_is_due(&self.params)
        {
            return price;
        }
        let means = usable.iter().filter_map(|&m| self.models[m].labels.mean());
        let target = tenant.target(means.fold(0.0, f64::max), self.recent.reachable(usable), &self.params);
        let costs = usable.iter().filter_map(|&m| self.models[m].costs.mean());
        self.recent.shadow_price(usable, target, costs.fold(f64::MIN_POSITIVE, f64::max))
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
        let blind = matches!(choice.reason, Reason::Guard | Reason::Trial | Reason::WarmUp | Reason::Only);
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
        let params = &self.params;
        if let Some(tenant) = self.tenants.peek_mut(call.tenant) {
            if choice.shadow_price.is_some() && tenant.price_is_due(params) {
                (tenant.shadow_price, tenant.since_price) = (choice.shadow_price, 0);
            }
            tenant.answered += 1;
            tenant.since_price += 1;
        }
    }
}

/// Each usable model is asked this often before anything is predicted of it.
const WARM_UP_CALLS: u64 = 3;
/// Fewer recent requests than these say too little about the stream.
const MIN_RECENT: usize = 16;

/// One request as the heads see it.
struct Request {
    /// Features and a final 1.
    x: Vec<f32>,
    /// One entry per model of the zoo.
    view: Vec<Seen>,
}

/// What is predicted of one model for one request.
struct Seen {
    forecast: Forecast,
    /// The satisfaction with hope added.
    hoped: f64,
    /// The standard deviation of the satisfaction's probability.
    deviation: f64,
}
