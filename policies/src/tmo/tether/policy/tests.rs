use super::*;
use crate::budget::{Price, Prices, Resource};
use crate::decision::Candidate;
use crate::observation::PastTurn;
use crate::tmo::tether::weights;
use proptest::prelude::*;
use std::sync::Arc;
use tether_protocol::context::ViewContext;
use tether_protocol::{Action, ActionSpace, Context, Cost, Reading, ViewName};

fn policy(seed: u64) -> TetherPolicy {
    let config = Config::new("tether-test", vec!["Query".to_owned()], 0, 16);
    let weights = weights::random(&config, seed).unwrap();
    TetherPolicy::new(config, &weights).unwrap()
}

fn observation(views: usize, remaining: Cost) -> Observation {
    let names: Vec<ViewName> = (0..views).map(|v| ViewName::new(format!("view{v}")).unwrap()).collect();
    let context = |name: &ViewName| ViewContext {
        name: name.clone(),
        encoded_bytes: Reading::known(1_000, 0, "test"),
        attached: false,
        is_text: false,
        local_only: false,
        association: Some(0.2),
    };
    Observation {
        context: Context { views: names.iter().map(context).collect(), ..Context::default() },
        space: ActionSpace::new(names).unwrap(),
        history: vec![PastTurn { route: Route::Cloud, views: ViewSet::EMPTY, task: Some("Query".to_owned()) }],
        task: None,
        text: String::new(),
        prompt_tokens: 10,
        local_context_tokens: None,
        max_tokens: 10,
        remaining,
        prices: Prices::default(),
        ratings: Default::default(),
        considered: Vec::new(),
        turns_left: Some(0),
        deadline_ms: None,
    }
}

/// Local takes a second, the cloud half a second and a cent, each view another half second.
fn permitted(observation: &Observation) -> Permitted {
    let predicted = |action: Action| {
        let views = observation.space.sent(action).len() as f64;
        let (latency_ms, cost_usd) =
            if action == Action::LOCAL { (1_000.0, 0.0) } else { (500.0 + 500.0 * views, 0.01) };
        Cost { latency_ms: Some(latency_ms), cost_usd: Some(cost_usd), ..Cost::default() }
    };
    let actions = observation.space.actions();
    Permitted::new(actions.map(|action| Candidate { action, predicted: predicted(action) }).collect()).unwrap()
}

fn budget(latency_ms: f64, cost_usd: f64) -> Cost {
    Cost { latency_ms: Some(latency_ms), cost_usd: Some(cost_usd), ..Cost::default() }
}

#[test]
fn a_prompt_that_does_not_fit_the_local_model_goes_to_the_cloud_if_that_is_permitted() {
    for seed in 0..20 {
        let short = observation(2, Cost::default());
        let long = Observation { prompt_tokens: 600, local_context_tokens: Some(600), ..short.clone() };
        let (local, all) = (policy(seed).decide(&short, &permitted(&short), 0), permitted(&long));
        let decision = policy(seed).decide(&long, &all, 0);
        assert_eq!(decision.action.route(), Route::Cloud, "{decision:?}");
        assert_eq!(decision.reason.code == "prompt_too_long", local.action == Action::LOCAL, "{decision:?}");
        let alone = Permitted::new(vec![all.first()]).unwrap();
        assert_eq!(policy(seed).decide(&long, &alone, 0).action, Action::LOCAL);
    }
}

/// One that was trained where the cloud's answers are worth twice as much.
fn with_responses(seed: u64) -> TetherPolicy {
    let responses = serde_json::from_str(r#"{"routes": [0.5, 1.0], "cells": []}"#).unwrap();
    let config = Config { responses: Some(responses), ..policy(seed).config };
    let weights = weights::random(&config, seed).unwrap();
    TetherPolicy::new(config, &weights).unwrap()
}

fn values(policy: &TetherPolicy, observation: &Observation) -> Vec<f64> {
    policy.decide(observation, &permitted(observation), 0).values.unwrap()
}

#[test]
fn where_shadow_prices_stand_for_all_that_is_limited_the_network_does_not_count_it_again() {
    let price = Price { resource: Resource::Usd, level: 0.1, typical: 0.01 };
    let paced = |prices, remaining| Observation { prices: Prices(prices), ..observation(2, remaining) };
    let usd = Cost { cost_usd: Some(1.0), ..Cost::default() };
    let only_prices = paced(vec![price], usd);
    assert_eq!(values(&with_responses(1), &only_prices), values(&with_responses(2), &only_prices));
    for asked in [paced(vec![price], Cost { uplink_bytes: Some(9), ..usd }), paced(Vec::new(), usd)] {
        assert_ne!(values(&with_responses(1), &asked), values(&with_responses(2), &asked));
    }
    assert_ne!(values(&policy(1), &only_prices), values(&policy(2), &only_prices), "nothing else tells values");
    let deadline = Cost { latency_ms: Some(1e9), ..usd };
    assert!(!Prices(vec![price]).cover(&deadline), "a latency has no price");
}

#[test]
fn ratings_correct_values_and_the_reason_says_by_how_much() {
    let price = Price { resource: Resource::Usd, level: 0.0, typical: 0.01 };
    let mut seen = Observation { prices: Prices(vec![price]), ..observation(0, Cost::default()) };
    let policy = with_responses(1);
    let before = policy.decide(&seen, &permitted(&seen), 0);
    assert_eq!(before.action.route(), Route::Cloud, "{before:?}");
    let mut ratings = Ratings::default();
    // Local answers are as they were in training, the cloud's are not.
    for _ in 0..50 {
        ratings.add(None, false, 0, 0.25);
        ratings.add(None, true, 0, 0.0);
    }
    seen.ratings = Arc::new(ratings);
    let after = policy.decide(&seen, &permitted(&seen), 0);
    assert_eq!(after.action, Action::LOCAL, "{after:?}");
    assert!(after.reason.detail.contains("(ratings -"), "{:?}", after.reason);
    assert!(after.values.unwrap()[1] < before.values.unwrap()[1] - 0.7);
}

#[test]
fn pictures_that_a_question_names_or_brings_travel_with_it() {
    for seed in 0..20 {
        let plain = observation(3, Cost::default());
        let named = Observation { text: "is there a pan in view1 or view2?".to_owned(), ..plain.clone() };
        let mut attached = named.clone();
        attached.context.views[0].attached = true;
        for (observation, asked) in [(named, ViewSet(0b110)), (attached, ViewSet(0b001))] {
            let decision = policy(seed).decide(&observation, &permitted(&observation), 0);
            let sent = observation.space.sent(decision.action);
            assert!(asked.is_subset_of(sent), "{decision:?}");
            // Where they may not travel, the policy chooses as ever.
            let few: Vec<Candidate> = permitted(&observation).candidates()[..2].to_vec();
            let few = Permitted::new(few).unwrap();
            assert_eq!(policy(seed).decide(&observation, &few, 0).action, policy(seed).decide(&plain, &few, 0).action);
        }
    }
}

#[test]
fn sensors_readings_add_nothing_to_the_association() {
    let mut observation = observation(3, Cost::default());
    observation.context.views[1].is_text = true;
    observation.context.views[1].association = None;
    assert_eq!(association(&observation, ViewSet(0b111)), Some(0.4));
    observation.context.views[0].association = None;
    assert_eq!(
        (association(&observation, ViewSet(0b111)), association(&observation, ViewSet(0b110))),
        (None, Some(0.2))
    );
}

#[test]
fn every_number_of_views_is_decided_with_values_and_a_reason() {
    for views in 0..=MAX_VIEWS {
        let observation = observation(views, Cost::default());
        let permitted = permitted(&observation);
        let decision = policy(1).decide(&observation, &permitted, 0);
        assert!(permitted.contains(decision.action));
        assert_eq!(decision.values.unwrap().len(), permitted.candidates().len());
        assert_eq!((decision.propensity, decision.reason.code.as_str()), (1.0, "learned"));
    }
}

#[test]
fn a_budget_that_nothing_fits_is_refused_or_passed_the_least() {
    let observation = observation(2, budget(400.0, 0.0));
    let permitted = permitted(&observation);
    let strict = policy(1).with(0.0, WhenNothingFits::Refuse);
    assert_eq!(strict.try_decide(&observation, &permitted, 0).unwrap_err().code, "budget_exhausted");
    for policy in [policy(1), strict] {
        let decision = policy.decide(&observation, &permitted, 0);
        // Local is 600 ms over, of 1,500; any cloud action is a cent over, of one cent.
        assert_eq!((decision.action, decision.reason.code.as_str()), (Action::LOCAL, "over_budget"));
    }
}

#[test]
fn turns_that_are_only_assumed_do_not_refuse_the_one_at_hand() {
    let mut observation = observation(0, budget(1_000.0, 0.0));
    let permitted = permitted(&observation);
    let strict = policy(1).with(0.0, WhenNothingFits::Refuse);
    observation.turns_left = None;
    assert_eq!(strict.try_decide(&observation, &permitted, 0).unwrap().action, Action::LOCAL);
    observation.turns_left = Some(1);
    assert!(strict.try_decide(&observation, &permitted, 0).is_err());
}

#[test]
fn an_unknown_cost_does_not_fit_a_limited_budget() {
    let mut observation = observation(0, Cost::default());
    observation.remaining.energy_j = Some(1e9);
    let permitted = permitted(&observation);
    let strict = policy(1).with(0.0, WhenNothingFits::Refuse);
    assert!(strict.try_decide(&observation, &permitted, 0).is_err());
    observation.remaining.energy_j = None;
    assert!(strict.try_decide(&observation, &permitted, 0).is_ok());
}

#[test]
fn draws_follow_their_propensities() {
    let observation = observation(1, Cost::default());
    let permitted = permitted(&observation);
    let policy = policy(3).with(0.5, WhenNothingFits::Refuse);
    let mut drawn = std::collections::BTreeMap::<Action, (u32, f64)>::new();
    for seed in 0..4_000 {
        let decision = policy.decide(&observation, &permitted, seed);
        let entry = drawn.entry(decision.action).or_insert((0, decision.propensity));
        assert_eq!(entry.1, decision.propensity);
        entry.0 += 1;
    }
    assert!((drawn.values().map(|entry| entry.1).sum::<f64>() - 1.0).abs() < 1e-9);
    for (action, (count, propensity)) in drawn {
        assert!((f64::from(count) / 4_000.0 - propensity).abs() < 0.03, "{action:?} {count} {propensity}");
    }
}

#[test]
fn every_decision_tells_the_probability_of_each_action() {
    // Three views take two seconds, which does not fit the last budget.
    for (temperature, remaining) in [(0.0, Cost::default()), (0.7, Cost::default()), (0.7, budget(1_600.0, 1.0))] {
        let observation = observation(3, remaining);
        let permitted = permitted(&observation);
        let policy = policy(5).with(temperature, WhenNothingFits::Refuse);
        let decision = policy.decide(&observation, &permitted, 9);
        let shares = decision.probabilities.unwrap();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
        let chosen = permitted.candidates().iter().position(|candidate| candidate.action == decision.action).unwrap();
        assert_eq!((shares.len(), shares[chosen]), (9, decision.propensity));
        assert_eq!(shares.iter().filter(|&&share| share > 0.0).count() > 1, temperature > 0.0);
        let values = decision.values.unwrap();
        for (share, candidate) in shares.iter().zip(permitted.candidates()) {
            let fits = remaining.latency_ms.is_none_or(|limit| candidate.predicted.latency_ms <= Some(limit));
            assert!(fits || *share == 0.0, "{candidate:?}");
            assert!(!fits || temperature == 0.0 || *share > 0.0, "{candidate:?}");
        }
        if temperature > 0.0 {
            let expected = ((values[1] - values[0]) / temperature).exp();
            assert!((shares[1] / shares[0] - expected).abs() < 1e-9 * expected, "softmax");
        }
    }
    let none = observation(0, budget(400.0, 0.0));
    let decision = policy(1).with(0.7, WhenNothingFits::LeastOvershoot).decide(&none, &permitted(&none), 0);
    assert_eq!(decision.probabilities, Some(vec![1.0, 0.0]), "the least overshoot is no draw");
}

proptest! {
    #[test]
    fn no_dialogue_goes_over_any_budget_whatever_the_network_likes(
        seed in 0u64..1_000,
        // For each of up to nine actions, its cost in four resources; some unknown.
        costs in prop::collection::vec(prop::array::uniform4(prop::option::weighted(0.95, 0.0f64..2.0)), 2..9),
        budgets in prop::array::uniform4(prop::option::of(0.0f64..8.0)),
        turns in 1u32..8,
        known in any::<bool>(),
        temperature in 0.0f64..2.0,
    ) {
        let policy = policy(seed).with(temperature, WhenNothingFits::Refuse);
        let actions: Vec<Facts> = costs.iter().enumerate().map(|(n, &cost)| Facts {
            cloud: n > 0, views: ViewSet(n as u8), association: Some(0.1), cost,
        }).collect();
        let (mut remaining, mut served) = (budgets, false);
        for turn in 0..turns {
            let following = if known { turns - turn - 1 } else { 4u32.saturating_sub(turn) };
            let scene = Scene {
                history: &[], before: turn as usize, task: None, view_count: 3, remaining, following, following_known: known,
            };
            let mut scores = vec![0.0; actions.len()];
            let Ok(choice) = policy.choose(&scene, &actions, u64::from(turn), &mut scores) else {
                // Once a turn of a dialogue of known length is served, the rest of it is.
                prop_assert!(!known || !served);
                continue;
            };
            served = true;
            for (left, cost) in remaining.iter_mut().zip(actions[choice.index].cost) {
                if let Some(left) = left { *left -= cost.unwrap(); }
            }
        }
        prop_assert!(remaining.iter().flatten().all(|&left| left >= -1e-9), "{remaining:?}");
    }
}
