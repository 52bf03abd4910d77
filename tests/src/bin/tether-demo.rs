//! `make demo`: a kitchen, three cameras, two sensors, a small model on board and a gateway. Five turns; the gateway
//! goes away before the last two. Everything runs for real: the answers are the model's own words.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tether::client::Client;
use tether_protocol::Route;
use tether_protocol::api::TetherAnswer;
use tether_protocol::record::TaskSource;
use tether_tests::kitchen;
use tether_tests::system::{Daemon, Gateway, folder};

const MODEL: &str = "smollm2-135m-instruct";

/// The gateway's zoo: the same small model, without eyes, so that it measures the pictures and says so.
const ZOO: &str = r#"
[[zoo]]
name = "smollm2-135m-measured"
kind = "candle"
model = "smollm2-135m-instruct"
vision = "measured"
usd_per_million_prompt_tokens = 0.02
usd_per_million_completion_tokens = 0.04
"#;

/// Whether the caller names the task or leaves it to the classifier, the question, and where the answer must come from.
/// The gateway is stopped before turn 4.
const TURNS: [(Option<&str>, &str, Route); 5] = [
    (None, "Good morning! What should I check before I start cooking?", Route::Local),
    (None, "Look at the front camera: what colours do you see on the counter?", Route::Cloud),
    (Some("Assistive System"), "Is the stove on? Check the overhead camera.", Route::Cloud),
    (None, "Look at the front camera again and suggest a warm drink.", Route::Local),
    (None, "Write one short message to Ada: breakfast is ready.", Route::Local),
];
/// The turn that the gateway does not live to see.
const LAST_TURN_WITH_GATEWAY: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = folder()?;
    println!("tether demo: gateway and daemon in {}, model {MODEL}", folder.path().display());
    let mut gateway = Gateway::start(folder.path(), ZOO)?;
    // The documented rule: its choices can be foreseen, so that this can check where each turn was answered.
    let settings = format!("[model]\nname = \"{MODEL}\"\n[policy]\nname = \"rule\"\n{}", gateway.cloud_section());
    let daemon = Daemon::start(folder.path(), &settings).await?;
    println!("ready after {:.2} s on {}\n", daemon.ready_after.as_secs_f64(), daemon.socket.display());

    let client = daemon.client();
    for (number, (task, question, expected)) in (1..).zip(TURNS) {
        if number == LAST_TURN_WITH_GATEWAY + 1 {
            println!("--- the gateway is killed in the middle of the dialogue ---\n");
            gateway.process.kill()?;
        }
        push_views(&client, number as u32).await?;
        let answer = ask(&client, number, task, question).await?;
        ensure!(answer.route == expected, "turn {number} was answered by {}, expected {expected}", answer.route);
        let fell_back = number == LAST_TURN_WITH_GATEWAY + 1;
        let told = answer.fallback.is_some() || answer.reason == "link_down";
        ensure!(!fell_back || told, "turn {number} does not tell that the cloud was lost");
    }
    println!("Five turns answered. What left the device, and why, is in the ledger: {} turns.", ledger(&client).await?);
    show_files(folder.path());
    Ok(())
}

/// The robot's view of the kitchen at this turn, pushed as a camera driver would.
async fn push_views(client: &Client, turn: u32) -> Result<()> {
    for camera in kitchen::CAMERAS {
        client.put(&format!("/v1/cameras/{camera}"), kitchen::frame(camera, turn).into()).await?;
    }
    let room = json!({"temperature_c": 21.5, "stove_w": if turn % 2 == 1 { 1800 } else { 0 }});
    client.put("/v1/sensors/room", room.to_string().into()).await?;
    client.put("/v1/sensors/gripper", json!({"state": "open", "force_n": 0.0}).to_string().into()).await?;
    Ok(())
}

/// One turn, streamed to the terminal as it comes.
async fn ask(client: &Client, number: usize, task: Option<&str>, question: &str) -> Result<TetherAnswer> {
    println!("[{number}] > {question}");
    print!("    < ");
    let mut request = json!({
        "messages": [{"role": "user", "content": question}],
        "stream": true,
        "max_tokens": 48,
        "temperature": 0.3,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "seed": 7,
        "stream_options": {"include_usage": true},
        "tether": {"session": "kitchen"},
    });
    if let Some(task) = task {
        request["tether"]["task"] = task.into();
    }
    let begun = Instant::now();
    let mut stream = client.ask_streamed(&request).await?;
    let (mut first, mut answer, mut model, mut tokens) = (None, None, String::new(), 0);
    while let Some(chunk) = stream.next().await? {
        for text in chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref()) {
            if !text.is_empty() {
                first.get_or_insert_with(|| begun.elapsed());
            }
            print!("{}", text.replace('\n', "\n      "));
            std::io::stdout().flush()?;
        }
        model = chunk.model;
        answer = chunk.tether.or(answer);
        tokens = chunk.usage.flatten().map_or(tokens, |usage| usage.completion_tokens);
    }
    let (total, first) = (begun.elapsed(), first.context("the answer was empty")?);
    let answer = answer.context("the answer does not say where it was made")?;
    println!("\n{}\n", summary(&answer, &model, tokens, first, total));
    Ok(answer)
}

fn summary(answer: &TetherAnswer, model: &str, tokens: u32, first: Duration, total: Duration) -> String {
    let views: Vec<&str> = answer.views.iter().map(|view| view.as_str()).collect();
    let views = if views.is_empty() { "none".to_owned() } else { views.join(", ") };
    let rate = f64::from(tokens.saturating_sub(1)) / (total - first).as_secs_f64().max(1e-9);
    let costs = answer.costs.as_ref();
    let shown = |value: Option<u64>| value.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    let (up, down) = (shown(costs.and_then(|c| c.uplink_bytes)), shown(costs.and_then(|c| c.downlink_bytes)));
    let usd = costs.and_then(|c| c.usd).map_or("unknown".to_owned(), |usd| format!("{usd:.8}"));
    let task = answer.task.as_deref().unwrap_or("unknown");
    let by = answer.task_source.map_or("the text does not tell", |source| match source {
        TaskSource::Request => "the caller says so",
        TaskSource::Text => "from the text",
    });
    let mut lines = vec![
        format!("    task {task} ({by})"),
        format!("    route {} ({model}), views sent: {views}", answer.route),
        format!("    reason {}: {}", answer.reason, answer.reason_detail),
        format!(
            "    {tokens} tokens, {rate:.1} tokens/s, first after {:.2} s, {:.2} s in all; {up} bytes up, {down} down, {usd} USD",
            first.as_secs_f64(),
            total.as_secs_f64()
        ),
    ];
    if let Some(fallback) = &answer.fallback {
        lines.push(format!("    fallback: {fallback}"));
    }
    lines.join("\n")
}

async fn ledger(client: &Client) -> Result<usize> {
    let turns: tether_protocol::api::TurnList = client.get("/v1/turns").await?;
    ensure!(turns.turns.len() == TURNS.len(), "{} turns in the ledger", turns.turns.len());
    Ok(turns.turns.len())
}

fn show_files(folder: &Path) {
    println!("Logs were in {} (removed now). Try it yourself: `make run`, then `tether chat`.", folder.display());
}
