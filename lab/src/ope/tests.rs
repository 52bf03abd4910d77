use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const TASKS: usize = 3;
const KINDS: usize = 4;
/// Means by task and kind: local, and the cloud with 0 to 2 views.
const MEANS: [[f64; KINDS]; TASKS] = [[0.4, 0.5, 0.6, 0.5], [0.6, 0.5, 0.4, 0.3], [0.2, 0.4, 0.7, 0.8]];

/// The best kind by task, nine times in ten.
fn target(task: usize) -> Vec<(f64, Cell)> {
    let best = (0..KINDS).max_by(|a, b| MEANS[task][*a].total_cmp(&MEANS[task][*b])).unwrap();
    (0..KINDS).map(|kind| (if kind == best { 0.925 } else { 0.025 }, Cell { task, kind })).collect()
}

fn true_value() -> f64 {
    let of = |task: usize| target(task).iter().map(|(share, cell)| share * MEANS[task][cell.kind]).sum::<f64>();
    (0..TASKS).map(of).sum::<f64>() / TASKS as f64
}

/// A log of a policy that prefers other kinds than the target, with dialogues whose ratings go together and an effect that
/// no reward model of cells can know.
fn simulated(seed: u64) -> Vec<Choice> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut choices = Vec::new();
    for cluster in 0..200 {
        let mood = random.random_range(-0.1..0.1);
        for _ in 0..random.random_range(2..=5) {
            let task = random.random_range(0..TASKS);
            let scores: Vec<f64> =
                (0..KINDS).map(|kind| 1.0 - 0.2 * kind as f64 + random.random_range(0.0..0.8)).collect();
            let sum: f64 = scores.iter().map(|score| score.exp()).sum();
            let shares: Vec<f64> = scores.iter().map(|score| score.exp() / sum).collect();
            let mut rest = random.random_range(0.0..1.0);
            let kind = shares.iter().position(|share| {
                rest -= share;
                rest < 0.0
            });
            let kind = kind.unwrap_or(KINDS - 1);
            let hidden = if random.random_bool(0.5) { 0.1 } else { -0.1 };
            let reward = MEANS[task][kind] + mood + hidden + random.random_range(-0.1..0.1);
            choices.push(Choice {
                cluster,
                cell: Cell { task, kind },
                propensity: shares[kind],
                reward,
                target: target(task)[kind].0,
                actions: target(task),
            });
        }
    }
    choices
}

#[test]
fn intervals_cover_the_truth_and_doubly_robust_varies_least() {
    const SEEDS: usize = 60;
    let truth = true_value();
    let found: Vec<Estimates> = (0..SEEDS as u64).map(|seed| estimate(&simulated(seed), seed).unwrap()).collect();
    let mut variances = Vec::new();
    for (at, name) in ["inverse propensity", "self-normalised", "doubly robust"].into_iter().enumerate() {
        let of = |e: &Estimates| [e.inverse_propensity, e.self_normalised, e.doubly_robust][at];
        let covered = found.iter().filter(|e| (of(e).low..=of(e).high).contains(&truth)).count();
        // Nineteen in twenty are meant: 57 of 60, with a standard deviation of 1.7.
        assert!(covered >= 52, "{name}: {covered} of {SEEDS}");
        let mean = found.iter().map(|e| of(e).value).sum::<f64>() / SEEDS as f64;
        assert!((mean - truth).abs() < 0.015, "{name}: {mean} for {truth}");
        variances.push(found.iter().map(|e| (of(e).value - mean).powi(2)).sum::<f64>() / SEEDS as f64);
    }
    assert!(variances[2] < 0.5 * variances[0] && variances[2] < variances[1], "{variances:?}");
    // The log's own policy did clearly worse: the estimates are of the other one.
    assert!(found.iter().all(|e| e.logged.high < truth && e.effective_turns < e.turns as f64));
}

#[test]
fn the_logs_own_policy_is_worth_what_was_logged() {
    let mut choices = simulated(3);
    for choice in &mut choices {
        choice.target = choice.propensity;
        choice.actions = vec![(1.0, choice.cell)];
    }
    let found = estimate(&choices, 1).unwrap();
    assert!((found.inverse_propensity.value - found.logged.value).abs() < 1e-9);
    assert_eq!((found.largest_weight, estimate(&[], 1)), (1.0, None));
}

/// A record as the ledger exports it; two actions, of which the cloud was taken with probability .25.
fn row(number: usize, action: u8, rating: Option<f64>) -> Value {
    json!({
        "turn_id": format!("turn-{number}"), "session": format!("s{}", number / 3), "client": "test",
        "started_unix_ms": number, "task": "Query", "local_only": false,
        "context": {
            "battery": {"unknown": "test"}, "link": {"unknown": "test"}, "load": {"unknown": "test"},
            "views": [{"name": "front", "encoded_bytes": {"unknown": "test"}, "attached": false, "local_only": false,
                       "association": 0.2}],
        },
        "permitted": [0, 2], "action": action, "policy": "test", "reason": {"code": "drawn", "detail": ""},
        "propensity": if action == 0 { 0.75 } else { 0.25 }, "values": null, "predicted": {}, "predicted_costs": [{}, {}],
        "probabilities": [0.75, 0.25], "route": if action == 0 { "local" } else { "cloud" },
        "views": if action == 0 { json!([]) } else { json!(["front"]) },
        "model": null, "fallback": null, "measured": {}, "energy_source": "unknown",
        "usage": {"prompt_tokens": 10, "completion_tokens": 20}, "dropped_messages": 0, "timings": {"decision_us": 1},
        "outcome": "answered", "finish_reason": "stop", "rating": rating,
    })
}

fn text(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn read_text(text: &str) -> Result<Log, LogError> {
    read(text.as_bytes())
}

#[test]
fn an_exported_log_is_evaluated_by_the_policies_themselves() {
    // One in four went to the cloud, where answers are rated .9 for .3.
    let rows: Vec<Value> =
        (0..400).map(|at| if at % 4 == 0 { row(at, 2, Some(0.9)) } else { row(at, 0, Some(0.3)) }).collect();
    let log = read_text(&text(&rows)).unwrap();
    for (policy, value) in [("always-cloud", 0.9), ("always-local", 0.3)] {
        let (choices, unsupported) = choices(&log, named(policy).unwrap().as_ref(), 0);
        let found = estimate(&choices, 0).unwrap();
        assert_eq!((found.turns, unsupported), (400, 0.0));
        for estimate in [found.inverse_propensity, found.self_normalised, found.doubly_robust] {
            assert!((estimate.value - value).abs() < 0.01, "{policy}: {estimate:?}");
        }
        assert!((found.logged.value - 0.45).abs() < 1e-9);
    }
    // The learned policy reads such a record, too.
    let (with_tether, _) = choices(&log, named("tether").unwrap().as_ref(), 0);
    assert!(with_tether.iter().all(|choice| (choice.actions.iter().map(|a| a.0).sum::<f64>() - 1.0).abs() < 1e-9));
}

/// A draw between two, one of which is so rare that no number of draws would show it.
struct Drawing;

impl Policy for Drawing {
    fn name(&self) -> &str {
        "drawing"
    }

    fn decide(&self, _: &Observation, permitted: &Permitted, _: u64) -> tether_policies::Decision {
        let certain = tether_policies::Decision::certain(permitted.first().action, "r", "");
        let shares = vec![1.0 - 1e-6, 1e-6];
        tether_policies::Decision { propensity: shares[0], probabilities: Some(shares), ..certain }
    }
}

#[test]
fn a_policy_that_tells_its_probabilities_is_taken_at_its_word() {
    let log = read_text(&text(&[row(0, 2, Some(0.5))])).unwrap();
    let (found, _) = choices(&log, &Drawing, 0);
    assert_eq!((found[0].target, found[0].actions.len()), (1e-6, 2));
}

#[test]
fn what_a_certain_policy_never_did_is_told() {
    let mut rows: Vec<Value> = (0..20).map(|at| row(at, 0, Some(0.5))).collect();
    rows.iter_mut().for_each(|row| {
        row["propensity"] = json!(1.0);
        row["probabilities"] = json!([1.0, 0.0]);
    });
    let log = read_text(&text(&rows)).unwrap();
    let (found, unsupported) = choices(&log, &AlwaysCloud, 0);
    assert_eq!((unsupported, estimate(&found, 0).unwrap().inverse_propensity.value), (1.0, 0.0));
    assert_eq!(choices(&log, &AlwaysLocal, 0).1, 0.0);
    rows.iter_mut().for_each(|row| row["probabilities"] = Value::Null);
    let older = read_text(&text(&rows)).unwrap();
    assert_eq!((choices(&older, &AlwaysCloud, 0).1, choices(&older, &AlwaysLocal, 0).1), (1.0, 0.0));
}

#[test]
fn one_rule_refuses_in_words_and_in_json() {
    // Of a hundred turns the cloud could have been chosen in so many.
    let told = |possible: usize, taken: usize| {
        let row = |at| match at {
            at if at < taken => row(at, 2, Some(0.5)),
            at if at < possible => row(at, 0, Some(0.5)),
            at => {
                let mut row = row(at, 0, Some(0.5));
                (row["propensity"], row["probabilities"]) = (json!(1.0), json!([1.0, 0.0]));
                row
            }
        };
        let log = read_text(&text(&(0..100).map(row).collect::<Vec<_>>())).unwrap();
        let (choices, unsupported) = choices(&log, &AlwaysCloud, 0);
        let line = Line::new("always-cloud", estimate(&choices, 0).unwrap(), unsupported, &log);
        (words(&line), serde_json::to_value(&line).unwrap())
    };
    for (possible, taken, why) in [(3, 3, "97 % of its choices"), (100, 0, "in no turn")] {
        let (words, json) = told(possible, taken);
        assert!(words.contains("no estimate") && words.contains(why) && !words.contains("doubly robust"), "{words}");
        for estimate in ["inverse_propensity", "self_normalised", "doubly_robust"] {
            assert_eq!(json.get(estimate), Some(&Value::Null), "{json}");
        }
        assert!(json["refused"].as_str().unwrap().contains(why), "{json}");
        assert_eq!(json["logged"]["value"], 0.5);
    }
    let (words, json) = told(60, 20);
    assert!(words.contains("doubly robust") && words.contains("beware: 40 %"), "{words}");
    assert!(json["refused"].is_null() && json["doubly_robust"]["low"].is_number(), "{json}");
}

#[test]
fn who_asks_for_an_estimate_that_there_is_not_gets_an_error_in_either_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("field.jsonl");
    let rows: Vec<Value> = (0..8).map(|at| row(at, if at % 4 == 0 { 2 } else { 0 }, Some(0.5))).collect();
    let mut certain = rows.clone();
    certain.iter_mut().for_each(|row| {
        let action = row["action"].as_u64().unwrap();
        (row["propensity"], row["probabilities"]) = (json!(1.0), json!([u8::from(action == 0), u8::from(action != 0)]));
    });
    let mut untold = rows.clone();
    untold[5].as_object_mut().unwrap().remove("propensity");
    for json in [false, true] {
        let ran = |rows: &[Value]| {
            std::fs::write(&path, text(rows)).unwrap();
            let policy = vec!["always-local".to_owned(), "always-cloud".to_owned()];
            run(OpeCli { log: path.clone(), policy, seed: 0, json }).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(ran(&rows), Ok(()));
        assert_eq!(ran(&certain), Err("no estimate of always-cloud".to_owned()));
        assert!(ran(&untold).unwrap_err().contains("no propensity"));
    }
}

#[test]
fn a_log_without_propensities_is_refused_by_its_turn() {
    let message = |edit: &dyn Fn(&mut Value)| {
        let mut rows: Vec<Value> = (0..5).map(|at| row(at, 0, Some(0.5))).collect();
        edit(&mut rows[3]);
        read_text(&text(&rows)).unwrap_err().to_string()
    };
    let missing = message(&|row| {
        row.as_object_mut().unwrap().remove("propensity");
    });
    assert!(missing.contains("turn-3") && missing.contains("line 4") && missing.contains("no propensity"), "{missing}");
    assert!(message(&|row| row["propensity"] = Value::Null).contains("turn-3"));
    assert!(message(&|row| row["propensity"] = json!(0.0)).contains("turn turn-3"));
    assert!(message(&|row| row["propensity"] = json!(1.5)).contains("1.5"));
    assert!(message(&|row| row["predicted_costs"] = json!([])).contains("permitted"));
    assert!(message(&|row| row["probabilities"] = json!([1.0])).contains("permitted"));
    assert!(message(&|row| row["permitted"] = json!([0, 77])).contains("turn-3"));
    assert!(message(&|row| *row = json!(["no", "record"])).contains("line 4"));
    let unrated: Vec<Value> = (0..3).map(|at| row(at, 0, None)).collect();
    assert!(read_text(&text(&unrated)).unwrap_err().to_string().contains("tether feedback"));
    assert!(matches!(read_text(""), Err(LogError::NoRating { turns: 0 })));
    assert!(named("magic").err().unwrap().to_string().contains("always-cloud"));
}

#[test]
fn a_refused_turn_is_no_choice() {
    let refused = json!({"permitted": [], "predicted_costs": [], "probabilities": [], "propensity": 1.0, "action": 0,
                         "outcome": "refused", "unaffordable": [{"action": 2, "predicted": {}}], "possible_unix_ms": null});
    let mut rows = vec![row(0, 2, Some(0.9)), row(1, 0, Some(0.3)), row(2, 0, Some(0.0))];
    rows[2].as_object_mut().unwrap().extend(refused.as_object().unwrap().clone());
    let log = read_text(&text(&rows)).unwrap();
    assert_eq!((log.turns.len(), log.undecided), (2, 1));
}
