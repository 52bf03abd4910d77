//! The last line between a policy and what happens: whatever a policy says, the action is a permitted one.

use tether_policies::decision::Refusal;
use tether_policies::{Decision, Observation, Permitted, Policy};
use tether_protocol::Action;

/// Of sums of at most some hundred probabilities.
const ROUNDING: f64 = 1e-9;

/// A policy that is held to its contract.
pub(super) struct Kept<P>(pub P);

impl<P: Policy> Policy for Kept<P> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Decision {
        keep(self.0.decide(observation, permitted, seed), permitted)
    }

    fn try_decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Result<Decision, Refusal> {
        self.0.try_decide(observation, permitted, seed).map(|decision| keep(decision, permitted))
    }
}

/// A decision outside of what is permitted becomes the lowest permitted action, which is local where local is
/// permitted. Numbers that are no probability, and values that belong to no action, are not passed on.
fn keep(decision: Decision, permitted: &Permitted) -> Decision {
    if !permitted.contains(decision.action) {
        let detail = format!("the policy chose action {}, which is not permitted", decision.action.0);
        return Decision::certain(permitted.first().action, "policy_fault", detail);
    }
    let Decision { propensity, probabilities, values, .. } = decision;
    let values = values.filter(|values| values.len() == permitted.candidates().len());
    let propensity = if propensity > 0.0 && propensity <= 1.0 { propensity } else { 1.0 };
    let probabilities = probabilities.filter(|told| is_distribution(told, permitted, decision.action, propensity));
    Decision { propensity, probabilities, values, ..decision }
}

/// One probability an action, which sum to 1, and that of the chosen action is the one that was told.
fn is_distribution(told: &[f64], permitted: &Permitted, action: Action, propensity: f64) -> bool {
    let candidates = permitted.candidates();
    let of_chosen = candidates.iter().zip(told).find(|(candidate, _)| candidate.action == action);
    told.len() == candidates.len()
        && told.iter().all(|share| (0.0..=1.0).contains(share))
        && (told.iter().sum::<f64>() - 1.0).abs() < ROUNDING
        && of_chosen.is_some_and(|(_, share)| (share - propensity).abs() < ROUNDING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Known, observe};
    use crate::pace::Pace;
    use crate::permit::{Asked, Means, permitted};
    use proptest::prelude::*;
    use tether_policies::Candidate;
    use tether_policies::fixed::{AlwaysCloud, AlwaysLocal};
    use tether_policies::rule::Rule;
    use tether_policies::tmo::tether::{Config, TetherPolicy, weights};
    use tether_protocol::api::RouteChoice;
    use tether_protocol::context::ViewContext;
    use tether_protocol::{ActionSpace, Context, Cost, Reading, Reason, Route, ViewName};

    /// Says whatever it was told to say.
    struct Rogue(Decision);

    impl Policy for Rogue {
        fn name(&self) -> &str {
            "rogue"
        }

        fn decide(&self, _: &Observation, _: &Permitted, _: u64) -> Decision {
            self.0.clone()
        }
    }

    fn tether(seed: u64, temperature: f64) -> TetherPolicy {
        let config = Config { temperature, ..Config::new("t", vec!["Query".into()], 0, 8) };
        let bytes = weights::random(&config, seed).unwrap();
        TetherPolicy::new(config, &bytes).unwrap()
    }

    #[test]
    fn only_a_distribution_that_agrees_with_the_propensity_is_passed_on() {
        let candidate = |action| Candidate { action: Action(action), predicted: Cost::default() };
        let permitted = Permitted::new(vec![candidate(0), candidate(2)]).unwrap();
        let told = |propensity, shares: &[f64]| {
            let certain = Decision::certain(Action(2), "r", "");
            let said = Decision { propensity, probabilities: Some(shares.to_vec()), ..certain };
            keep(said, &permitted).probabilities(permitted.candidates())
        };
        assert_eq!(told(0.25, &[0.75, 0.25]), Some(vec![0.75, 0.25]));
        for wrong in [&[0.25, 0.75][..], &[0.5, 0.25], &[1.25, -0.25], &[0.75, 0.25, 0.0], &[0.75], &[f64::NAN, 0.25]] {
            assert_eq!(told(0.25, wrong), None, "{wrong:?}");
        }
        assert_eq!(told(1.0, &[0.5, 0.5]), Some(vec![0.0, 1.0]), "of a choice without chance");
    }

    /// A view: has something to send, is private, how much it matters.
    fn view((number, (ready, local_only, association)): (usize, (bool, bool, Option<f64>))) -> ViewContext {
        ViewContext {
            name: ViewName::new(format!("view{number}")).unwrap(),
            encoded_bytes: if ready { Reading::known(9_000, 5, "test") } else { Reading::unknown("nothing") },
            attached: false,
            is_text: number == 3,
            local_only,
            association,
        }
    }

    fn cost() -> impl Strategy<Value = Cost> {
        let part = || prop::option::of(0.0f64..1e5);
        (part(), part(), part(), prop::option::of(0u64..1 << 24)).prop_map(|(latency_ms, cost_usd, energy_j, bytes)| {
            Cost { latency_ms, cost_usd, energy_j, uplink_bytes: bytes, downlink_bytes: None }
        })
    }

    proptest! {
        #[test]
        fn no_policy_leaves_what_privacy_and_settings_permit(
            views in prop::collection::vec((any::<bool>(), any::<bool>(), prop::option::of(0.0f64..1.0)), 0..5),
            (route, local_only, local, cloud, link_down) in (0usize..3, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
            (remaining, predicted) in (cost(), prop::collection::vec(cost(), 17)),
            (said, said_values, said_propensity) in (0u16..300, 0usize..20, -1.0f64..2.0),
            said_probabilities in prop::option::of(prop::collection::vec(-0.5f64..1.5, 0..20)),
            (seed, temperature) in (any::<u64>(), 0.0f64..2.0),
        ) {
            let views: Vec<ViewContext> = views.into_iter().enumerate().map(view).collect();
            let space = ActionSpace::new(views.iter().map(|view| view.name.clone()).collect()).unwrap();
            let route = [RouteChoice::Auto, RouteChoice::Local, RouteChoice::Cloud][route];
            let side = |there: bool| if there { Ok(()) } else { Err("not there") };
            let means = Means { local: side(local), cloud: side(cloud), link_down, pictures: Ok(()) };
            let Ok(actions) = permitted(&space, &views, Asked { route, views: None, local_only: local_only.then_some("why") }, means) else {
                return Ok(());
            };
            let known = Known {
                space: &space,
                context: Context { views: views.clone(), ..Context::default() },
                past: &[],
                task: Some("Query".into()),
                text: "look at view1 and view3",
                prompt_tokens: Some(5_000),
                travelling_text_bytes: 100,
                local_context_tokens: Some(4_000),
                max_tokens: 64,
                deadline_ms: None,
                prices: None,
                image_tokens: 1_000,
                pace: Pace::default(),
                ratings: Default::default(),
                sizes: None,
                power_w: (None, None),
            };
            let mut observation = observe(&known);
            observation.remaining = remaining;
            let candidates = actions.iter().zip(&predicted).map(|(&action, &predicted)| Candidate { action, predicted });
            let permitted = Permitted::new(candidates.collect()).unwrap();
            let rogue = Decision {
                action: Action(said),
                reason: Reason::new("r", ""),
                propensity: said_propensity,
                probabilities: said_probabilities,
                values: Some(vec![0.0; said_values]),
            };
            let policies: [Box<dyn Policy>; 5] = [
                Box::new(Kept(Rule)),
                Box::new(Kept(AlwaysLocal)),
                Box::new(Kept(AlwaysCloud)),
                Box::new(Kept(tether(seed, temperature))),
                Box::new(Kept(Rogue(rogue))),
            ];
            for policy in policies {
                let told = policy.try_decide(&observation, &permitted, seed);
                for decision in told.into_iter().chain([policy.decide(&observation, &permitted, seed)]) {
                    let name = policy.name();
                    prop_assert!(actions.contains(&decision.action), "{name}: {decision:?}");
                    prop_assert!(decision.propensity > 0.0 && decision.propensity <= 1.0, "{name}: {decision:?}");
                    let told = decision.probabilities(permitted.candidates());
                    prop_assert!(told.is_some() || name == "rogue" && decision.propensity < 1.0, "{name}: {decision:?}");
                    let told = told.as_ref();
                    prop_assert!(told.is_none_or(|told| is_distribution(told, &permitted, decision.action, decision.propensity)));
                    prop_assert!(decision.values.is_none_or(|values| values.len() == actions.len()), "{name}");
                    // Said once more without `permitted`: nothing private and nothing local-only ever travels.
                    let sent = space.sent(decision.action);
                    prop_assert!(sent.iter().all(|view| !views[view].local_only), "{name} sends a private view");
                    prop_assert!(!local_only || decision.action.route() == Route::Local, "{name} leaves the device");
                }
            }
        }
    }
}
