//! One turn's actions: what they cost, and what they earn.

use crate::tmo::honest::link::Costs;
use crate::tmo::honest::response::ResponseModel;
use crate::tmo::paper::Weights;
use crate::tmo::tether::scene::{Amounts, Facts, RESOURCES};
use tether_protocol::{ActionSpace, ActionSpaceError, ViewName, ViewSet};

/// A refused turn earns the least reward that there is: no answer, full latency and usage.
pub fn refused(weights: &Weights) -> f64 {
    -weights.latency - weights.usage
}

/// The actions of some number of views, in the daemon's order: `None` is local.
pub fn actions(view_count: usize) -> Result<Vec<Option<ViewSet>>, ActionSpaceError> {
    let names = (0..view_count).filter_map(|view| ViewName::new(format!("view{view}")).ok()).collect();
    let space = ActionSpace::new(names)?;
    let sent = |action| (action != tether_protocol::Action::LOCAL).then(|| space.sent(action));
    Ok(space.actions().map(sent).collect())
}

/// What an action of a turn is, costs and earns.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    pub task: Option<usize>,
    pub facts: Vec<Facts>,
    pub rewards: Vec<f64>,
}

impl Moment {
    /// `r = response + (association - latency - usage) / 3`, the last three min-max normalised over the turn's actions,
    /// as in TMO's reward.
    pub fn new(
        task: Option<usize>,
        association: &[f64],
        actions: &[Option<ViewSet>],
        costs: &Costs,
        model: &ResponseModel,
        weights: &Weights,
    ) -> Moment {
        let facts: Vec<Facts> = actions
            .iter()
            .map(|&sent| {
                let views = sent.unwrap_or(ViewSet::EMPTY);
                let sum = views.iter().map(|view| association[view]).sum();
                let cost = costs.of(sent.is_some(), views.len()).map(Some);
                Facts { cloud: sent.is_some(), views, association: Some(sum), cost }
            })
            .collect();
        let over = |part: fn(&Facts) -> Option<f64>| normal(facts.iter().map(part).collect::<Vec<_>>());
        let (of_association, of_latency) = (over(|facts| facts.association), over(|facts| facts.cost[0]));
        let of_usage = over(|facts| facts.cost[1]);
        let reward = |n: usize| {
            weights.response * model.predict(task, facts[n].cloud, facts[n].views.len())
                + weights.association * of_association(facts[n].association)
                - weights.latency * of_latency(facts[n].cost[0])
                - weights.usage * of_usage(facts[n].cost[1])
        };
        let rewards = (0..facts.len()).map(reward).collect();
        Moment { task, facts, rewards }
    }
}

/// Min-max over the known values; 0 where they are all the same.
fn normal(values: Vec<Option<f64>>) -> impl Fn(Option<f64>) -> f64 {
    let (low, high) = values
        .into_iter()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    move |value| value.map_or(0.0, |value| if high > low { (value - low) / (high - low) } else { 0.0 })
}

/// What is left after an action; unlimited stays unlimited.
pub fn spend(remaining: &Amounts, cost: &Amounts) -> Amounts {
    std::array::from_fn(|r| remaining[r].map(|left| left - cost[r].unwrap_or(f64::INFINITY)))
}

/// Budgets as the mask takes them.
pub fn limits(remaining: &Amounts) -> [f64; RESOURCES] {
    remaining.map(|left| left.unwrap_or(f64::INFINITY))
}
