use super::*;
use crate::export::{self, Format, Source};
use crate::store::Store;
use std::convert::Infallible;
use tether_policies::budget::{Budget, BudgetName, Resource, Window};
use tether_policies::tmo::data::Dataset;
use tether_policies::tmo::paper::Profile;
use tether_policies::tmo::synthetic;
use tether_policies::trace::Trace;
use tether_protocol::Route;

fn budget(resource: Resource, cap: f64) -> Budget {
    let name = BudgetName { resource, window: Window::Mission };
    Budget { name, cap: resource.count(cap).unwrap(), mission_ms: Some(3_600_000), floor_percent: None }
}

fn data() -> Dataset {
    synthetic::dataset(40, 3, 5)
}

/// An uplink that comes and goes.
fn trace() -> Trace {
    let rows: String = (0..300).map(|t| format!("{t},,{},40\n", if t % 60 < 40 { 8 } else { 0 })).collect();
    Trace::parse(&format!("t_s,down_mbps,up_mbps,rtt_ms\n{rows}"), 0.1).unwrap()
}

fn mission(budgets: Vec<Budget>) -> Mission {
    let robot = Robot::new("Jetson Orin NX", 40.0).unwrap();
    Mission::new(robot, trace(), data(), budgets, 1.0, 240.0).unwrap()
}

fn flown(mission: &Mission, policy: &str, seed: u64) -> (Outcome, Vec<Flown>) {
    let mut turns = Vec::new();
    let mut keep = |turn| {
        turns.push(turn);
        Ok::<(), Infallible>(())
    };
    let outcome = fly(mission, &Contender::named(policy).unwrap(), "test", seed, &mut keep).unwrap();
    (outcome, turns)
}

fn outcome(mission: &Mission, policy: &str, seed: u64) -> Outcome {
    flown(mission, policy, seed).0
}

#[test]
fn a_seed_decides_everything_and_all_policies_meet_the_same_turns() {
    let mission = mission(vec![budget(Resource::UplinkBytes, 20e6)]);
    for policy in ["tether", "always-cloud"] {
        let json = |seed| {
            let (outcome, turns) = flown(&mission, policy, seed);
            let records: Vec<_> = turns.into_iter().map(|(record, _)| record).collect();
            serde_json::to_string(&(outcome, records)).unwrap()
        };
        assert_eq!(json(1), json(1));
        assert_ne!(json(1), json(2));
    }
    let (one, cloud) = flown(&mission, "always-cloud", 1);
    let (other, local) = flown(&mission, "always-local", 1);
    assert_eq!((one.turns, other.cloud, other.uplink_bytes), (other.turns, 0, 0));
    let asked = |turns: &[Flown]| -> Vec<_> {
        turns.iter().map(|(r, _)| (r.started_unix_ms, r.turn_id.clone(), r.task.clone(), r.session.clone())).collect()
    };
    assert_eq!(asked(&cloud), asked(&local));
    assert!((150..350).contains(&one.turns), "{}", one.turns);
    assert!(one.cloud > 0 && one.fell_back > 0, "outages of 20 s are longer than anybody waits: {one:?}");
    assert_eq!(one.turns, one.local + one.cloud + one.refused + one.failed + one.unserved);
}

#[test]
fn no_cap_is_ever_exceeded_and_pacing_keeps_to_its_line() {
    for seed in 0..6 {
        let mission = mission(vec![budget(Resource::UplinkBytes, 20e6), budget(Resource::Usd, 0.6)]);
        for policy in ["always-cloud", "cloud-then-local", "rule", "tether"] {
            let found = outcome(&mission, policy, seed);
            assert_eq!(found.caps_exceeded, 0, "{policy} {seed}");
            let left_usd = found.budget_left["usd_per_mission"];
            assert!((found.cost_usd + left_usd - 0.6).abs() < 1e-6, "money told is money booked: {found:?}");
            assert!(found.uplink_bytes <= 20_000_000 && left_usd >= 0.0, "{found:?}");
            // A robot that may answer by itself refuses nobody.
            assert_eq!(found.refused + found.failed, 0, "{policy} {seed}");
        }
        let paced = outcome(&mission, "always-cloud", seed).overshoot.unwrap();
        let unpaced = outcome(&mission, "cloud-then-local", seed).overshoot.unwrap();
        assert!(paced <= 0.004 && unpaced > 0.05, "{paced} {unpaced}");
    }
}

#[test]
fn an_energy_budget_refuses_when_nothing_fits_and_an_empty_battery_serves_nobody() {
    let found = outcome(&mission(vec![budget(Resource::EnergyJ, 2_000.0)]), "always-local", 3);
    assert!(found.refused > 0 && found.energy_j <= 2_000.0 && found.caps_exceeded == 0, "{found:?}");
    let robot = Robot::new("jetson orin nx", 4.0).unwrap();
    let small = Mission::new(robot, trace(), data(), Vec::new(), 2.0, 120.0).unwrap();
    let found = outcome(&small, "always-local", 3);
    assert!(found.unserved > 0 && found.battery_left_percent == Some(0.0), "{found:?}");
    let refused = outcome(&mission(vec![budget(Resource::EnergyJ, 0.0)]), "always-local", 3);
    assert_eq!((refused.refused, refused.failed, refused.rating), (refused.turns, 0, Some(0.0)));
}

/// Nothing is invented: what the outcome says is the sum of the records, and what failed says so.
#[test]
fn records_and_outcome_agree() {
    let mission = mission(vec![budget(Resource::UplinkBytes, 20e6)]);
    let (outcome, turns) = flown(&mission, "always-cloud", 4);
    let records: Vec<_> = turns.iter().map(|(record, _)| record).collect();
    let sum: u64 = records.iter().filter_map(|record| record.measured.uplink_bytes).sum();
    let charged: u64 = turns.iter().flat_map(|(_, settling)| &settling.charges).map(|charge| charge.spent).sum();
    assert_eq!((outcome.uplink_bytes, outcome.uplink_bytes), (sum, charged));
    assert_eq!(outcome.budget_left["uplink_bytes_per_mission"], 20e6 - sum as f64);
    for record in &records {
        let fell_back = record.fallback.is_some();
        assert_eq!(fell_back, record.action.route() == Route::Cloud && record.route == Route::Local);
        // What was sent has left the device, whoever answered.
        assert_eq!(record.views, mission.space.names(mission.space.sent(record.action)));
        assert!(record.permitted.contains(&record.action) && record.predicted_costs.len() == record.permitted.len());
        assert!(!fell_back || record.measured.latency_ms > Some(2_000.0));
    }
    assert!(records.is_sorted_by_key(|record| record.turn_id.as_str()));
}

#[test]
fn pictures_travel_as_large_as_the_link_and_the_budget_allow() {
    let slow = |up: &str| {
        let trace = Trace::parse(&format!("t_s,down_mbps,up_mbps,rtt_ms\n0,,{up},40\n1,,{up},40\n"), 0.1).unwrap();
        let robot = Robot::new("Jetson Orin NX", 40.0).unwrap();
        Mission::new(robot, trace, data(), vec![budget(Resource::UplinkBytes, 10e6)], 1.0, 60.0).unwrap()
    };
    let sides = |mission: &Mission| -> Vec<u32> {
        let (_, turns) = flown(mission, "cloud-then-local", 1);
        let mut sides = Vec::new();
        for (record, _) in &turns {
            let Some(upload) = &record.upload else { continue };
            let pictures = &upload.pictures;
            assert_eq!(pictures.len(), record.views.len());
            let predicted = record.predicted.uplink_bytes.unwrap();
            let estimated: u64 = pictures.iter().map(|picture| picture.estimated_bytes).sum();
            assert!((estimated..estimated + estimated / 20 + 4_000).contains(&predicted), "{record:?}");
            let off = record.measured.uplink_bytes.unwrap() as f64 / predicted as f64 - 1.0;
            assert!(off.abs() <= 0.1001, "{off}");
            sides.extend(pictures.iter().map(|picture| picture.max_side_px));
        }
        sides
    };
    // At 8 Mbit/s 300 kB take 0.3 s; at 0.3 Mbit/s they would take 8, and 2 are allowed.
    let (fast, small) = (sides(&slow("8")), sides(&slow("0.3")));
    assert_eq!(fast[..30], [768; 30]);
    // The link is not known before the first turn.
    assert_eq!((&small[..3], &small[3..]), (&[768; 3][..], &vec![384; small.len() - 3][..]));
    // When little is left, smaller ones travel before none do.
    assert!(fast.is_sorted_by(|before, after| before >= after) && fast[fast.len() - 1] == 192, "{fast:?}");
    assert_eq!(sides(&slow("0.3").with_fixed_pictures()).iter().max(), Some(&768));
    assert_eq!(sides(&slow("0.3").with_fixed_pictures()).iter().min(), Some(&768));
}

/// The daemon's books: nobody tells whether a cloud that was not reached charges for what it got.
#[test]
fn a_cloud_that_was_not_reached_counts_as_paid() {
    let mission = mission(vec![budget(Resource::Usd, 2.0)]);
    let (_, turns) = flown(&mission, "always-cloud", 4);
    let unreached: Vec<_> = turns.iter().filter(|(record, _)| record.fallback.is_some()).collect();
    assert!(!unreached.is_empty());
    for (record, settling) in unreached {
        assert_eq!(record.measured.cost_usd, None);
        let reserved = Resource::Usd.count(record.reserved.unwrap().cost_usd.unwrap()).unwrap();
        let charges: Vec<_> = settling.charges.iter().map(|charge| (charge.spent, charge.unknown)).collect();
        assert_eq!(charges, [(reserved, reserved)]);
    }
}

/// What is reserved covers the published prices of any number of views.
#[test]
fn prices_are_the_published_ones_or_a_little_more() {
    let mission = mission(Vec::new());
    let prices = mission.settings.prices.unwrap();
    for (views, usd) in Profile::default().usage_usd[1..].iter().enumerate() {
        let reserved = prices.request + prices.image * views as f64;
        assert!((*usd..usd * 1.03).contains(&reserved), "{views} views: {reserved} for {usd}");
    }
}

#[tokio::test]
async fn a_ledger_of_a_replay_is_read_like_any_other() {
    let mission = mission(vec![budget(Resource::UplinkBytes, 20e6)]);
    let (outcome, turns) = flown(&mission, "tether", 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("field.db");
    let store = Store::create(&path).unwrap();
    let (count, last) = (turns.len() as u64, turns[turns.len() - 1].0.clone());
    let given: Vec<f64> = turns.iter().filter_map(|(record, _)| record.rating).collect();
    store.settle_all(turns).await.unwrap();
    let newest = store.turns(3, None, None).await.unwrap();
    assert_eq!((newest[0].turn_id.as_str(), newest[0].rating), (last.turn_id.as_str(), last.rating));
    drop(store);
    let source = Source::open(&path, i64::MIN).unwrap();
    let mut text = Vec::new();
    let report = export::export(&source, Format::Jsonl, &mut text, |_| ()).unwrap();
    assert_eq!(report.turns, count);
    let mut m4a1 = Vec::new();
    let kept = export::export(&source, Format::M4a1, &mut m4a1, |_| ()).unwrap();
    assert_eq!(kept.skipped, export::Skipped::default());
    assert!(Dataset::parse(std::str::from_utf8(&m4a1).unwrap()).is_ok(), "TMO trains on it");
    // The report of the ledger says what the replay said, as far as records tell.
    let read = log::read(&source, &mission.settings.budgets).unwrap().unwrap();
    assert_eq!(read.last_ms - read.first_ms, last.started_unix_ms - read.first_ms);
    let told = |o: &Outcome| (o.turns, o.local, o.cloud, o.fell_back, o.views, o.uplink_bytes, o.budget_left.clone());
    assert_eq!(told(&read.outcome), told(&outcome));
    // Of what people said; the replay itself knows what their answers are worth in the mean.
    let mean = given.iter().sum::<f64>() / given.len() as f64;
    assert!((read.outcome.rating.unwrap() - mean).abs() < 1e-12);
    assert!((outcome.rating.unwrap() - mean).abs() < 0.05, "{mean} of {:?}", outcome.rating);
    assert!((read.outcome.cost_usd - outcome.cost_usd).abs() < 1e-9 && read.outcome.reward.is_none());
    assert_eq!(read.outcome.caps_exceeded, 0);
    let none = Source::open(&path, i64::MAX).unwrap();
    assert_eq!(log::read(&none, &[]).unwrap(), None);
    // A daemon takes it over, and writes its log beside it.
    let taken = Store::open(&path).unwrap();
    assert!(taken.notices.is_empty(), "{:?}", taken.notices);
    assert!(path.with_extension("db-wal").exists());
    assert_eq!(taken.store.turn_count().await.unwrap(), count);
}

#[test]
fn the_page_has_every_plot_and_takes_names_as_text() {
    let mission = mission(vec![budget(Resource::UplinkBytes, 20e6)]);
    let mut one = outcome(&mission, "tether", 1);
    one.policy = "<tether>".into();
    let html = page::page("t", "a < b", &[one, outcome(&mission, "always-local", 1)]);
    for title in ["Battery", "Bytes sent", "Uplink", "Routes", "Satisfaction", "Reward", "Furthest ahead"] {
        assert!(html.contains(&format!("<b>{title}")), "{title}");
    }
    assert!(html.contains("a &lt; b") && html.contains("&lt;tether&gt;") && !html.contains("<tether>"));
}

#[test]
fn what_cannot_be_flown_is_named() {
    let message = |result: Result<Mission, MissionError>| result.unwrap_err().to_string();
    assert!(Robot::new("toaster", 1.0).unwrap_err().to_string().contains("Jetson Orin NX"));
    assert_eq!(Robot::new("Jetson Nano", 0.0), Err(MissionError::Battery));
    let robot = Robot::new("Jetson Nano", 1.0).unwrap();
    assert!(message(Mission::new(robot, trace(), data(), vec![], 1.0, 0.5)).contains("turns"));
    assert!(message(Mission::new(robot, trace(), data(), vec![], f64::NAN, 60.0)).contains("hours"));
    let one = synthetic::dataset(1, 3, 1);
    assert_eq!(Mission::new(robot, trace(), one, vec![], 1.0, 60.0).err(), Some(MissionError::TooFew));
    let blind = synthetic::dataset(4, 0, 1);
    assert_eq!(Mission::new(robot, trace(), blind, vec![], 1.0, 60.0).err(), Some(MissionError::Views(0)));
    assert!(Contender::named("magic").err().unwrap().to_string().contains("cloud-then-local"));
    assert!(Contender::named("nowhere.json").err().unwrap().to_string().contains("nowhere.json"));
}

/// In dialogues that the network never saw, under budgets with a pace.
#[test]
fn what_people_say_of_answers_makes_the_next_ones_better() {
    let mut mission = mission(vec![budget(Resource::UplinkBytes, 20e6)]);
    mission.hours = 24.0;
    let mut earned = |rated_share: f64| {
        mission.rated_share = rated_share;
        (0..4).map(|seed| flown(&mission, "tether", seed).0.reward.unwrap()).sum::<f64>()
    };
    let (rated, unrated) = (earned(1.0), earned(0.0));
    assert!(rated > 1.01 * unrated, "{rated} and {unrated}");
}
