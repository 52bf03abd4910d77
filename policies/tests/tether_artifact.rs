//! The committed policy, on profiles, budgets and lengths that nobody chose: no dialogue goes over any budget, and every
//! dialogue that some sequence of actions serves is served.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tether_policies::tmo::data::{Dialogue, Turn};
use tether_policies::tmo::honest::hardware::HARDWARE;
use tether_policies::tmo::honest::link::{Costs, Link};
use tether_policies::tmo::honest::moment::actions;
use tether_policies::tmo::honest::play::{Scoring, play};
use tether_policies::tmo::honest::response::ResponseModel;
use tether_policies::tmo::honest::scenario::budget;
use tether_policies::tmo::paper::{NETWORKS, Weights};
use tether_policies::tmo::synthetic;
use tether_policies::tmo::tether::{TetherPolicy, WhenNothingFits};

#[test]
fn the_committed_policy_is_small_and_knows_m4a1_s_tasks() {
    let policy = TetherPolicy::built_in().unwrap();
    let bytes =
        std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts/tether-tmo.safetensors")).unwrap().len();
    assert!(bytes < 1 << 20, "{bytes}");
    assert_eq!(policy.config().tasks, ["Assistive System", "Message Editing", "Query", "Recommendation"]);
    assert_eq!(policy.config().view_slots, 0, "views may change in number and order");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_dialogue_goes_over_a_budget_and_what_can_be_served_is(
        seed in any::<u64>(),
        device in 0usize..8,
        network in 0usize..4,
        uplink in prop::option::of((0.05f64..60.0, 5.0f64..500.0)),
        views in 0usize..=5,
        length in 1usize..=9,
    ) {
        let link = match uplink {
            Some((up_mbps, rtt_ms)) => Link::Measured { up_mbps, rtt_ms },
            None => Link::Table(NETWORKS[network]),
        };
        let costs = Costs::new(&HARDWARE[device], &link);
        let data = synthetic::dataset(6, views, seed);
        let turns: Vec<Turn> = data.dialogues.iter().flat_map(|dialogue| dialogue.turns.clone()).take(length).collect();
        let model = ResponseModel::fit(&turns.iter().collect::<Vec<_>>(), 4);
        let dialogue = Dialogue { id: 0, turns };
        let (actions, weights) = (actions(views).unwrap(), Weights::default());
        let scoring = Scoring { model: &model, costs: &costs, actions: &actions, weights: &weights };
        let budget = budget(&costs, views, dialogue.turns.len(), &mut ChaCha8Rng::seed_from_u64(seed));
        let policy = TetherPolicy::built_in().unwrap().with(0.0, WhenNothingFits::Refuse);
        let played = play(&dialogue, &budget, &scoring, &mut |now| {
            let mut scores = vec![0.0; now.moment.facts.len()];
            policy.choose(&now.scene, &now.moment.facts, 0, &mut scores).ok().map(|choice| choice.index)
        });
        prop_assert!(!played.over, "{played:?} {budget:?}");
        prop_assert_eq!(played.refused == 0, played.servable, "{:?} {:?}", played, budget);
    }
}
