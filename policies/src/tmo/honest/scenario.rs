//! Which devices, links, batteries and budgets there may be: drawn for training, fixed for evaluation.

use crate::tmo::honest::hardware::HARDWARE;
use crate::tmo::honest::link::{Costs, Link};
use crate::tmo::paper::NETWORKS;
use crate::tmo::tether::scene::{Amounts, RESOURCES};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A device and a published link, by their places in the tables.
pub type Combination = (usize, usize);

/// All 8 x 4 combinations.
pub fn combinations() -> Vec<Combination> {
    (0..HARDWARE.len()).flat_map(|device| (0..NETWORKS.len()).map(move |network| (device, network))).collect()
}

pub fn costs((device, network): Combination) -> Costs {
    Costs::new(&HARDWARE[device], &Link::Table(NETWORKS[network]))
}

/// Where the costs of a training dialogue come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Drawn from uniformly.
    pub combinations: Vec<Combination>,
    /// Share of dialogues over a measured link instead, on the device of one of the combinations.
    pub measured: f64,
    /// Rates that measured links are drawn from, in Mbit/s; without any, `0.2..50` uniformly in the logarithm.
    pub uplinks_mbps: Vec<f64>,
}

/// Below this a link is as good as down: a picture takes 16 s.
const LEAST_MBPS: f64 = 0.05;

impl Scenario {
    /// One profile alone.
    pub fn only(combination: Combination) -> Scenario {
        Scenario { combinations: vec![combination], measured: 0.0, uplinks_mbps: Vec::new() }
    }

    pub fn draw(&self, random: &mut ChaCha8Rng) -> Costs {
        let combination = self.combinations[random.random_range(0..self.combinations.len())];
        if self.measured == 0.0 || !random.random_bool(self.measured) {
            return costs(combination);
        }
        let up_mbps = match self.uplinks_mbps.as_slice() {
            [] => 0.2 * 250f64.powf(random.random()),
            known => known[random.random_range(0..known.len())].max(LEAST_MBPS),
        };
        let rtt_ms = 5.0 * 80f64.powf(random.random());
        Costs::new(&HARDWARE[combination.0], &Link::Measured { up_mbps, rtt_ms })
    }
}

/// Share of resources without a budget.
const UNLIMITED: f64 = 0.25;
/// Share of dialogues on a battery that limits the energy, whatever the budget says.
const LOW_BATTERY: f64 = 0.15;

/// Random budgets for a dialogue of some turns: each resource's, per turn, between what its cheapest action takes and
/// its dearest, tight ones more often (the square of a uniform number); some without limit; at times a battery that
/// holds only one to three mean turns' energy per two turns. Not every dialogue can be served within them.
pub fn budget(costs: &Costs, view_count: usize, turns: usize, random: &mut ChaCha8Rng) -> Amounts {
    let levels: Vec<[f64; RESOURCES]> = costs.levels(view_count).collect();
    let turns = turns as f64;
    let mut budget: Amounts = std::array::from_fn(|r| {
        let low = levels.iter().map(|cost| cost[r]).fold(f64::INFINITY, f64::min);
        let high = levels.iter().map(|cost| cost[r]).fold(0.0, f64::max);
        let place = random.random::<f64>().powi(2);
        (!random.random_bool(UNLIMITED)).then_some(turns * (low + (high - low) * place))
    });
    if random.random_bool(LOW_BATTERY) {
        let mean_j = levels.iter().map(|cost| cost[2]).sum::<f64>() / levels.len() as f64;
        let battery_j = turns * mean_j * random.random_range(0.5..1.5);
        budget[2] = Some(budget[2].unwrap_or(f64::INFINITY).min(battery_j));
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_seed_decides_and_budgets_are_between_the_cheapest_and_the_dearest() {
        let scenario = Scenario { combinations: combinations(), measured: 0.5, uplinks_mbps: vec![0.0, 12.0] };
        let draw = |seed| {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let costs = scenario.draw(random);
            (costs, budget(&costs, 3, 4, random))
        };
        assert_eq!(draw(1), draw(1));
        for seed in 0..200 {
            let (costs, budget) = draw(seed);
            assert!(costs.levels(3).all(|cost| cost.iter().all(|value| value.is_finite() && *value >= 0.0)));
            let dearest = costs.levels(3).map(|cost| cost[0]).fold(0.0, f64::max);
            assert!(budget[0].is_none_or(|left| left <= 4.0 * dearest + 1e-9));
        }
    }
}
