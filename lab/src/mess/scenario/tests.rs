//! Each scenario on the synthetic zoo: that it happens, and what our router makes of it.

use super::super::contender::Single;
use super::super::data::Dataset;
use super::super::reference::changed_model;
use super::super::run::{Run, Stream};
use super::super::synthetic::{self, Shape};
use super::super::table::{Plan, TOLERANCE};
use super::Scenario;
use std::sync::LazyLock;
use tether_policies::mess::{Encoder, HashedEncoder, Params};

/// Means of about .62, .82 and .89 at costs of about 1, 8 and 63.
static ZOO: LazyLock<Dataset> = LazyLock::new(|| synthetic::zoo(Shape::default(), 1, &HashedEncoder));
const ALPHA: f64 = 0.8;
/// The model that a static mix relies on at this level.
const MIDDLE: usize = 1;

fn runs(scenario: Scenario) -> Vec<Run> {
    let params = Params::default();
    Plan { data: &ZOO, width: HashedEncoder.width(), scenario, alpha: ALPHA, seeds: 0..4, params }.tether()
}

/// Always the middle model, whatever happens to it.
fn middle(scenario: Scenario) -> Run {
    Stream { data: &ZOO, scenario, alpha: ALPHA, seed: 0, changed: MIDDLE }.run(&mut Single(MIDDLE))
}

fn asked(run: &Run) -> u64 {
    run.calls.iter().chain(&run.extra_calls).sum()
}

fn labels(run: &Run) -> u64 {
    run.labels.iter().sum()
}

fn mean(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(of).sum::<f64>() / runs.len() as f64
}

#[test]
fn plain_holds_its_level_and_every_answer_is_a_label() {
    assert_eq!(changed_model(&ZOO, ALPHA), MIDDLE);
    for run in runs(Scenario::Plain) {
        assert!(run.satisfaction >= ALPHA - TOLERANCE && !run.bound_broken, "{}", run.satisfaction);
        assert_eq!(labels(&run), asked(&run));
    }
}

#[test]
fn one_rating_in_five_is_enough() {
    let runs = runs(Scenario::Sparse);
    for run in &runs {
        let share = labels(run) as f64 / asked(run) as f64;
        assert!((0.17..0.23).contains(&share), "{share}");
        // What 400 ratings say of 2,000 answers has a standard deviation of 0.02.
        assert!(run.satisfaction >= ALPHA - 0.05, "{}", run.satisfaction);
    }
    assert!(mean(&runs, |run| run.satisfaction) >= ALPHA - 0.015);
}

#[test]
fn late_ratings_are_missing_at_the_end_and_do_no_harm() {
    for run in runs(Scenario::Late) {
        let missing = asked(&run) - labels(&run);
        assert!((50..70).contains(&missing), "the last 50 requests' ratings never come: {missing}");
        assert!(run.satisfaction >= ALPHA - 0.01, "{}", run.satisfaction);
    }
}

#[test]
fn a_model_that_becomes_worse_is_left_and_the_level_comes_back() {
    assert!(middle(Scenario::Drop).satisfaction < middle(Scenario::Plain).satisfaction - 0.12, "it does become worse");
    let (plain, drop) = (runs(Scenario::Plain), runs(Scenario::Drop));
    let calls = |runs: &[Run]| mean(runs, |run| run.calls[MIDDLE] as f64);
    assert!(calls(&drop) < calls(&plain) - 400.0, "{} {}", calls(&drop), calls(&plain));
    for run in drop {
        assert!(run.recovered_after.is_some_and(|requests| requests <= 300), "{:?}", run.recovered_after);
        assert!(run.satisfaction >= ALPHA - TOLERANCE, "{}", run.satisfaction);
    }
}

#[test]
fn half_the_price_is_half_the_cost_from_then_on() {
    let (before, after) = (middle(Scenario::Plain).mean_cost, middle(Scenario::HalfPrice).mean_cost);
    assert!((after / before - 0.75).abs() < 0.03, "{before} {after}");
    let (plain, half) = (runs(Scenario::Plain), runs(Scenario::HalfPrice));
    let cost = |runs: &[Run]| mean(runs, |run| run.mean_cost);
    assert!(cost(&half) < 0.9 * cost(&plain), "{} {}", cost(&half), cost(&plain));
    assert!(half.iter().all(|run| run.satisfaction >= ALPHA - TOLERANCE));
}

#[test]
fn a_model_that_joins_half_way_is_found_and_saves_money() {
    for run in runs(Scenario::ModelAdded) {
        assert!((300..=1_000).contains(&run.calls[MIDDLE]), "only from then on: {:?}", run.calls);
        let middle = &run.curve[run.curve.len() / 2 - 1];
        let second = 2.0 * run.mean_cost - middle.mean_cost;
        assert!(second < 0.75 * middle.mean_cost, "{} then {second}", middle.mean_cost);
        assert!(run.satisfaction >= ALPHA - TOLERANCE, "{}", run.satisfaction);
    }
}

#[test]
fn two_tenants_each_get_their_own_level() {
    let (plain, both) = (runs(Scenario::Plain), runs(Scenario::TwoTenants));
    for run in &both {
        let [(strict, 0.8), (easy, _)] = run.tenants[..] else { panic!("{:?}", run.tenants) };
        assert!(strict >= ALPHA - 0.01 && easy >= ALPHA - 0.11, "{strict} {easy}");
        assert!(easy < ALPHA - 0.05, "who asks for less gets less: {easy}");
    }
    let cost = |runs: &[Run]| mean(runs, |run| run.mean_cost);
    assert!(cost(&both) < cost(&plain), "{} {}", cost(&both), cost(&plain));
}

/// They pull the measured mean down where most are satisfied, so more is paid than is needed; nobody is served worse.
#[test]
fn wrong_ratings_cost_money_and_no_satisfaction() {
    let (plain, wrong) = (runs(Scenario::Plain), runs(Scenario::WrongRatings));
    assert!(wrong.iter().all(|run| run.satisfaction >= ALPHA));
    let cost = |runs: &[Run]| mean(runs, |run| run.mean_cost);
    assert!(cost(&wrong) > cost(&plain));
}
