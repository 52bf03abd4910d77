//! Policies that do not look: the two ends that every report compares with, and `tether.route` on request.

use crate::decision::{Decision, Permitted, Policy};
use crate::observation::Observation;
use tether_protocol::{Action, Route, ViewSet};

/// Local whenever local is permitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysLocal;

impl Policy for AlwaysLocal {
    fn name(&self) -> &str {
        "always-local"
    }

    fn decide(&self, _: &Observation, permitted: &Permitted, _: u64) -> Decision {
        if permitted.contains(Action::LOCAL) {
            return Decision::certain(Action::LOCAL, "fixed", "always-local");
        }
        Decision::certain(permitted.first().action, "only_cloud_permitted", "local is not available for this turn")
    }
}

/// The cloud with every permitted view, whenever the cloud is permitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysCloud;

impl Policy for AlwaysCloud {
    fn name(&self) -> &str {
        "always-cloud"
    }

    fn decide(&self, observation: &Observation, permitted: &Permitted, _: u64) -> Decision {
        match richest_cloud(observation, permitted) {
            Some(action) => Decision::certain(action, "fixed", "always-cloud"),
            None => {
                Decision::certain(Action::LOCAL, "only_local_permitted", "the cloud is not available for this turn")
            }
        }
    }
}

/// The permitted cloud action that sends the most views, if any cloud action is permitted.
pub fn richest_cloud(observation: &Observation, permitted: &Permitted) -> Option<Action> {
    let cloud = permitted.candidates().iter().map(|c| c.action).filter(|action| action.route() == Route::Cloud);
    cloud.max_by_key(|&action| observation.space.sent(action).len())
}

/// The permitted cloud action that sends the most of `wanted` and nothing else.
pub fn cloud_with(observation: &Observation, permitted: &Permitted, wanted: ViewSet) -> Option<Action> {
    let cloud = permitted.candidates().iter().map(|c| c.action).filter(|action| action.route() == Route::Cloud);
    cloud
        .filter(|&action| observation.space.sent(action).is_subset_of(wanted))
        .max_by_key(|&action| observation.space.sent(action).len())
}
