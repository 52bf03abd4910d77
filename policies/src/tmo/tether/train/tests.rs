use super::honest_stage::HonestStage;
use super::paper_stage::{PaperStage, config, facts, past, scene};
use super::plan::{Budget, Plan};
use super::recipe::{Recipe, Trainer};
use super::stage::Stage;
use crate::tmo::data::{Dataset, Dialogue, Turn};
use crate::tmo::honest::response::ResponseModel;
use crate::tmo::honest::scenario::{Scenario, combinations};
use crate::tmo::paper::{ACTIONS, Environment, Estimator, History, Profile, VIEWS, Weights};
use crate::tmo::synthetic;
use crate::tmo::tether::{Config, TetherPolicy, WhenNothingFits, weights};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn short_recipe(seed: u64) -> Recipe {
    Recipe { batch: 64, imitation: 120, rollouts: 1, rollout: 128, epochs: 1, ..Recipe::new(seed) }
}

fn short_dialogues() -> Dataset {
    let mut data = synthetic::dataset(40, VIEWS, 4);
    data.dialogues.iter_mut().for_each(|dialogue| dialogue.turns.truncate(2));
    data
}

/// Mean reward per turn, and dialogues over budget.
fn played(
    policy: &TetherPolicy,
    environment: &Environment,
    data: &Dataset,
    budget: Budget,
    plan: &Plan,
) -> (f64, usize) {
    let (mut sum, mut over) = (0.0, 0);
    for dialogue in &data.dialogues {
        let (mut history, mut pasts, mut left) = (History::default(), Vec::new(), budget);
        for (at, turn) in dialogue.turns.iter().enumerate() {
            let observation = *history.observe(turn.task);
            let scene = scene(&pasts, turn.task, left, dialogue.turns.len() - at - 1);
            let choice = policy.choose(&scene, &facts(environment, turn), 0, &mut [0.0; ACTIONS]).unwrap();
            sum += environment.outcome(&observation, turn, choice.index).reward / dialogue.turns.len() as f64;
            left = plan.purse.after(left, choice.index);
            history.acted(choice.index);
            pasts.push(past(choice.index, turn.task));
        }
        over += usize::from(left.iter().any(|&left| left < -1e-9));
    }
    (sum / data.dialogues.len() as f64, over)
}

#[test]
fn a_short_training_beats_an_untrained_network_and_keeps_budgets() {
    let data = short_dialogues();
    let training: Vec<&Dialogue> = data.dialogues.iter().collect();
    let estimator = Estimator::fit(&data, &data.dialogues).unwrap();
    let environment = Environment { estimator, profile: Profile::default(), weights: Weights::default() };
    let budget = [12.0, 0.012];
    let plan = Plan::new(&environment, &training, &[budget]);
    let config = config(&data.tasks, 32);
    let mut stage = PaperStage::new(&environment, &plan, &training);
    let trained = Trainer::new(config.clone(), short_recipe(1)).run(&mut stage, &mut |_| {}).unwrap();
    let policy = |bytes: &[u8]| TetherPolicy::new(config.clone(), bytes).unwrap();
    let (reward, over) = played(&policy(&trained), &environment, &data, budget, &plan);
    let (untrained, none) = played(&policy(&weights::random(&config, 1).unwrap()), &environment, &data, budget, &plan);
    assert_eq!((over, none), (0, 0));
    assert!(reward > untrained + 0.1, "{reward} {untrained}");
}

fn honest(seed: u64) -> Vec<u8> {
    let data = short_dialogues();
    let training: Vec<&Dialogue> = data.dialogues.iter().collect();
    let turns: Vec<&Turn> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
    let model = ResponseModel::fit(&turns, 4);
    let scenario = Scenario { combinations: combinations(), measured: 0.3, uplinks_mbps: vec![3.0] };
    let mut stage = HonestStage::new(&training, &model, scenario, true).unwrap();
    let config = Config::new("t", data.tasks.clone(), 0, 16);
    let recipe = Recipe { imitation: 10, ..short_recipe(seed) };
    Trainer::new(config, recipe).run(&mut stage, &mut |_| {}).unwrap()
}

#[test]
fn the_seed_decides_every_weight() {
    let first = honest(5);
    assert_eq!(first, honest(5));
    assert_ne!(first, honest(6));
}

#[test]
fn the_honest_teacher_prefers_what_keeps_later_turns_payable() {
    let data = synthetic::dataset(40, VIEWS, 4);
    let training: Vec<&Dialogue> = data.dialogues.iter().collect();
    let turns: Vec<&Turn> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
    let model = ResponseModel::fit(&turns, 4);
    let mut stage = HonestStage::new(&training, &model, Scenario::only((3, 0)), false).unwrap();
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    let (mut decided, mut ends) = (0, 0);
    for _ in 0..60 {
        stage.begin(random);
        loop {
            let (look, expected) = (stage.look(), stage.expected(random));
            // The stage begins only dialogues that can be served, and the mask keeps them so.
            assert!(look.open.contains(&true));
            let open = (0..expected.len()).filter(|&n| look.open[n]);
            let best = open.max_by(|&a, &b| expected[a].total_cmp(&expected[b])).unwrap();
            assert!(expected.iter().all(|value| value.is_finite()));
            let step = stage.act(best, random);
            assert_eq!(step.costs, [0.0; 4], "an open action overspends");
            decided += 1;
            if step.end {
                ends += 1;
                break;
            }
        }
    }
    assert!(ends == 60 && decided >= 120);
}

#[test]
fn a_policy_that_was_trained_refuses_nothing_without_budgets() {
    let bytes = honest(7);
    let config = Config::new("t", synthetic::dataset(1, VIEWS, 1).tasks, 0, 16);
    let policy = TetherPolicy::new(config, &bytes).unwrap().with(0.0, WhenNothingFits::Refuse);
    let free = scene(&[], 0, [f64::INFINITY; 2], 4);
    let data = short_dialogues();
    let estimator = Estimator::fit(&data, &data.dialogues).unwrap();
    let environment = Environment { estimator, profile: Profile::default(), weights: Weights::default() };
    let facts = facts(&environment, &data.dialogues[0].turns[0]);
    assert!(policy.choose(&free, &facts, 0, &mut [0.0; ACTIONS]).is_ok());
}
