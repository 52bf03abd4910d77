//! The router through its public face: the guarantee, bad input, tenants, time, and the state on file.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tether_policies::mess::{
    Answer, Call, Choice, Decision, LabelOutcome, ModelSpec, Params, RateError, Reason, RequestFeatures, RouteError,
    Router, Snapshot, SnapshotError, TenantConfig, TokenPrice, ZooError,
};
use tether_protocol::limits::{MAX_PENDING_RATINGS, MAX_RATING_AGE_MS, MAX_TENANTS, MAX_ZOO_MODELS};

const WIDTH: usize = 6;

fn specs(names: &[&str]) -> Vec<ModelSpec> {
    names.iter().map(|name| ModelSpec { name: (*name).to_owned(), price: None }).collect()
}

fn router(names: &[&str], alpha: f64) -> Router {
    Router::new(specs(names), WIDTH, TenantConfig::new(alpha).unwrap(), Params::default()).unwrap()
}

fn features(values: [f32; WIDTH]) -> RequestFeatures {
    RequestFeatures { values: values.to_vec(), prompt_tokens: 10 }
}

/// Routes, answers and rates one request; `label` and `cost` are asked of the chosen models only.
fn turn(
    router: &mut Router,
    tenant: &str,
    number: u64,
    x: &RequestFeatures,
    u: f64,
    label: &mut dyn FnMut(usize) -> f64,
    cost: &dyn Fn(usize) -> f64,
) -> Choice {
    let names: Vec<String> = router.model_names().map(str::to_owned).collect();
    let permitted = vec![true; names.len()];
    let id = format!("{tenant}-{number}");
    let call = Call { tenant, turn: &id, features: x, permitted: &permitted, now_ms: number as i64, u };
    let choice = router.route(&call).unwrap();
    for m in [Some(choice.model), choice.extra].into_iter().flatten() {
        router.answered(&id, &names[m], Answer { cost: cost(m), tokens: None }, number as i64).unwrap();
        router.rate(tenant, &id, &names[m], label(m), number as i64).unwrap();
    }
    choice
}

/// Worlds in which a predictor is led astray. The last model is always alpha + 0.02, whatever the features.
#[derive(Debug, Clone, Copy)]
enum Adversary {
    /// The features say nothing.
    Noise,
    /// The weak models are good where feature 0 is high, and every 250 requests the sign of that turns.
    Turning,
    /// The weak models are perfect for the first 400 requests and useless from then on.
    Bait,
}

fn weak_mean(adversary: Adversary, t: u64, x: f32, alpha: f64) -> f64 {
    match adversary {
        Adversary::Noise => alpha - 0.2,
        Adversary::Turning => {
            let sign = if (t / 250).is_multiple_of(2) { 1.0 } else { -1.0 };
            if x * sign > 0.0 { 0.95 } else { 0.1 }
        }
        Adversary::Bait => {
            if t < 400 {
                1.0
            } else {
                alpha - 0.4
            }
        }
    }
}

fn largest_excess(adversary: Adversary, alpha: f64, seed: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut router = router(&["a", "b", "c"], alpha);
    let mut excess = f64::NEG_INFINITY;
    for t in 0..2_500 {
        let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
        let draws: [f64; 3] = rng.random();
        let weak = weak_mean(adversary, t, x.values[0], alpha);
        let means = [weak, weak, alpha + 0.02];
        let mut label = |m: usize| f64::from(u8::from(draws[m] < means[m]));
        turn(&mut router, "t", t, &x, rng.random(), &mut label, &|m| [1.0, 2.0, 20.0][m]);
        let status = router.tenant_status("t").unwrap();
        assert!(status.satisfaction.unwrap() >= alpha - status.queue / status.rated as f64 - 1e-9);
        excess = excess.max(status.queue - status.queue_bound);
    }
    excess
}

#[test]
fn the_queue_stays_under_its_bound_in_99_seeds_of_100_whatever_misleads_the_predictor() {
    for adversary in [Adversary::Noise, Adversary::Turning, Adversary::Bait] {
        let broken: Vec<u64> = (0..100).filter(|&seed| largest_excess(adversary, 0.8, seed) > 0.0).collect();
        assert!(broken.len() <= 1, "{adversary:?} broke the bound with seeds {broken:?}");
    }
}

#[test]
fn a_zoo_that_cannot_reach_alpha_is_reported_and_its_best_model_serves() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut router = router(&["a", "b"], 0.95);
    let mut last = 0;
    for t in 0..1_500 {
        let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
        let u = rng.random();
        let draw: f64 = rng.random();
        let choice =
            turn(&mut router, "t", t, &x, u, &mut |m| f64::from(u8::from(draw < [0.3, 0.7][m])), &|m| [1.0, 9.0][m]);
        last += u32::from(t >= 1_000 && choice.model == 1);
    }
    let status = router.tenant_status("t").unwrap();
    assert!(status.warning.unwrap().contains("0.95") && status.guarding);
    assert!(last > 450, "the better model served only {last} of the last 500");
}

#[test]
fn one_tenants_trouble_is_not_anothers() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut router = router(&["a", "b"], 0.5);
    router.set_tenant("strict", TenantConfig::new(0.99).unwrap()).unwrap();
    for t in 0..1_200 {
        let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
        for tenant in ["strict", "easy"] {
            let (u, draw): (f64, f64) = (rng.random(), rng.random());
            let label = |m: usize| f64::from(u8::from(draw < [0.6, 0.9][m]));
            turn(&mut router, tenant, t, &x, u, &mut { label }, &|m| [1.0, 9.0][m]);
        }
    }
    let (strict, easy) = (router.tenant_status("strict").unwrap(), router.tenant_status("easy").unwrap());
    assert!(strict.queue > 50.0 && strict.guarding, "{strict:?}");
    assert!(easy.queue < 15.0 && !easy.guarding && easy.satisfaction.unwrap() >= 0.5, "{easy:?}");
}

#[test]
fn tenants_are_bounded_and_the_longest_unused_gives_way() {
    let mut router = router(&["a"], 0.5);
    let x = features([0.0; WIDTH]);
    for t in 0..MAX_TENANTS as u64 + 10 {
        let (tenant, id) = (format!("tenant-{t}"), format!("turn-{t}"));
        let call = Call { tenant: &tenant, turn: &id, features: &x, permitted: &[true], now_ms: 0, u: 0.5 };
        router.route(&call).unwrap();
    }
    assert_eq!(router.tenant_count(), MAX_TENANTS);
    assert!(router.tenant_status("tenant-9").is_none() && router.tenant_status("tenant-10").is_some());
}

/// Ten times as many clients as are remembered, each once: what is kept stays bounded, and nobody is refused.
#[test]
fn a_million_tenants_are_served_in_bounded_memory() {
    let mut router = router(&["a", "b"], 0.5);
    let x = features([0.1; WIDTH]);
    for t in 0..1_000_000u64 {
        let name = t.to_string();
        let call = Call { tenant: &name, turn: &name, features: &x, permitted: &[true, true], now_ms: 0, u: 0.5 };
        router.route(&call).unwrap();
    }
    assert_eq!((router.tenant_count(), router.pending_count()), (MAX_TENANTS, MAX_PENDING_RATINGS));
}

/// What nobody rated is doubted by as much as Hoeffding's inequality says, and that is enough.
#[test]
fn where_one_answer_in_five_is_rated_the_bound_holds_for_all_of_them_in_99_seeds_of_100() {
    let holds = |seed: &u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(*seed);
        let mut router = router(&["a", "b", "c"], 0.8);
        let (mut satisfied, mut always) = (0.0, true);
        for t in 0..600u32 {
            let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
            let (u, draw, rated): (f64, f64, f64) = (rng.random(), rng.random(), rng.random());
            let id = t.to_string();
            let call = Call { tenant: "t", turn: &id, features: &x, permitted: &[true; 3], now_ms: 0, u };
            let choice = router.route(&call).unwrap();
            let name = ["a", "b", "c"][choice.model];
            let label = f64::from(u8::from(draw < [0.6, 0.75, 0.9][choice.model]));
            satisfied += label;
            router.answered(&id, name, Answer { cost: [1.0, 3.0, 20.0][choice.model], tokens: None }, 0).unwrap();
            if rated < 0.2 {
                router.rate("t", &id, name, label, 0).unwrap();
            }
            let status = router.tenant_status("t").unwrap();
            always &= satisfied / f64::from(t + 1) >= status.satisfaction_at_least - 1e-9;
        }
        let status = router.tenant_status("t").unwrap();
        assert!(status.rated < 180 && status.answered == 600);
        assert!(status.satisfaction_at_least > 0.4, "and it says something: {status:?}");
        always
    };
    let held = (0..100).filter(holds).count();
    assert!(held >= 99, "{held} of 100");
}

/// Gateways that share a log decide on their own and remember what the log brings.
#[test]
fn a_decision_changes_nothing_and_recording_it_anywhere_gives_what_routing_gives() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let make = || {
        let params = Params { extra: 0.0, ..Params::default() };
        Router::new(specs(&["a", "b", "c"]), WIDTH, TenantConfig::new(0.8).unwrap(), params).unwrap()
    };
    let (mut one, mut other) = (make(), make());
    let mut agreed = 0;
    for t in 0..500u32 {
        let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
        let (u, draw): (f64, f64) = (rng.random(), rng.random());
        let id = t.to_string();
        let call = Call { tenant: "t", turn: &id, features: &x, permitted: &[true; 3], now_ms: 0, u };
        let before = other.clone();
        let seen = other.decide(&call).unwrap();
        assert!(other == before && other.decide(&call).unwrap() == seen);
        let choice = one.route(&call).unwrap();
        agreed += u32::from(seen.model == choice.model);
        other.record(&call, &one.decision(&choice)).unwrap();
        assert!(matches!(other.record(&call, &one.decision(&choice)), Err(RouteError::Repeated(_))));
        assert_eq!(other.decide(&call).map(|_| ()), Ok(()), "a known turn may be decided again, after a failure");
        let name = ["a", "b", "c"][choice.model];
        let label = f64::from(u8::from(draw < [0.4, 0.7, 0.95][choice.model]));
        for router in [&mut one, &mut other] {
            router.answered(&id, name, Answer { cost: [1.0, 3.0, 20.0][choice.model], tokens: None }, 0).unwrap();
            router.rate("t", &id, name, label, 0).unwrap();
        }
        assert_eq!(one, other, "turn {t}");
    }
    assert!(agreed > 450, "a decision is what routing would choose, but for the request itself: {agreed} of 500");
    let gone = Decision { model: "z".into(), reason: Reason::Price, propensity: 1.0, shadow_price: None };
    let x = features([0.0; WIDTH]);
    let call = Call { tenant: "t", turn: "new", features: &x, permitted: &[true; 3], now_ms: 0, u: 0.5 };
    let before = one.clone();
    assert_eq!(one.record(&call, &gone), Err(RouteError::Gone("z".into())));
    assert_eq!(one, before);
}

#[test]
fn bad_zoos_and_levels_are_refused_by_name() {
    let make = |specs, alpha: f64| {
        let tenant = TenantConfig { alpha, models: None };
        Router::new(specs, WIDTH, tenant, Params::default()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(make(vec![], 0.5).unwrap_err(), ZooError::Empty.to_string());
    assert!(make(specs(&["a", "a"]), 0.5).unwrap_err().contains("\"a\""));
    let names: Vec<String> = (0..=MAX_ZOO_MODELS).map(|m| format!("m{m}")).collect();
    let many: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(make(specs(&many), 0.5).unwrap_err().contains("at most"));
    assert!(make(specs(&many[..MAX_ZOO_MODELS]), 0.5).is_ok());
    assert!(make(specs(&["a"]), 1.0).unwrap_err().contains("alpha is 1"));
    let price = Some(TokenPrice { input_per_token: f64::NAN, output_per_token: 1.0 });
    let priced = vec![ModelSpec { name: "a".into(), price }];
    assert!(make(priced, 0.5).unwrap_err().contains("price of a is NaN"));
    let mut router = router(&["a", "b"], 0.5);
    let foreign = TenantConfig { alpha: 0.5, models: Some(vec!["z".into()]) };
    assert!(router.set_tenant("t", foreign).unwrap_err().to_string().contains("\"z\""));
}

#[test]
fn bad_calls_are_refused_and_change_nothing() {
    let mut router = router(&["a", "b"], 0.5);
    let before = router.clone();
    let good = features([0.0; WIDTH]);
    let nan = features([f32::NAN; WIDTH]);
    let short = RequestFeatures { values: vec![0.0], prompt_tokens: 1 };
    let call = Call { tenant: "t", turn: "1", features: &good, permitted: &[true, true], now_ms: 0, u: 0.5 };
    let mut refused = |call: Call<'_>| router.route(&call).unwrap_err();
    assert_eq!(refused(Call { features: &nan, ..call }), RouteError::NotFinite);
    assert!(matches!(refused(Call { features: &short, ..call }), RouteError::Shape { given: 1, expected: WIDTH, .. }));
    assert!(matches!(refused(Call { permitted: &[true], ..call }), RouteError::Shape { given: 1, expected: 2, .. }));
    assert_eq!(refused(Call { permitted: &[false, false], ..call }), RouteError::NoModel("t".into()));
    assert!(matches!(refused(Call { tenant: "", ..call }), RouteError::Tenant(_)));
    assert_eq!(router, before);
    router.route(&call).unwrap();
    assert_eq!(router.route(&call).unwrap_err(), RouteError::Repeated("1".into()));
}

#[test]
fn hard_facts_and_a_zoo_of_one_are_obeyed() {
    let mut lone = router(&["only"], 0.9);
    let x = features([0.1; WIDTH]);
    let choice = turn(&mut lone, "t", 0, &x, 0.3, &mut |_| 1.0, &|_| 1.0);
    assert_eq!((choice.model, choice.reason), (0, Reason::Only));
    let mut router = router(&["a", "b", "c"], 0.7);
    for t in 0..200u32 {
        let down = (t % 3) as usize;
        let permitted: Vec<bool> = (0..3).map(|m| m != down).collect();
        let id = t.to_string();
        let call = Call { tenant: "t", turn: &id, features: &x, permitted: &permitted, now_ms: 0, u: 0.5 };
        let choice = router.route(&call).unwrap();
        assert!(choice.model != down && choice.extra != Some(down));
    }
}

#[test]
fn a_rating_counts_once_and_only_for_its_own_turn() {
    let mut router = router(&["a"], 0.5);
    let x = features([0.1; WIDTH]);
    let call = Call { tenant: "t", turn: "1", features: &x, permitted: &[true], now_ms: 0, u: 0.5 };
    router.route(&call).unwrap();
    assert_eq!(router.rate("t", "2", "a", 1.0, 0), Err(RateError::Unknown("2".into())));
    assert_eq!(router.rate("other", "1", "a", 1.0, 0), Err(RateError::Foreign("1".into())));
    assert!(matches!(router.rate("t", "1", "b", 1.0, 0), Err(RateError::NotAsked { .. })));
    assert!(matches!(router.rate("t", "1", "a", f64::NAN, 0), Err(RateError::Value { .. })));
    let bad = Answer { cost: f64::INFINITY, tokens: None };
    assert!(matches!(router.answered("1", "a", bad, 0), Err(RateError::Value { .. })));
    assert_eq!(router.rate("t", "1", "a", 0.0, 1), Ok(LabelOutcome::Learned));
    let once = router.clone();
    assert_eq!(router.rate("t", "1", "a", 1.0, 2), Ok(LabelOutcome::Duplicate));
    assert_eq!(router, once);
    router.route(&Call { turn: "3", ..call }).unwrap();
    assert_eq!(router.rate("t", "3", "a", 1.0, MAX_RATING_AGE_MS + 1), Err(RateError::Unknown("3".into())));
}

#[test]
fn models_come_go_and_change_price_at_run_time() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut router = router(&["a", "c"], 0.8);
    let stream = |router: &mut Router, from: u64, rng: &mut ChaCha8Rng| {
        let names: Vec<String> = router.model_names().map(str::to_owned).collect();
        let mean = |name: &str| if name == "a" { 0.4 } else { 0.95 };
        let cost = |name: &str| [("a", 1.0), ("b", 3.0), ("c", 30.0)].iter().find(|(n, _)| *n == name).unwrap().1;
        let mut calls = vec![0; names.len()];
        for t in from..from + 600 {
            let x = features(std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
            let (u, draw): (f64, f64) = (rng.random(), rng.random());
            let mut label = |m: usize| f64::from(u8::from(draw < mean(&names[m])));
            calls[turn(router, "t", t, &x, u, &mut label, &|m| cost(&names[m])).model] += 1;
        }
        calls
    };
    let first = stream(&mut router, 0, &mut rng);
    assert!(first[1] > 300, "{first:?}");
    router.add_model(ModelSpec { name: "b".into(), price: None }, 1).unwrap();
    let second = stream(&mut router, 600, &mut rng);
    assert!(second[1] > 250 && second[2] < 150, "the new model is as good as the dear one: {second:?}");
    router.reprice("b", None, 0.5).unwrap();
    assert!(router.reprice("b", None, 0.0).is_err() && router.reprice("z", None, 1.0).is_err());
    router.remove_model("b").unwrap();
    let third = stream(&mut router, 1_200, &mut rng);
    assert!(third.len() == 2 && third[1] > 250, "{third:?}");
    assert!(router.tenant_status("t").unwrap().satisfaction.unwrap() > 0.79);
}

#[test]
fn the_state_survives_a_file_and_a_replayed_log_gives_the_same_decisions() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut live = router(&["a", "b", "c"], 0.8);
    let stream: Vec<(RequestFeatures, f64, [f64; 3])> = (0..400)
        .map(|_| (features(std::array::from_fn(|_| rng.random_range(-1.0..1.0))), rng.random(), rng.random()))
        .collect();
    let play = |router: &mut Router, range: std::ops::Range<usize>| -> Vec<usize> {
        let one = |t: usize| {
            let (x, u, draws) = &stream[t];
            let mut label = |m: usize| f64::from(u8::from(draws[m] < [0.5, 0.8, 0.9][m]));
            turn(router, "t", t as u64, x, *u, &mut label, &|m| [1.0, 5.0, 20.0][m]).model
        };
        range.map(one).collect()
    };
    play(&mut live, 0..200);
    let file = live.snapshot("hashed-1").to_json();
    let mut restored = Router::restore(Snapshot::from_json(&file).unwrap(), "hashed-1").unwrap();
    assert_eq!(play(&mut live, 200..400), play(&mut restored, 200..400));
    let (live, restored) = (live.tenant_status("t").unwrap(), restored.tenant_status("t").unwrap());
    // JSON gives a float back to within its last bit.
    assert!((live.queue - restored.queue).abs() < 1e-9 && live.rated == restored.rated);
}

#[test]
fn tenants_leave_a_snapshot_and_come_back_and_one_that_is_lost_takes_only_its_own_along() {
    let mut router = router(&["a", "b"], 0.8);
    let x = features([0.5; WIDTH]);
    for t in 0..30 {
        turn(&mut router, ["one", "two", "three"][t as usize % 3], t, &x, 0.5, &mut |_| 1.0, &|_| 1.0);
    }
    let mut snapshot = router.snapshot("hashed-1");
    let mut parts = snapshot.take_tenants();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["one", "three", "two"]);
    let bare = Router::restore(snapshot.clone(), "hashed-1");
    assert!(bare.is_err(), "a state without its tenants' turns is none");
    let mut whole = snapshot.clone();
    whole.put_tenants(parts.clone());
    assert_eq!(Router::restore(whole, "hashed-1").unwrap(), router);
    parts.remove("two");
    snapshot.put_tenants(parts);
    let without = Router::restore(snapshot, "hashed-1").unwrap();
    assert_eq!((without.tenant_count(), without.pending_count()), (2, 20));
    assert_eq!(without.tenant_status("one"), router.tenant_status("one"));
}

#[test]
fn a_damaged_state_is_refused_and_never_believed() {
    let mut router = router(&["a", "b"], 0.8);
    let x = features([0.5; WIDTH]);
    turn(&mut router, "t", 0, &x, 0.5, &mut |_| 1.0, &|_| 1.0);
    let file = router.snapshot("hashed-1").to_json();
    let load = |text: &str, encoder: &str| Snapshot::from_json(text).and_then(|s| Router::restore(s, encoder));
    assert!(load(&file, "hashed-1").is_ok());
    assert!(matches!(load(&file, "minilm"), Err(SnapshotError::Encoder { .. })));
    assert!(matches!(load(&file[..file.len() / 2], "hashed-1"), Err(SnapshotError::Damaged(_))));
    assert!(matches!(
        load(&file.replacen("\"version\":1", "\"version\":9", 1), "hashed-1"),
        Err(SnapshotError::Version(9))
    ));
    let narrow = file.replacen("\"width\":6", "\"width\":7", 1);
    assert!(matches!(load(&narrow, "hashed-1"), Err(SnapshotError::Damaged(_))));
    let huge = file.replacen("\"queue\":0.0", "\"queue\":-5.0", 1);
    assert_ne!(huge, file);
    assert!(matches!(load(&huge, "hashed-1"), Err(SnapshotError::Damaged(_))));
}
