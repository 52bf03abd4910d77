//! `make bench-turn`: what the daemon adds to its engine, and how fast it starts, lets go, and idles. The bare engine
//! and the daemon alternate in one run on the same file.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether::client::Client;
use tether_models::{ChatMessage, Engine, LoadOptions, OnContextFull, Sampler, SamplingOptions};
use tether_protocol::api::Status;
use tether_tests::bench::{Good, median, row};
use tether_tests::routed;
use tether_tests::system::{Daemon, Gateway, folder};

const MODEL: &str = "smollm2-135m-instruct";
const QUESTION: &str = "Tell me a long story about a robot that learns to cook in a small kitchen by the sea.";
const ANSWER_TOKENS: usize = 96;
/// Pairs of (bare engine, daemon), the one first and the other first by turns. The ratio is taken within a pair, seconds
/// apart, so that what else the machine does weighs on both; an odd number has a middle.
const PAIRS: usize = 11;
const DIALOGUE: [&str; 5] = [
    "Name three fruits and say what each of them tastes like.",
    "Which of them is red, and which one would you put into a pie?",
    "Say that again, please, in other words.",
    "What else do I need to bake that pie this evening?",
    "Thank you. Repeat the list of fruits, one on each line.",
];
const CANCELS: usize = 50;
const STREAMS: usize = 200;
/// The promise is "within one chunk (16 tokens)". The engine's own chunks are longer by now (`PREFILL_CHUNK_TOKENS`), and a
/// cancelled one ends within a layer; the bar stays at 16 tokens' time.
const CHUNK_TOKENS: f64 = 16.0;

const SCRIPTED_ZOO: &str = r#"
[[zoo]]
name = "scripted"
kind = "scripted"
concurrency = 200
queue = 200
script = { answer = "one two three four five six seven eight nine ten", first_token_ms = 20, token_ms = 5 }
"#;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = folder()?;
    // One part alone, for who is interested in it.
    if std::env::args().nth(1).as_deref() == Some("routed") {
        return routed::measure(folder.path()).await;
    }
    starts(folder.path()).await?;
    // The bare engine does not guess ahead either.
    let settings = format!("[model]\nname = \"{MODEL}\"\nspeculation = false\n");
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let rates = token_rates(&daemon).await?;
    lets_go_in_decoding(&daemon.client(), rates.token_ms).await?;
    lets_go_in_prefill(&daemon.client(), rates.prefill_token_ms * CHUNK_TOKENS).await?;
    idles(&daemon).await?;
    drop(daemon);
    dialogues(folder.path()).await?;
    streams(folder.path()).await?;
    routed::measure(folder.path()).await
}

async fn starts(folder: &Path) -> Result<()> {
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let mut daemon = Daemon::start(folder, &format!("[model]\nname = \"{MODEL}\"\n")).await?;
        seconds.push(daemon.ready_after.as_secs_f64());
        daemon.process.stop(Duration::from_secs(10))?;
    }
    let how = "median of 5: process start until /readyz, file in the page cache";
    row("start_to_ready", median(&mut seconds), Good::AtMost, 1.0, "s", how);
    Ok(())
}

struct Rates {
    token_ms: f64,
    prefill_token_ms: f64,
}

/// Decoding rate of the daemon's stream over the bare engine's, same prompt, same tokens, alternating.
async fn token_rates(daemon: &Daemon) -> Result<Rates> {
    let client = daemon.client();
    let status: Status = client.get("/v1/status").await?;
    let path = status.model.context("the daemon has no local model")?.path;
    let engine = tokio::task::spawn_blocking(move || Engine::load(Path::new(&path), &LoadOptions::default())).await??;
    let engine = Arc::new(engine);
    let (mut bare, mut served, mut ratios, mut prefill) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let engine = Arc::clone(&engine);
        let bare_side = async move { tokio::task::spawn_blocking(move || bare_engine(&engine)).await? };
        let ((rate, prefill_ms), daemon_rate) = if pair % 2 == 0 {
            let first = bare_side.await?;
            (first, daemon_rate(&client).await?)
        } else {
            let first = daemon_rate(&client).await?;
            (bare_side.await?, first)
        };
        // The first pair warms both sides up.
        if pair > 0 {
            bare.push(rate);
            served.push(daemon_rate);
            ratios.push(daemon_rate / rate);
            prefill.push(prefill_ms);
        }
    }
    let (bare, served, ratio) = (median(&mut bare), median(&mut served), median(&mut ratios));
    let how = format!(
        "median of {PAIRS} pairs, order by turns; half of them within {:.3} to {:.3}; decode {served:.1} tokens/s \
         through the socket, {bare:.1} bare; nothing guessed ahead",
        ratios[PAIRS / 4],
        ratios[PAIRS - 1 - PAIRS / 4]
    );
    row("token_rate_daemon_over_engine", ratio, Good::AtLeast, 0.95, "ratio", &how);
    Ok(Rates { token_ms: 1e3 / bare, prefill_token_ms: median(&mut prefill) })
}

/// Greedy decoding with nothing around it: tokens/s after the first token, and prefill's ms per prompt token.
fn bare_engine(engine: &Engine) -> Result<(f64, f64)> {
    let messages = [ChatMessage { role: "user".into(), content: QUESTION.into() }];
    let prompt = engine.prepare(&messages, OnContextFull::Error, ANSWER_TOKENS)?.tokens;
    let mut cache = engine.new_cache()?;
    let begun = Instant::now();
    let mut logits = Vec::new();
    for chunk in prompt.chunks(CHUNK_TOKENS as usize) {
        logits = engine.prefill(&mut cache, chunk)?;
    }
    let prefill_ms = begun.elapsed().as_secs_f64() * 1e3 / prompt.len() as f64;
    let begun = Instant::now();
    // The crate's own greedy sampler: it is optimised in every profile, a loop here would not be.
    let mut sampler = Sampler::new(&SamplingOptions::default())?;
    for _ in 1..ANSWER_TOKENS {
        let best = sampler.sample(&mut logits, &[])?;
        logits = engine.step(&mut cache, best)?;
    }
    Ok(((ANSWER_TOKENS - 1) as f64 / begun.elapsed().as_secs_f64(), prefill_ms))
}

fn question(tokens: usize, text: &str) -> Value {
    json!({
        "messages": [{"role": "user", "content": text}], "stream": true, "max_tokens": tokens, "temperature": 0,
        "stream_options": {"include_usage": true}, "tether": {"route": "local"},
    })
}

/// Tokens/s after the first token, as a client sees them.
async fn daemon_rate(client: &Client) -> Result<f64> {
    let mut stream = client.ask_streamed(&question(ANSWER_TOKENS, QUESTION)).await?;
    let (mut first, mut last, mut tokens) = (None, Instant::now(), 0);
    while let Some(chunk) = stream.next().await? {
        if chunk.choices.iter().any(|choice| choice.delta.content.as_deref().is_some_and(|text| !text.is_empty())) {
            last = Instant::now();
            first.get_or_insert(last);
        }
        tokens = chunk.usage.flatten().map_or(tokens, |usage| usage.completion_tokens);
    }
    let first = first.context("the answer was empty")?;
    ensure!(tokens > 16, "the answer had {tokens} tokens, too few to time");
    Ok(f64::from(tokens - 1) / (last - first).as_secs_f64())
}

/// From dropping the connection until the model serves nobody.
async fn freed_after(client: &Client) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let status: Status = client.get("/v1/status").await?;
        if status.model.context("the daemon has no local model")?.load.queue == 0 {
            return Ok(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
}

async fn lets_go_in_decoding(client: &Client, token_ms: f64) -> Result<()> {
    let mut freed = Vec::new();
    for _ in 0..CANCELS {
        let mut stream = client.ask_streamed(&question(512, QUESTION)).await?;
        for _ in 0..6 {
            stream.next().await?.context("the answer ended too soon")?;
        }
        drop(stream);
        freed.push(freed_after(client).await?);
    }
    let how = format!(
        "median of {CANCELS}: connection dropped until /v1/status shows an idle model; one token takes {token_ms:.1} ms"
    );
    row("freed_after_disconnect_decoding", median(&mut freed) / token_ms, Good::AtMost, 1.0, "tokens", &how);
    Ok(())
}

async fn lets_go_in_prefill(client: &Client, chunk_ms: f64) -> Result<()> {
    let mut freed = Vec::new();
    for turn in 0..CANCELS {
        // A prompt of its own each time: a cached prefix would be over at once.
        let words: Vec<String> = (0..700).map(|word| format!("w{}", (word * 31 + turn * 7919) % 4099)).collect();
        let request = question(16, &words.join(" "));
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.ask_streamed(&request).await.map(|_| ()) }
        });
        loop {
            let status: Status = client.get("/v1/status").await?;
            if status.model.context("the daemon has no local model")?.load.queue > 0 {
                break;
            }
            ensure!(!asking.is_finished(), "the long prompt was not prefilled");
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        ensure!(!asking.is_finished(), "the prompt was too short to be cancelled in prefill");
        asking.abort();
        freed.push(freed_after(client).await?);
    }
    let how = format!(
        "median of {CANCELS}: connection dropped in prefill until the model is idle; 16 tokens of a prompt take {chunk_ms:.1} ms"
    );
    row("freed_after_disconnect_prefill", median(&mut freed) / chunk_ms, Good::AtMost, 1.0, "chunks", &how);
    Ok(())
}

/// Five turns of one session each, the same in a daemon that keeps what it computed and in one that does not.
async fn dialogues(folder: &Path) -> Result<()> {
    let (warm, cold) = (folder.join("warm"), folder.join("cold"));
    std::fs::create_dir(&warm)?;
    std::fs::create_dir(&cold)?;
    let keeping = Daemon::start(&warm, &format!("[model]\nname = \"{MODEL}\"\n")).await?;
    let forgetting = Daemon::start(&cold, &format!("[model]\nname = \"{MODEL}\"\ncache_bytes = 0\n")).await?;
    let (mut ratios, mut kept_ms, mut cold_ms) = (Vec::new(), Vec::new(), Vec::new());
    for dialogue in 0..5 {
        let session = format!("d{dialogue}");
        for (turn, text) in DIALOGUE.into_iter().enumerate() {
            let (answer, kept) = said(&keeping.client(), &session, text).await?;
            let (same, forgot) = said(&forgetting.client(), &session, text).await?;
            ensure!(answer == same, "turn {turn}: with a cache {answer:?}, without {same:?}");
            if turn > 0 {
                ratios.push(kept / forgot);
                kept_ms.push(kept);
                cold_ms.push(forgot);
            }
        }
    }
    let how = format!(
        "median over turns 2-5 of 5 dialogues, answers equal; first token after {:.1} ms with the cache, {:.1} without",
        median(&mut kept_ms),
        median(&mut cold_ms)
    );
    row("first_token_later_turns_over_cold", median(&mut ratios), Good::AtMost, 0.3, "ratio", &how);
    Ok(())
}

/// The answer's text, and the ms from the request's arrival to its first token.
async fn said(client: &Client, session: &str, text: &str) -> Result<(String, f64)> {
    let mut request = question(60, text);
    request["tether"]["session"] = session.into();
    let mut stream = client.ask_streamed(&request).await?;
    let (mut answer, mut first_ms) = (String::new(), None);
    while let Some(chunk) = stream.next().await? {
        answer.extend(chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref()));
        first_ms = chunk.tether.and_then(|tether| tether.costs).and_then(|costs| costs.first_token_ms).or(first_ms);
    }
    Ok((answer, first_ms.context("the answer tells no time to its first token")?))
}

/// Processor time of the idle daemon over ten seconds.
async fn idles(daemon: &Daemon) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = |pid| -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        // utime and stime are fields 14 and 15 of proc(5), which count from 1; two stand before the ')'. 100 Hz.
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    };
    let before = used(daemon.process.pid())?;
    let span = Duration::from_secs(10);
    tokio::time::sleep(span).await;
    let percent = (used(daemon.process.pid())? - before) / span.as_secs_f64() * 100.0;
    row("idle_cpu", percent, Good::AtMost, 1.0, "%", "utime + stime over 10 s, 2 s after the last answer, of one core");
    Ok(())
}

async fn streams(folder: &Path) -> Result<()> {
    let gateway = Gateway::start(folder, SCRIPTED_ZOO)?;
    let settings = format!("[model]\nname = \"none\"\n[policy]\nname = \"always-cloud\"\n{}", gateway.cloud_section());
    let daemon = Daemon::start(folder, &settings).await?;
    let begun = Instant::now();
    let answers = (0..STREAMS).map(|_| {
        let client = daemon.client();
        tokio::spawn(async move {
            let request = json!({"messages": [{"role": "user", "content": "count"}], "stream": true});
            let mut stream = client.ask_streamed(&request).await?;
            let mut text = String::new();
            while let Some(chunk) = stream.next().await? {
                text.extend(chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref()));
            }
            ensure!(text == "one two three four five six seven eight nine ten", "the answer was {text:?}");
            Ok(())
        })
    });
    let mut errors = 0;
    for answer in answers.collect::<Vec<_>>() {
        if let Err(error) = answer.await? {
            errors += 1;
            eprintln!("a stream failed: {error}");
        }
    }
    let how = format!(
        "{STREAMS} at once, socket to scripted backend over QUIC, {:.2} s in all",
        begun.elapsed().as_secs_f64()
    );
    row("concurrent_stream_errors", f64::from(errors), Good::AtMost, 0.0, "errors", &how);
    Ok(())
}
