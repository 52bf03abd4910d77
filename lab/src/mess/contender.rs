//! Whatever routes: our router, the published one, and the fixed ones that every report compares with.

use super::data::{Dataset, Row};
use std::collections::HashMap;
use tether_policies::mess::static_mix::Mix;
use tether_policies::mess::{
    Answer, Call, ModelSpec, Params, Published, PublishedChoice, PublishedParams, Router, TenantConfig, TenantStatus,
};

/// Models are numbered as in the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub served: usize,
    pub extra: Vec<usize>,
}

/// A router under test. It sees a request's features, and of a model only what it asked for.
pub trait Contender {
    /// `u` is uniform in 0..1.
    fn choose(&mut self, turn: usize, tenant: usize, row: &Row, u: f64) -> Asked;

    fn paid(&mut self, _turn: usize, _model: usize, _cost: f64) {}

    fn rated(&mut self, _turn: usize, _tenant: usize, _model: usize, _served: bool, _satisfied: f64) {}

    fn reprice(&mut self, _model: usize, _factor: f64) {}

    fn add_model(&mut self, _model: usize) {}

    /// The guarantee's figures, where there are any.
    fn status(&self, _tenant: usize) -> Option<TenantStatus> {
        None
    }
}

/// Our router, with the models that are present at the start.
pub struct Tether {
    router: Router,
    names: Vec<String>,
    /// Data set's numbers, in the ladder's order.
    ladder: Vec<usize>,
}

impl Tether {
    pub fn new(
        data: &Dataset,
        present: &[usize],
        width: usize,
        alphas: &[f64],
        params: Params,
    ) -> anyhow::Result<Self> {
        let spec = |&m: &usize| ModelSpec { name: data.models[m].clone(), price: None };
        let specs = present.iter().map(spec).collect();
        let mut router = Router::new(specs, width, TenantConfig::new(alphas[0])?, params)?;
        for (tenant, &alpha) in alphas.iter().enumerate() {
            router.set_tenant(&tenant.to_string(), TenantConfig::new(alpha)?)?;
        }
        Ok(Self { router, names: data.models.clone(), ladder: present.to_vec() })
    }
}

impl Contender for Tether {
    fn choose(&mut self, turn: usize, tenant: usize, row: &Row, u: f64) -> Asked {
        let permitted = vec![true; self.ladder.len()];
        let (tenant, turn_id) = (tenant.to_string(), turn.to_string());
        let call = Call {
            tenant: &tenant,
            turn: &turn_id,
            features: &row.features,
            permitted: &permitted,
            now_ms: turn as i64,
            u,
        };
        let choice = self.router.route(&call).expect("the simulator makes only legal calls");
        Asked { served: self.ladder[choice.model], extra: choice.extra.iter().map(|&m| self.ladder[m]).collect() }
    }

    fn paid(&mut self, turn: usize, model: usize, cost: f64) {
        let answer = Answer { cost, tokens: None };
        self.router
            .answered(&turn.to_string(), &self.names[model], answer, turn as i64)
            .expect("the simulator reports only models that were asked");
    }

    fn rated(&mut self, turn: usize, tenant: usize, model: usize, _served: bool, satisfied: f64) {
        self.router
            .rate(&tenant.to_string(), &turn.to_string(), &self.names[model], satisfied, turn as i64)
            .expect("the simulator rates only models that were asked");
    }

    fn reprice(&mut self, model: usize, factor: f64) {
        self.router.reprice(&self.names[model], None, factor).expect("the simulator's factors are legal");
    }

    fn add_model(&mut self, model: usize) {
        let rung = self.ladder.iter().position(|&m| m > model).unwrap_or(self.ladder.len());
        let spec = ModelSpec { name: self.names[model].clone(), price: None };
        self.router.add_model(spec, rung).expect("the simulator adds a model once");
        self.ladder.insert(rung, model);
    }

    fn status(&self, tenant: usize) -> Option<TenantStatus> {
        self.router.tenant_status(&tenant.to_string())
    }
}

/// MESS+ as published. One queue: it knows one alpha.
pub struct PublishedRouter {
    router: Published,
    largest: usize,
    /// Labels of explored requests that are not complete yet.
    explored: HashMap<usize, (Vec<f32>, Vec<Option<f64>>)>,
}

impl PublishedRouter {
    pub fn new(models: usize, width: usize, params: PublishedParams) -> Self {
        Self { router: Published::new(models, width, params), largest: models - 1, explored: HashMap::new() }
    }
}

impl Contender for PublishedRouter {
    fn choose(&mut self, turn: usize, _tenant: usize, row: &Row, u: f64) -> Asked {
        match self.router.choose(&row.features.values, u) {
            PublishedChoice::Exploit(served) => Asked { served, extra: vec![] },
            PublishedChoice::Explore => {
                self.explored.insert(turn, (row.features.values.clone(), vec![None; self.largest + 1]));
                Asked { served: self.largest, extra: (0..self.largest).collect() }
            }
        }
    }

    fn paid(&mut self, _turn: usize, model: usize, cost: f64) {
        self.router.paid(model, cost);
    }

    fn rated(&mut self, turn: usize, _tenant: usize, model: usize, served: bool, satisfied: f64) {
        if served {
            self.router.served(satisfied);
        }
        let Some((features, labels)) = self.explored.get_mut(&turn) else { return };
        labels[model] = Some(satisfied);
        if let Some(labels) = labels.iter().copied().collect::<Option<Vec<f64>>>() {
            self.router.learn(features, &labels);
            self.explored.remove(&turn);
        }
    }
}

/// Always the same model.
pub struct Single(pub usize);

impl Contender for Single {
    fn choose(&mut self, _turn: usize, _tenant: usize, _row: &Row, _u: f64) -> Asked {
        Asked { served: self.0, extra: vec![] }
    }
}

/// The cheapest static mix that knows the means, per tenant; a model that is not there yet is replaced by the other.
pub struct StaticMix(pub Vec<Mix>);

impl Contender for StaticMix {
    fn choose(&mut self, _turn: usize, tenant: usize, _row: &Row, u: f64) -> Asked {
        let mix = self.0[tenant];
        Asked { served: if u < mix.share { mix.upper } else { mix.lower }, extra: vec![] }
    }
}

/// Models in given proportions, blindly.
pub struct RandomMix(pub Vec<f64>);

impl Contender for RandomMix {
    fn choose(&mut self, _turn: usize, _tenant: usize, _row: &Row, u: f64) -> Asked {
        let total: f64 = self.0.iter().sum();
        let mut left = u * total;
        let served = self.0.iter().position(|share| {
            left -= share;
            left < 0.0
        });
        Asked { served: served.unwrap_or(0), extra: vec![] }
    }
}
