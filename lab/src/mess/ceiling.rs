//! What the features allow: a yardstick between the static mix, which knows the means and no request, and the oracle, which
//! knows every label. Our heads, taught every model's label of the other requests at no cost, route each request with the
//! price that reaches alpha. A router that must pay for its labels as requests come can hardly be below it.

use super::data::{Dataset, Row};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tether_policies::mess::{Answer, Call, ModelSpec, Params, Router, TenantConfig, ZooError};

/// Every request is predicted by heads that were taught the other nine tenths.
const FOLDS: usize = 10;
const TENANT: &str = "all";

/// What is predicted of one model for one request.
#[derive(Debug, Clone, Copy)]
struct Forecast {
    satisfaction: f64,
    cost: f64,
}

#[derive(Debug)]
pub struct Ceiling<'a> {
    data: &'a Dataset,
    /// Per model, per request.
    forecasts: Vec<Vec<Forecast>>,
}

impl<'a> Ceiling<'a> {
    /// # Errors
    /// A name that cannot be a model's.
    pub fn of(data: &'a Dataset, width: usize) -> Result<Self, ZooError> {
        let pairs: Vec<(usize, usize)> =
            (0..data.models.len()).flat_map(|model| (0..FOLDS).map(move |fold| (model, fold))).collect();
        let folds: Result<Vec<Vec<Forecast>>, ZooError> =
            pairs.into_par_iter().map(|(model, fold)| predict(data, width, model, fold)).collect();
        let folds = folds?;
        // Request r is the (r / FOLDS)-th of fold r % FOLDS.
        let model = |folds: &[Vec<Forecast>]| (0..data.rows.len()).map(|r| folds[r % FOLDS][r / FOLDS]).collect();
        Ok(Self { data, forecasts: folds.chunks(FOLDS).map(model).collect() })
    }

    /// The mean cost at the lowest price at which alpha is reached; `None` where it is not.
    pub fn cost(&self, alpha: f64) -> Option<f64> {
        let (mut low, mut high) = (-60.0f64, 60.0f64);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.at(middle.exp2()).0 < alpha { low = middle } else { high = middle }
        }
        let (satisfaction, cost) = self.at(high.exp2());
        (satisfaction >= alpha).then_some(cost)
    }

    /// Mean satisfaction and cost, as they came out, where a satisfied answer is worth `price`.
    fn at(&self, price: f64) -> (f64, f64) {
        let (mut satisfaction, mut cost) = (0.0, 0.0);
        for (r, row) in self.data.rows.iter().enumerate() {
            let worth = |m: usize| self.forecasts[m][r].cost - price * self.forecasts[m][r].satisfaction;
            let best = (0..row.cost.len()).min_by(|&a, &b| worth(a).total_cmp(&worth(b))).unwrap_or(0);
            (satisfaction, cost) = (satisfaction + row.satisfied[best], cost + row.cost[best]);
        }
        let count = self.data.rows.len().max(1) as f64;
        (satisfaction / count, cost / count)
    }
}

/// One model's forecasts for the requests of a fold, by a zoo of that model alone.
fn predict(data: &Dataset, width: usize, model: usize, fold: usize) -> Result<Vec<Forecast>, ZooError> {
    let name = &data.models[model];
    let specs = vec![ModelSpec { name: name.clone(), price: None }];
    let mut router = Router::new(specs, width, TenantConfig::new(0.5)?, Params::default())?;
    // A file sorted by kinds would look like models that change.
    let mut order: Vec<usize> = (0..data.rows.len()).filter(|r| r % FOLDS != fold).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
    for r in order {
        let row = &data.rows[r];
        let turn = r.to_string();
        router.route(&call(row, &turn)).expect("the only model is permitted");
        let answer = Answer { cost: row.cost[model], tokens: None };
        router.answered(&turn, name, answer, 0).expect("the only model was asked");
        router.rate(TENANT, &turn, name, row.satisfied[model], 0).expect("the only model was asked");
    }
    let forecast = |row: &Row| {
        let choice = router.decide(&call(row, "new")).expect("the only model is permitted");
        Forecast { satisfaction: choice.satisfaction, cost: choice.cost.unwrap_or(f64::INFINITY) }
    };
    Ok(data.rows.iter().skip(fold).step_by(FOLDS).map(forecast).collect())
}

fn call<'a>(row: &'a Row, turn: &'a str) -> Call<'a> {
    Call { tenant: TENANT, turn, features: &row.features, permitted: &[true], now_ms: 0, u: 0.5 }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{oracle_cost, static_reference};
    use super::super::run::Stream;
    use super::super::scenario::Scenario;
    use super::super::synthetic::{self, Shape};
    use super::*;
    use tether_policies::mess::{Encoder, HashedEncoder};

    #[test]
    fn it_lies_between_the_oracle_and_the_static_mix_and_is_none_above_what_is_reached() {
        let data = synthetic::zoo(Shape::default(), 1, &HashedEncoder);
        let ceiling = Ceiling::of(&data, HashedEncoder.width()).unwrap();
        let (cost, alpha) = (ceiling.cost(0.8).unwrap(), 0.8);
        let mix = static_reference(&Stream { data: &data, scenario: Scenario::Plain, alpha, seed: 0, changed: 0 });
        assert!(oracle_cost(&data, alpha) < cost && cost < 0.95 * mix.mean_cost, "{cost} {}", mix.mean_cost);
        assert!(ceiling.cost(0.85).unwrap() > cost);
        assert_eq!(ceiling.cost(0.999), None);
    }
}
