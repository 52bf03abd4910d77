//! What the settings agree on: the zoo with its prices, and a level for each tenant.

use crate::config::{RoutingSettings, Settings};
use crate::price::Prices;
use serde::{Deserialize, Serialize};
use tether_policies::mess::{ModelSpec, Params, Router, TenantConfig, TokenPrice, ZooError};
use tether_protocol::record::Usage;

/// The part of the settings that the learned state depends on; gateways that share a state share this as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Agreement {
    /// Sorted by name, so that the order in the settings makes no difference.
    zoo: Vec<(String, Prices)>,
    pub(super) default: TenantConfig,
    pub(super) tenants: Vec<(String, TenantConfig)>,
}

impl Agreement {
    pub(super) fn of(settings: &Settings, routing: &RoutingSettings) -> Self {
        let mut zoo: Vec<_> = settings.zoo.iter().map(|backend| (backend.name.clone(), backend.prices)).collect();
        zoo.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tenants = routing.tenants.clone();
        tenants.sort_by(|a, b| a.0.cmp(&b.0));
        Self { zoo, default: routing.default.clone(), tenants }
    }

    /// A router that has learned nothing.
    pub(super) fn fresh(&self, width: usize) -> Result<Router, ZooError> {
        let mut zoo = self.zoo.clone();
        zoo.sort_by(|a, b| nominal_usd(a.1).total_cmp(&nominal_usd(b.1)));
        let specs = zoo.iter().map(|(name, prices)| spec(name, *prices)).collect();
        // A label of an answer that nobody saw cannot be had here.
        let params = Params { extra: 0.0, ..Params::default() };
        let mut router = Router::new(specs, width, self.default.clone(), params)?;
        agree(&mut router, self)?;
        Ok(router)
    }

    fn names(&self, name: &str) -> bool {
        self.zoo.iter().any(|(known, _)| known == name)
    }
}

/// Brings a router to an agreement. Models that stay keep their rung and what was learned.
pub(super) fn agree(router: &mut Router, agreement: &Agreement) -> Result<(), ZooError> {
    for (name, prices) in &agreement.zoo {
        let wanted = spec(name, *prices);
        let known = router.specs().find(|spec| spec.name == wanted.name).cloned();
        match known {
            None => {
                let price = nominal_usd(*prices);
                let cheaper = |name: &str| {
                    agreement.zoo.iter().any(|(other, prices)| other == name && nominal_usd(*prices) <= price)
                };
                let rung = router.model_names().filter(|name| cheaper(name)).count();
                make_room(router, agreement)?;
                router.add_model(wanted, rung)?;
            }
            Some(known) if known.price != wanted.price => {
                router.reprice(&wanted.name, wanted.price, ratio(known.price, wanted.price))?;
            }
            Some(_) => {}
        }
    }
    while let Some(gone) = gone(router, agreement) {
        router.remove_model(&gone)?;
    }
    router.clear_tenants();
    router.set_default_tenant(agreement.default.clone())?;
    for (name, config) in &agreement.tenants {
        router.set_tenant(name, config.clone())?;
    }
    Ok(())
}

fn ratio(old: Option<TokenPrice>, new: Option<TokenPrice>) -> f64 {
    let nominal = |price: TokenPrice| 1_000.0 * price.input_per_token + 200.0 * price.output_per_token;
    let ratio = match (old, new) {
        (Some(old), Some(new)) => nominal(new) / nominal(old),
        _ => 1.0,
    };
    if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
}

fn gone(router: &Router, agreement: &Agreement) -> Option<String> {
    router.model_names().find(|name| !agreement.names(name)).map(str::to_owned)
}

/// A full ladder cannot take the new models before the old ones have left.
fn make_room(router: &mut Router, agreement: &Agreement) -> Result<(), ZooError> {
    if let Some(gone) = gone(router, agreement)
        && router.model_names().count() > 1
    {
        router.remove_model(&gone)?;
    }
    Ok(())
}

fn spec(name: &str, prices: Prices) -> ModelSpec {
    let by_token = prices.usd_per_request == 0.0 && prices.usd_per_image == 0.0;
    let price = TokenPrice {
        input_per_token: prices.usd_per_million_prompt_tokens / 1e6,
        output_per_token: prices.usd_per_million_completion_tokens / 1e6,
    };
    ModelSpec { name: name.to_owned(), price: by_token.then_some(price) }
}

/// The order of the ladder: what a turn of 1,000 tokens with an answer of 200 costs, in USD.
fn nominal_usd(prices: Prices) -> f64 {
    prices.cost_usd(Usage { prompt_tokens: 1_000, completion_tokens: 200 }, 0)
}
