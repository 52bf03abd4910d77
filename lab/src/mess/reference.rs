//! What the means and the truth would allow: yardsticks that no router reaches, since they know what it must learn.

use super::data::Dataset;
use super::run::Stream;
use super::scenario::Scenario;
use tether_policies::mess::static_mix::{Means, Mix, cheapest};

/// The cheapest static mix that knows the means of each half of the stream, per tenant, and its mean cost; the dearest
/// single best model stands in where no model reaches alpha.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticReference {
    pub mixes: Vec<Mix>,
    pub mean_cost: f64,
}

/// The model that the scenarios change: the one that a static mix at `alpha` relies on most.
pub fn changed_model(data: &Dataset, alpha: f64) -> usize {
    best_mix(&data.means(), alpha).upper
}

fn best_mix(means: &[Means], alpha: f64) -> Mix {
    cheapest(means, alpha).unwrap_or_else(|| {
        let best = (0..means.len()).max_by(|&a, &b| means[a].satisfaction.total_cmp(&means[b].satisfaction));
        let best = best.unwrap_or(0);
        Mix { lower: best, upper: best, share: 1.0, means: means[best] }
    })
}

pub fn static_reference(stream: &Stream<'_>) -> StaticReference {
    let means = stream.data.means();
    let alphas: Vec<f64> = match stream.scenario {
        Scenario::TwoTenants => {
            vec![stream.scenario.tenant(stream.alpha, 0).1, stream.scenario.tenant(stream.alpha, 1).1]
        }
        _ => vec![stream.alpha],
    };
    let mixes: Vec<Mix> = alphas.iter().map(|&alpha| best_mix(&means, alpha)).collect();
    let (first, second) = halves(stream, &means);
    let cost = |means: &[Means], alpha: f64| best_mix(means, alpha).means.cost;
    let both = |&alpha: &f64| (cost(&first, alpha) + cost(&second, alpha)) / 2.0;
    let mean_cost = alphas.iter().map(both).sum::<f64>() / alphas.len() as f64;
    StaticReference { mixes, mean_cost }
}

/// The means before and after the scenario's change.
fn halves(stream: &Stream<'_>, means: &[Means]) -> (Vec<Means>, Vec<Means>) {
    let (mut first, mut second) = (means.to_vec(), means.to_vec());
    match stream.scenario {
        Scenario::Drop => second[stream.changed].satisfaction -= 0.3,
        Scenario::HalfPrice => second[stream.changed].cost /= 2.0,
        Scenario::ModelAdded => {
            first.remove(stream.changed);
        }
        _ => {}
    }
    (first, second)
}

/// The least mean cost at which a router that knows every label and every cost satisfies a share `alpha`: starting
/// from the cheapest model everywhere, the cheapest improvements first. A result near it means a leak.
pub fn oracle_cost(data: &Dataset, alpha: f64) -> f64 {
    let mut steps = Vec::new();
    let (mut satisfied, mut cost) = (0.0, 0.0);
    for row in &data.rows {
        let models = 0..row.cost.len();
        let least = models.clone().min_by(|&a, &b| row.cost[a].total_cmp(&row.cost[b])).unwrap_or(0);
        let good = models.filter(|&m| row.satisfied[m] > row.satisfied[least]);
        (satisfied, cost) = (satisfied + row.satisfied[least], cost + row.cost[least]);
        if let Some(extra) = good.map(|m| row.cost[m] - row.cost[least]).min_by(f64::total_cmp) {
            steps.push(extra);
        }
    }
    steps.sort_by(f64::total_cmp);
    let rows = data.rows.len() as f64;
    let needed = (alpha * rows - satisfied).ceil().max(0.0) as usize;
    (cost + steps.iter().take(needed).sum::<f64>()) / rows
}
