//! Choices and ratings without a network.

use super::*;
use crate::config::{BackendSettings, RoutingSettings};
use crate::price::Prices;
use crate::testing::{backend, script, settings};
use std::path::Path;
use std::sync::LazyLock;
use tether_policies::mess::{Encoder, HashedEncoder};
use tether_protocol::TurnId;

fn priced(name: &str, usd: f64) -> BackendSettings {
    let prices = Prices { usd_per_million_completion_tokens: usd, ..Prices::default() };
    BackendSettings { prices, ..backend(name, script("yes")) }
}

pub(super) fn level(alpha: f64) -> TenantConfig {
    TenantConfig::new(alpha).unwrap()
}

fn with(zoo: Vec<BackendSettings>, state: Option<&Path>) -> Settings {
    let tenants = vec![("picky".to_owned(), TenantConfig { alpha: 0.9, models: Some(vec!["large".into()]) })];
    let routing = RoutingSettings {
        default: level(0.8),
        tenants,
        encoder: EncoderSettings::Hashed,
        state: state.map_or(StateSettings::Memory, |folder| StateSettings::File(folder.to_owned())),
    };
    Settings { routing: Some(routing), ..settings(zoo) }
}

pub(super) fn two() -> Vec<BackendSettings> {
    // Dear first: the ladder must not depend on the order of the settings.
    vec![priced("large", 10.0), priced("small", 1.0)]
}

pub(super) fn facts(zoo: &[BackendSettings]) -> Vec<BackendFacts> {
    let facts = |settings: &BackendSettings| BackendFacts {
        name: settings.name.clone(),
        vision: settings.vision,
        healthy: true,
        tried: false,
        full_for_ms: None,
    };
    zoo.iter().map(facts).collect()
}

/// Of one question.
pub(super) fn features() -> &'static [f32] {
    static FEATURES: LazyLock<Vec<f32>> = LazyLock::new(|| HashedEncoder.encode("what is in the red box?"));
    &FEATURES
}

fn turn<'a>(tenant: &'a str, turn_id: &'a TurnId) -> TurnFacts<'a> {
    let key = TurnKey { tenant, turn_id };
    TurnFacts { key, model: None, image_count: 0, features: features(), prompt_tokens: 9 }
}

pub(super) fn id(n: usize) -> TurnId {
    TurnId::new(format!("t{n}")).unwrap()
}

const USAGE: Usage = Usage { prompt_tokens: 9, completion_tokens: 3 };

/// What is kept in this process is so at once.
fn now<T>(told: BoxFuture<'_, T>) -> T {
    told.now_or_never().expect("nothing to wait for")
}

fn rate(routing: &Routing, key: &TurnKey<'_>, rating: f64) -> Option<FeedbackReply> {
    now(routing.rate(key, rating))
}

/// Routes, answers and rates; the index of the model.
fn whole(routing: &Routing, zoo: &[BackendFacts], tenant: &str, n: usize, satisfied: impl Fn(&str) -> f64) -> usize {
    let turn_id = id(n);
    let turn = turn(tenant, &turn_id);
    let index = routing.choose(&turn, zoo).unwrap().index;
    let name = &zoo[index].name;
    now(routing.answered(&turn.key, name, USAGE, if name == "large" { 30e-6 } else { 3e-6 }));
    assert_eq!(rate(routing, &turn.key, satisfied(name)), Some(FeedbackReply::Recorded));
    index
}

#[test]
fn a_cheap_model_that_satisfies_answers_nearly_all_and_one_that_does_not_hardly_any() {
    let zoo = facts(&two());
    let share_of_large = |small_satisfies: f64| {
        let routing = Routing::open(&with(two(), None)).unwrap().unwrap();
        let rating = |name: &str| if name == "large" { 1.0 } else { small_satisfies };
        (0..300).filter(|&n| whole(&routing, &zoo, "robot", n, rating) == 0).count()
    };
    assert!(share_of_large(1.0) < 20, "{}", share_of_large(1.0));
    assert!(share_of_large(0.0) > 200, "{}", share_of_large(0.0));
}

#[test]
fn hard_facts_and_agreements_come_first() {
    let routing = Routing::open(&with(two(), None)).unwrap().unwrap();
    let mut zoo = facts(&two());
    assert_eq!(routing.choose(&turn("picky", &id(1)), &zoo).unwrap().index, 0, "the only model it may use");
    let refused = routing.choose(&TurnFacts { model: Some("small"), ..turn("picky", &id(2)) }, &zoo).unwrap_err();
    assert_eq!(refused.to_string(), "the gateway's settings do not allow picky the model small");
    zoo[0].healthy = false;
    assert!(matches!(routing.choose(&turn("picky", &id(3)), &zoo), Err(Refusal::Out { .. })));
    for n in 4..40 {
        assert_eq!(whole(&routing, &zoo, "robot", n, |_| 0.0), 1, "large is out");
    }
    zoo[1].vision = Vision::None;
    let turn_id = id(50);
    let seeing = TurnFacts { image_count: 1, ..turn("robot", &turn_id) };
    assert!(matches!(routing.check(&seeing, &zoo), Err(Refusal::Out { .. })));
}

#[test]
fn an_alpha_that_no_model_reaches_is_told_and_the_best_model_serves() {
    let mut settings = with(two(), None);
    settings.routing.as_mut().unwrap().default = level(0.97);
    let routing = Routing::open(&settings).unwrap().unwrap();
    let zoo = facts(&two());
    // Two thirds of the dear model's answers satisfy, and none of the cheap one's.
    let rating = |name: &str, n: usize| f64::from(u8::from(name == "large" && n % 3 < 2));
    let answers: Vec<usize> = (0..600).map(|n| whole(&routing, &zoo, "robot", n, |name| rating(name, n))).collect();
    let large = answers[400..].iter().filter(|&&index| index == 0).count();
    assert!(large > 180, "the best one serves: {large} of 200");
    let status = routing.status().unwrap();
    let warning = status.tenants[0].status.warning.clone().unwrap();
    assert_eq!(warning, "alpha 0.97 is above what any permitted model reaches; the best measured one answers");
}

#[test]
fn a_zoo_of_one_answers_every_turn() {
    let zoo = vec![priced("large", 10.0)];
    let mut settings = with(zoo.clone(), None);
    settings.routing.as_mut().unwrap().tenants.clear();
    let routing = Routing::open(&settings).unwrap().unwrap();
    let zoo = facts(&zoo);
    for n in 0..50 {
        let turn_id = id(n);
        let picked = routing.choose(&turn("robot", &turn_id), &zoo).unwrap();
        assert_eq!((picked.index, picked.reason), (0, "only"));
        now(routing.answered(&turn("robot", &turn_id).key, "large", USAGE, 30e-6));
        assert_eq!(rate(&routing, &turn("robot", &turn_id).key, 0.0), Some(FeedbackReply::Recorded));
    }
    let mut down = zoo;
    down[0].healthy = false;
    assert!(matches!(routing.choose(&turn("robot", &id(99)), &down), Err(Refusal::Out { .. })));
}

#[test]
fn a_rating_counts_once_and_only_from_its_client_and_only_for_a_whole_answer() {
    let routing = Routing::open(&with(two(), None)).unwrap().unwrap();
    let zoo = facts(&two());
    whole(&routing, &zoo, "robot", 1, |_| 1.0);
    let turn_id = id(1);
    let key = |tenant| TurnKey { tenant, turn_id: &turn_id };
    assert_eq!(rate(&routing, &key("robot"), 0.0), Some(FeedbackReply::Recorded), "again: idempotent");
    assert_eq!(rate(&routing, &key("other"), 1.0), Some(FeedbackReply::UnknownTurn));
    let status = routing.status().unwrap();
    assert_eq!((status.tenants[0].status.rated, status.tenants[0].status.satisfaction), (1, Some(1.0)));

    let failed = id(2);
    let facts = turn("robot", &failed);
    routing.choose(&facts, &zoo).unwrap();
    assert_eq!(rate(&routing, &facts.key, 1.0), Some(FeedbackReply::UnknownTurn), "not answered yet");
    routing.failed(&facts.key);
    assert!(routing.choose(&facts, &zoo).is_ok(), "the next backend is chosen for the same turn");
    assert_eq!(routing.status().unwrap().tenants[0].status.answered, 2);
}

#[test]
fn the_state_is_as_it_was_when_the_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(two(), Some(folder.path()));
    let zoo = facts(&two());
    let first = Routing::open(&settings).unwrap().unwrap();
    for n in 0..120 {
        whole(&first, &zoo, "robot", n, |name| if name == "large" { 1.0 } else { f64::from(u8::from(n % 2 == 0)) });
    }
    let before = first.status();
    // As a kill leaves it: nothing is closed in order.
    drop(first);
    let second = Routing::open(&settings).unwrap().unwrap();
    let after = second.status();
    let queue = |status: &Option<RoutingStatus>| status.as_ref().unwrap().tenants[0].status.queue;
    assert!((queue(&before) - queue(&after)).abs() < 1e-9);
    assert_eq!(before.unwrap().models, after.unwrap().models);
    let turn_id = id(5);
    assert_eq!(rate(&second, &TurnKey { tenant: "robot", turn_id: &turn_id }, 0.0), Some(FeedbackReply::Recorded));
    assert_eq!(second.status().unwrap().tenants[0].status.rated, 120, "it was rated before the restart");
}

#[test]
fn models_come_go_and_change_their_price_while_it_runs() {
    let routing = Routing::open(&with(two(), None)).unwrap().unwrap();
    let zoo = facts(&two());
    (0..30).for_each(|n| {
        whole(&routing, &zoo, "robot", n, |_| 1.0);
    });
    let calls = |name: &str| {
        let models = routing.status().unwrap().models;
        models.iter().find(|model| model.name == name).map(|model| model.calls)
    };
    let before = calls("small");
    let changed = vec![priced("large", 5.0), priced("small", 1.0), priced("middle", 2.0)];
    routing.reload(&with(changed, None)).unwrap();
    let names: Vec<String> = routing.status().unwrap().models.into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["small", "middle", "large"]);
    assert_eq!((calls("small"), calls("middle")), (before, Some(0)));
    routing.reload(&with(vec![priced("large", 5.0)], None)).unwrap();
    assert_eq!(calls("small"), None);
    let mut other = with(two(), None);
    other.routing.as_mut().unwrap().encoder = EncoderSettings::Sentence(None);
    let refused = routing.reload(&other).unwrap_err().to_string();
    assert!(refused.contains("routing.encoder cannot change") && refused.contains("restart"), "{refused}");
    let off = routing.reload(&settings(two())).unwrap_err();
    let on = crate::zoo::choose::FirstAble.reload(&with(two(), None)).unwrap_err();
    assert!(off.to_string().contains("restart") && on.to_string().contains("restart"), "{off} {on}");
}
