//! Routing by ratings as people have it: a device, a gateway, ratings over QUIC, and `kill -9`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use tether::client::Client;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::api::{ChatCompletion, Feedback, GatewayRating};
use tether_tests::system::{Daemon, GOOD_OR_CHEAP, Gateway, folder};

/// Asks once; the answer and the turn's id.
async fn ask(client: &Client) -> Result<(String, String)> {
    let request = json!({"messages": [{"role": "user", "content": "is it red?"}], "tether": {"route": "cloud"}});
    let answer: ChatCompletion = client.ask(&request).await?;
    Ok((answer.choices[0].message.content.clone(), answer.tether.turn_id.to_string()))
}

async fn rate(client: &Client, turn_id: &str, rating: f64) -> Result<Option<GatewayRating>> {
    let rated: Feedback = client.post("/v1/feedback", &json!({"turn_id": turn_id, "rating": rating})).await?;
    Ok(rated.gateway)
}

/// The `routing` part of the gateway's status.
fn routing(gateway: &Gateway) -> Result<Value> {
    let status: Value = serde_json::from_str(&gateway.status()?)?;
    Ok(status["routing"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn ratings_teach_the_gateway_once_and_what_it_learned_survives_kill_9() -> Result<()> {
    let folder = folder()?;
    let model = folder.path().join("tiny.gguf");
    TinyModel::new(TinyArchitecture::Llama).write(&model)?;
    let mut gateway = Gateway::start(folder.path(), GOOD_OR_CHEAP)?;
    let settings = format!(
        "[model]\npath = \"{}\"\n[policy]\nname = \"always-cloud\"\n{}",
        model.display(),
        gateway.cloud_section()
    );
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let client = daemon.client();
    let mut turns = Vec::new();
    for _ in 0..60 {
        let (text, turn_id) = ask(&client).await?;
        let rating = f64::from(u8::from(text == "good"));
        assert_eq!(rate(&client, &turn_id, rating).await?, Some(GatewayRating::Recorded));
        turns.push((text, turn_id));
    }
    let good = turns[40..].iter().filter(|(text, _)| text == "good").count();
    ensure!(good >= 15, "the model that satisfies should answer by now: {good} of the last 20");
    // Again: taken, and nothing more is learned.
    assert_eq!(rate(&client, &turns[3].1, 1.0).await?, Some(GatewayRating::Recorded));
    let before = routing(&gateway)?;
    let tenant = &before["tenants"][0];
    assert_eq!((&tenant["name"], &tenant["rated"], &tenant["answered"]), (&json!("robot"), &json!(60), &json!(60)));
    ensure!(gateway.metrics()?.contains("tether_gateway_mess_rated{tenant=\"robot\"} 60"), "the metrics tell it too");

    let (_, unrated) = ask(&client).await?;
    gateway.process.kill()?;
    let gateway = gateway.restart(GOOD_OR_CHEAP)?;
    let after = routing(&gateway)?;
    assert_eq!(after["tenants"][0]["rated"], json!(60));
    assert_eq!(after["tenants"][0]["answered"], json!(61));
    let queue = |status: &Value| status["tenants"][0]["queue"].as_f64().context("a queue");
    ensure!((queue(&before)? - queue(&after)?).abs() < 1e-9, "{before} {after}");
    // Answered before the kill, rated after it. The daemon needs a moment to see that its connection is dead.
    let mut reply = rate(&client, &unrated, 1.0).await?;
    for _ in 0..100 {
        if reply != Some(GatewayRating::Unreachable) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        reply = rate(&client, &unrated, 1.0).await?;
    }
    assert_eq!(reply, Some(GatewayRating::Recorded));
    assert_eq!(routing(&gateway)?["tenants"][0]["rated"], json!(61));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_set_aside_with_a_message_and_the_gateway_serves() -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::start(folder.path(), GOOD_OR_CHEAP)?;
    let state = folder.path().join("gateway/mess-state");
    let snapshot = || -> Result<std::path::PathBuf> {
        let mut names = std::fs::read_dir(&state)?.filter_map(|entry| Some(entry.ok()?.path()));
        let ours = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
        names.find(ours).context("a snapshot")
    };
    let path = snapshot()?;
    let mut bytes = std::fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes)?;
    let gateway = gateway.restart(GOOD_OR_CHEAP)?;
    ensure!(gateway.process.log().contains("is damaged and was set aside"), "{}", gateway.process.log());
    ensure!(path.with_extension("json.damaged").exists(), "the damaged file is kept");
    assert_eq!(routing(&gateway)?["tenant_count"], json!(0));
    Ok(())
}
