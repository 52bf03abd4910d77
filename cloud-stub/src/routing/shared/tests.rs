//! Several gateways at one log, in one process, without a network; `tests/tests/shared.rs` has them as processes.

use super::super::tests::{facts, features, id, level, two};
use super::super::{Keeper, Routing, RoutingStatus};
use crate::config::{EncoderSettings, RoutingSettings, Settings, StateSettings};
use crate::testing::settings;
use crate::zoo::choose::{BackendFacts, Chooser, TurnFacts, TurnKey};
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};
use tether_protocol::record::Usage;
use tether_protocol::wire::FeedbackReply;

const USAGE: Usage = Usage { prompt_tokens: 9, completion_tokens: 3 };

fn sharing(folder: &Path, alpha: f64) -> Settings {
    let state = StateSettings::Files(folder.to_owned());
    let routing =
        RoutingSettings { default: level(alpha), tenants: Vec::new(), encoder: EncoderSettings::Hashed, state };
    Settings { routing: Some(routing), ..settings(two()) }
}

fn open(folder: &Path) -> Routing {
    Routing::open(&sharing(folder, 0.8)).unwrap().unwrap()
}

fn wait<T>(told: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(told)
}

fn rate(routing: &Routing, tenant: &str, n: usize, rating: f64) -> Option<FeedbackReply> {
    wait(routing.rate(&TurnKey { tenant, turn_id: &id(n) }, rating))
}

/// Routes and answers; the model's name.
fn answer(routing: &Routing, zoo: &[BackendFacts], tenant: &str, n: usize) -> String {
    let turn_id = id(n);
    let key = TurnKey { tenant, turn_id: &turn_id };
    let turn = TurnFacts { key, model: None, image_count: 0, features: features(), prompt_tokens: 9 };
    let name = zoo[routing.choose(&turn, zoo).unwrap().index].name.clone();
    wait(routing.answered(&key, &name, USAGE, if name == "large" { 30e-6 } else { 3e-6 }));
    name
}

fn rated(routing: &Routing) -> u64 {
    routing.status().unwrap().tenants.iter().map(|tenant| tenant.status.rated).sum()
}

/// Waits until it holds; what the log brings takes milliseconds, a busy machine longer.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What was learned, without what differs between gateways by nature.
fn learned(routing: &Routing) -> RoutingStatus {
    RoutingStatus { shared: None, ..routing.status().unwrap() }
}

#[test]
fn a_rating_counts_once_at_whichever_gateway_and_however_often() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two_) = (open(folder.path()), open(folder.path()));
    let zoo = facts(&two());
    answer(&one, &zoo, "robot", 1);
    assert_eq!(rate(&two_, "robot", 1, 1.0), Some(FeedbackReply::Recorded), "the other one answered it");
    assert_eq!(rate(&one, "robot", 1, 0.0), Some(FeedbackReply::Recorded), "again: idempotent");
    assert_eq!(rate(&two_, "stranger", 1, 1.0), Some(FeedbackReply::UnknownTurn));
    assert_eq!(rate(&two_, "robot", 2, 1.0), Some(FeedbackReply::UnknownTurn));
    for routing in [&one, &two_] {
        soon("one rating, the first", || {
            let status = routing.status().unwrap();
            status
                .tenants
                .first()
                .is_some_and(|tenant| (tenant.status.rated, tenant.status.satisfaction) == (1, Some(1.0)))
        });
        assert!(routing.status().unwrap().kept);
    }
    assert_eq!(one.status().unwrap().shared.unwrap().kind, "files");
}

#[test]
fn gateways_that_work_at_once_learn_the_same_and_a_new_one_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two_) = (open(folder.path()), open(folder.path()));
    let zoo = facts(&two());
    std::thread::scope(|scope| {
        for (routing, from) in [(&one, 0), (&two_, 1_000)] {
            let zoo = &zoo;
            scope.spawn(move || {
                for n in from..from + 80 {
                    let name = answer(routing, zoo, "robot", n);
                    rate(routing, "robot", n, f64::from(u8::from(name == "large" || n % 2 == 0)));
                }
            });
        }
    });
    soon("160 ratings at both", || rated(&one) == 160 && rated(&two_) == 160);
    assert_eq!(learned(&one), learned(&two_));
    assert_eq!(learned(&one).tenants[0].status.answered, 160);
    // As a kill leaves it, and another machine beside.
    drop((one, two_));
    let third = open(folder.path());
    assert_eq!(rated(&third), 160);
    assert_eq!(rate(&third, "robot", 1_079, 1.0), Some(FeedbackReply::Recorded));
    assert_eq!(rated(&third), 160, "rated before");
}

#[test]
fn a_long_log_gives_way_to_a_snapshot_and_nothing_is_lost_or_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two_) = (open(folder.path()), open(folder.path()));
    for routing in [&one, &two_] {
        let Keeper::Shared(shared) = &mut routing.inner().keeper else { panic!("shared") };
        shared.max_log_bytes = 20_000;
    }
    let zoo = facts(&two());
    for n in 0..60 {
        let (here, there) = if n % 2 == 0 { (&one, &two_) } else { (&two_, &one) };
        answer(here, &zoo, "robot", n);
        assert_eq!(rate(there, "robot", n, 1.0), Some(FeedbackReply::Recorded), "{n}");
    }
    let snapshots = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("snapshot-"))).count()
    };
    soon("the first order and its records have gone", || {
        !folder.path().join("order-1.log").exists() && !folder.path().join("records-1").exists()
    });
    soon("two snapshots are kept", || snapshots() == 2);
    soon("all at both", || rated(&one) == 60 && rated(&two_) == 60);
    assert_eq!(rated(&open(folder.path())), 60);
}

#[test]
fn a_place_that_was_emptied_gets_back_what_a_gateway_knows() {
    let folder = tempfile::tempdir().unwrap();
    let one = open(folder.path());
    let zoo = facts(&two());
    for n in 0..10 {
        answer(&one, &zoo, "robot", n);
        rate(&one, "robot", n, 1.0);
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    soon("a snapshot again", || {
        std::fs::read_dir(folder.path())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_str().unwrap().starts_with("snapshot-"))
    });
    answer(&one, &zoo, "robot", 10);
    soon("the rating counts", || rate(&one, "robot", 10, 1.0) == Some(FeedbackReply::Recorded));
    assert_eq!(rated(&one), 11);
    assert_eq!(rated(&open(folder.path())), 11);
}

#[test]
fn many_tenants_at_two_gateways_are_all_known_at_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two_) = (open(folder.path()), open(folder.path()));
    let zoo = facts(&two());
    let names: Vec<String> = (0..40).map(|n| format!("robot-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let (here, there) = if n % 2 == 0 { (&one, &two_) } else { (&two_, &one) };
        answer(here, &zoo, name, n);
        assert_eq!(rate(there, name, n, 1.0), Some(FeedbackReply::Recorded), "{name}");
    }
    soon("all at both", || rated(&one) == 40 && rated(&two_) == 40);
    assert_eq!(learned(&one), learned(&two_));
    assert_eq!(learned(&open(folder.path())), learned(&one));
}

#[test]
fn new_levels_of_one_gateway_hold_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let one = open(folder.path());
    answer(&one, &facts(&two()), "robot", 1);
    let stricter = Routing::open(&sharing(folder.path(), 0.95)).unwrap().unwrap();
    let alpha = |routing: &Routing| routing.status().unwrap().tenants[0].status.alpha;
    assert_eq!(alpha(&stricter), 0.95);
    soon("the others follow", || alpha(&one) == 0.95);
    one.reload(&sharing(folder.path(), 0.7)).unwrap();
    soon("and back", || alpha(&stricter) == 0.7);
}
