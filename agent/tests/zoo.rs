//! Two local models under `model = "auto"`: ratings choose, names are obeyed, and what was learned survives.

use serde_json::json;
use tether::testing::World;
use tether_models::testing::{TinyArchitecture, TinyModel};

/// The second model's file is larger, so it stands for the dearer one.
const ZOO: &str =
    "[model]\npath = \"tiny.gguf\"\nzoo = [\"./large.gguf\"]\nzoo_alpha = 0.8\nmax_tokens = 2\nsystem_prompt = \"\"\n";

async fn world(folder: &std::path::Path) -> World {
    TinyModel::new(TinyArchitecture::Llama).write(&folder.join("tiny.gguf")).unwrap();
    TinyModel::new(TinyArchitecture::Qwen3).write(&folder.join("large.gguf")).unwrap();
    World::start(folder, ZOO).await.unwrap()
}

/// Asks, rates the answer by its model; the model's name.
async fn ask(world: &World, satisfied: impl Fn(&str) -> bool) -> String {
    let answer = world.ask("is it red?", json!({})).await.unwrap().json();
    let (model, turn_id) = (answer["model"].as_str().unwrap().to_owned(), answer["tether"]["turn_id"].clone());
    let rating = json!({"turn_id": turn_id, "rating": f64::from(u8::from(satisfied(&model)))});
    let rated = world.send("POST", "/v1/feedback", rating.to_string()).await.unwrap();
    assert_eq!(rated.status, 200);
    model
}

#[tokio::test]
async fn ratings_decide_which_local_model_answers_and_a_restart_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let world_ = world(folder.path()).await;
    let mut models = Vec::new();
    for _ in 0..60 {
        models.push(ask(&world_, |model| model == "large").await);
    }
    let large = |models: &[String]| models.iter().filter(|model| *model == "large").count();
    assert!(large(&models[30..]) >= 20, "only the dear one satisfies: {models:?}");
    let status = world_.daemon.zoo().unwrap().status();
    assert_eq!((status.answered, status.rated), (60, 60));
    let shown = world_.get("/v1/status").await.unwrap().json()["zoo"].clone();
    assert_eq!((&shown["alpha"], &shown["rated"], &shown["cost_unit"]), (&json!(0.8), &json!(60), &json!("s")));
    let [tiny, large_] = shown["models"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((&tiny["name"], &large_["name"], &tiny["satisfaction"]), (&json!("tiny"), &json!("large"), &json!(0.0)));
    assert!(large_["mean_cost"].as_f64().unwrap() > 0.0 && large_["satisfaction"] == 1.0, "{shown}");

    let named = world_.ask("x", json!({"model": "large"})).await.unwrap().json();
    assert_eq!(named["model"], "large");
    assert_eq!(world_.daemon.zoo().unwrap().status().answered, 60, "a named model was not chosen");
    let names = world_.get("/v1/models").await.unwrap().json().to_string();
    assert!(names.contains("large") && names.contains("auto"), "{names}");
    world_.stop().await.unwrap();

    let again = world(folder.path()).await;
    let status = again.daemon.zoo().unwrap().status();
    assert_eq!((status.answered, status.rated), (60, 60), "read from zoo.json beside the ledger");
    let mut later = Vec::new();
    for _ in 0..10 {
        later.push(ask(&again, |model| model == "large").await);
    }
    assert!(large(&later) >= 5, "{later:?}");
    again.stop().await.unwrap();
}

/// The power of the settings is a model of energy; a meter is one that is read. Either turns seconds into joules.
#[tokio::test]
async fn the_cost_is_joules_where_energy_is_known() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel::new(TinyArchitecture::Llama).write(&folder.path().join("tiny.gguf")).unwrap();
    TinyModel::new(TinyArchitecture::Qwen3).write(&folder.path().join("large.gguf")).unwrap();
    let settings = format!("{ZOO}[energy]\nlocal_power_w = 10000.0\n");
    let world = World::start(folder.path(), &settings).await.unwrap();
    for _ in 0..3 {
        ask(&world, |_| true).await;
    }
    let zoo = world.get("/v1/status").await.unwrap().json()["zoo"].clone();
    assert_eq!(zoo["cost_unit"], "J");
    let cost_j = zoo["models"][0]["mean_cost"].as_f64().unwrap();
    // An answer of a tenth of a millisecond or more is 1 J at 10 kW; the same answer does not take a second.
    assert!(cost_j > 1.0, "{zoo}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_zoo_that_cannot_be_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |keys: &str| {
        let text = format!("[model]\npath = \"tiny.gguf\"\n{keys}\n");
        tether::testing::settings(folder.path(), &text).unwrap_err().to_string()
    };
    assert!(refused("zoo_alpha = 1.0").contains("model.zoo_alpha"));
    assert!(refused("zoo = [\"./tiny.gguf\", \"./tiny.gguf\"]").contains("model.zoo"));
    assert!(refused("zoo = [\"a\", \"b\", \"c\", \"d\"]").contains("model.zoo"));
    assert!(
        tether::testing::settings(folder.path(), "[model]\npath = \"tiny.gguf\"\nzoo = [\"a\", \"b\", \"c\"]\n")
            .is_ok()
    );
}
