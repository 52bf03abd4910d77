//! The learned policy in a running daemon: its files, swapped and refused; the task and the association that it
//! sees; what it says in answers and in the ledger.

use serde_json::{Value, json};
use std::path::Path;
use tether::config::Settings;
use tether::testing::{Behaviour, Upstream, World, settings};
use tether_policies::tmo::tether::{Config, weights};

const TETHER: &str = "[policy]\nname = \"tether\"\nfile = \"mine.json\"\n";

/// Writes a policy that has learned nothing: random weights, which make a definite choice all the same.
fn write_policy(folder: &Path, config: &Config, seed: u64) {
    std::fs::write(folder.join("mine.json"), serde_json::to_string(config).unwrap()).unwrap();
    std::fs::write(folder.join("mine.safetensors"), weights::random(config, seed).unwrap()).unwrap();
}

fn config(temperature: f64) -> Config {
    let tasks = ["Assistive System", "Message Editing", "Query", "Recommendation"].map(str::to_owned).to_vec();
    Config { temperature, ..Config::new("mine", tasks, 0, 16) }
}

struct Scene {
    folder: tempfile::TempDir,
    upstream: Upstream,
    world: World,
}

impl Scene {
    async fn new(temperature: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_policy(folder.path(), &config(temperature), 1);
        let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
        let world = World::start(folder.path(), &format!("{TETHER}{}", upstream.config())).await.unwrap();
        Self { folder, upstream, world }
    }

    async fn ask(&self, text: &str, tether: Value) -> Value {
        let reply = self.world.ask(text, json!({"max_tokens": 3, "tether": tether})).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["tether"].clone()
    }

    async fn policy(&self) -> String {
        self.world.get("/v1/status").await.unwrap().json()["policy"].as_str().unwrap().to_owned()
    }

    fn settings(&self) -> Settings {
        settings(self.folder.path(), &format!("{TETHER}{}", self.upstream.config())).unwrap()
    }
}

#[tokio::test]
async fn a_learned_policy_tells_its_values_its_probability_and_its_file() {
    let scene = Scene::new(0.0).await;
    let tether = scene.ask("What can you see?", json!({})).await;
    assert_eq!(tether["reason"], "learned", "{tether}");
    assert_eq!(tether["propensity"], 1.0);
    assert!(tether["policy"].as_str().unwrap().starts_with("mine@"), "{tether}");
    let id = tether["turn_id"].as_str().unwrap();
    let record = scene.world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
    let permitted = record["permitted"].as_array().unwrap();
    assert_eq!(permitted.len(), 2, "nothing was pushed: local, and the cloud with text only");
    assert_eq!(record["values"].as_array().unwrap().len(), permitted.len());
    assert_eq!((&record["values"], &record["policy"]), (&tether["values"], &tether["policy"]));
    // The chosen action has the greatest value.
    let values: Vec<f64> = tether["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
    assert_eq!(permitted[best], record["action"]);
}

#[tokio::test]
async fn with_a_temperature_the_draw_has_its_true_probability() {
    let scene = Scene::new(1.0).await;
    for _ in 0..4 {
        let tether = scene.ask("hello", json!({})).await;
        let propensity = tether["propensity"].as_f64().unwrap();
        assert!(propensity > 0.0 && propensity < 1.0, "{tether}");
        let values: Vec<f64> = tether["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let sum: f64 = values.iter().map(|value| value.exp()).sum();
        let expected = values.iter().map(|value| value.exp() / sum);
        assert!(
            expected.into_iter().any(|p| (p - propensity).abs() < 1e-6),
            "{propensity} is none of softmax {values:?}"
        );
        let id = tether["turn_id"].as_str().unwrap();
        let record = scene.world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
        let told: Vec<f64> = serde_json::from_value(record["probabilities"].clone()).unwrap();
        let expected = values.iter().map(|value| value.exp() / sum);
        assert!(told.len() == values.len() && expected.zip(&told).all(|(p, told)| (p - told).abs() < 1e-6), "{told:?}");
        let chosen = record["permitted"].as_array().unwrap().iter().position(|action| *action == record["action"]);
        assert_eq!(told[chosen.unwrap()], propensity);
    }
}

#[tokio::test]
async fn a_private_turn_stays_here_whatever_the_policy_likes() {
    for seed in 0..8 {
        let scene = Scene::new(0.0).await;
        write_policy(scene.folder.path(), &config(0.0), seed);
        scene.world.daemon.reload(scene.settings()).unwrap();
        let tether = scene.ask("a secret", json!({"local_only": true})).await;
        assert_eq!((&tether["route"], &tether["reason"]), (&json!("local"), &json!("local_only")));
        assert!(scene.upstream.bodies().is_empty());
    }
}

#[tokio::test]
async fn a_policy_is_swapped_while_turns_run_and_a_bad_one_is_refused() {
    let scene = Scene::new(0.0).await;
    let first = scene.policy().await;
    assert!(scene.world.daemon.reload(scene.settings()).unwrap().applied.is_empty(), "nothing has changed");
    write_policy(scene.folder.path(), &config(0.0), 2);
    assert_eq!(scene.world.daemon.reload(scene.settings()).unwrap().applied, ["policy"]);
    let second = scene.policy().await;
    assert_ne!(first, second);
    assert_eq!(scene.ask("hello", json!({})).await["policy"], second);

    let path = |name: &str| scene.folder.path().join(name);
    let good = std::fs::read(path("mine.safetensors")).unwrap();
    let refused = |what: &str| {
        let error = scene.world.daemon.reload(scene.settings()).unwrap_err().to_string();
        assert!(error.contains("[policy]") && error.contains("mine."), "{what}: {error}");
        assert!(error.contains(what), "{what}: {error}");
    };
    std::fs::write(path("mine.safetensors"), &good[..good.len() / 2]).unwrap();
    refused("safetensors");
    let other = Config { hidden: 8, ..config(0.0) };
    std::fs::write(path("mine.safetensors"), weights::random(&other, 1).unwrap()).unwrap();
    refused("turn.weight");
    std::fs::remove_file(path("mine.safetensors")).unwrap();
    refused("mine.safetensors");
    std::fs::write(path("mine.safetensors"), &good).unwrap();
    std::fs::write(path("mine.json"), serde_json::to_string(&Config { version: 2, ..config(0.0) }).unwrap()).unwrap();
    refused("version 2");
    assert_eq!(scene.policy().await, second, "the old one goes on");
    assert_eq!(scene.ask("hello", json!({})).await["policy"], second);
}

#[tokio::test]
async fn a_daemon_does_not_start_with_a_policy_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = World::start(folder.path(), TETHER).await.err().unwrap().to_string();
    assert!(error.contains("[policy]") && error.contains("mine.json"), "{error}");
}

#[tokio::test]
async fn without_a_file_the_built_in_policy_decides_and_a_file_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let built_in = format!("[policy]\nname = \"tether\"\n{}", upstream.config());
    let world = World::start(folder.path(), &built_in).await.unwrap();
    let name = async || world.get("/v1/status").await.unwrap().json()["policy"].as_str().unwrap().to_owned();
    assert!(name().await.starts_with("tether-tmo-1@"));
    write_policy(folder.path(), &config(0.0), 1);
    let own = format!("{TETHER}{}", upstream.config());
    assert_eq!(world.daemon.reload(settings(folder.path(), &own).unwrap()).unwrap().applied, ["policy"]);
    assert!(name().await.starts_with("mine@"));
    world.daemon.reload(settings(folder.path(), &built_in).unwrap()).unwrap();
    assert!(name().await.starts_with("tether-tmo-1@"));
}

#[tokio::test]
async fn the_task_comes_from_the_text_unless_the_request_names_it() {
    let scene = Scene::new(0.0).await;
    let task = |tether: &Value| (tether["task"].clone(), tether["task_source"].clone());
    let told = scene.ask("Please write a short note to my neighbour.", json!({"session": "s"})).await;
    assert_eq!(task(&told), (json!("Message Editing"), json!("text")));
    let named = scene.ask("Please write a short note.", json!({"session": "s", "task": "Query"})).await;
    assert_eq!(task(&named), (json!("Query"), json!("request")));
    let unknown = scene.ask("...", json!({"session": "s"})).await;
    assert_eq!(task(&unknown), (Value::Null, Value::Null));
    let turns = scene.world.get("/v1/turns?session=s").await.unwrap().json();
    let recorded: Vec<_> = turns["turns"].as_array().unwrap().iter().map(task).collect();
    assert_eq!(recorded, [task(&unknown), task(&named), task(&told)]);
}

#[tokio::test]
async fn cameras_have_an_association_from_the_text() {
    let scene = Scene::new(0.0).await;
    let tether = scene.ask("Where is the pan?", json!({"route": "cloud", "views": []})).await;
    let id = tether["turn_id"].as_str().unwrap();
    let record = scene.world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
    for view in record["context"]["views"].as_array().unwrap() {
        assert_eq!(view["association"].is_null(), view["is_text"] == true, "{view}");
    }
}

#[tokio::test]
async fn what_the_cloud_took_and_cost_predicts_the_next_turn() {
    let scene = Scene::new(0.0).await;
    let ask = async || {
        let tether = scene.ask("Where is the pan?", json!({"route": "cloud", "views": []})).await;
        let id = tether["turn_id"].as_str().unwrap().to_owned();
        scene.world.get(&format!("/v1/turns/{id}")).await.unwrap().json()
    };
    let first = ask().await;
    assert_eq!(first["predicted"]["latency_ms"], Value::Null, "nobody has seen this cloud answer");
    let second = ask().await;
    assert!(second["predicted"]["latency_ms"].as_f64().unwrap() > 0.0, "{}", second["predicted"]);
    assert_eq!(second["measured"]["cost_usd"].is_null(), second["predicted"]["cost_usd"].is_null());
    // Another cloud has another pace.
    let other = Upstream::start(Behaviour::Answer).await.unwrap();
    let changed = settings(scene.folder.path(), &format!("{TETHER}{}", other.config())).unwrap();
    assert_eq!(scene.world.daemon.reload(changed).unwrap().applied, ["cloud"]);
    assert_eq!(ask().await["predicted"]["latency_ms"], Value::Null);
}

#[tokio::test]
async fn ratings_reach_the_policy_at_once_and_after_a_restart_and_may_be_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let text = format!("[policy]\nname = \"tether\"\n{}", upstream.config());
    let world = World::start(folder.path(), &text).await.unwrap();
    let detail = async |world: &World| {
        let request = json!({"max_tokens": 3, "tether": {"task": "Query"}});
        let reply = world.ask("What can you see?", request).await.unwrap().json();
        (reply["tether"]["turn_id"].clone(), reply["tether"]["reason_detail"].as_str().unwrap().to_owned())
    };
    for _ in 0..3 {
        let (turn_id, _) = detail(&world).await;
        let rating = json!({"turn_id": turn_id, "rating": 0.0}).to_string();
        assert_eq!(world.send("POST", "/v1/feedback", rating).await.unwrap().status, 200);
    }
    let (_, told) = detail(&world).await;
    assert!(told.contains("(ratings -"), "{told}");
    let silent = text.replacen("[policy]", "[policy]\nlearn_from_ratings = false", 1);
    let applied = world.daemon.reload(settings(folder.path(), &silent).unwrap()).unwrap().applied;
    assert_eq!(applied, ["policy.learn_from_ratings"]);
    let (_, told) = detail(&world).await;
    assert!(!told.contains("ratings"), "{told}");
    world.stop().await.unwrap();
    let world = World::start(folder.path(), &text).await.unwrap();
    let (_, told) = detail(&world).await;
    assert!(told.contains("(ratings -"), "{told}");
}
