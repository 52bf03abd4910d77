//! What routing adds to turns: two gateways with the same scripted backends, one of which learns which to ask.

use crate::bench::{Good, median, row};
use crate::system::{Daemon, Gateway};
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::Path;
use std::time::Instant;
use tether::client::Client;
use tether_protocol::api::{ChatCompletion, Feedback, GatewayRating};

const STREAMS: usize = 200;
/// Turns of each side, one at a time and by turns.
const TURNS: usize = 300;
/// A decision with its encoder may take this long.
const ADDED_MS: f64 = 2.0;
const ANSWER: &str = "one two three four five six seven eight nine ten";

/// A gateway and a device of it.
struct Site {
    daemon: Daemon,
    _gateway: Gateway,
}

impl Site {
    async fn start(folder: &Path, settings: &str) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let gateway = Gateway::start(folder, settings)?;
        let cloud = gateway.cloud_section();
        let settings = format!("[model]\nname = \"none\"\n[policy]\nname = \"always-cloud\"\n{cloud}");
        Ok(Self { daemon: Daemon::start(folder, &settings).await?, _gateway: gateway })
    }

    /// How long a whole turn took, in ms.
    async fn turn(&self, number: usize) -> Result<f64> {
        let text = format!("count to {number}, please, and say which of these numbers is the largest");
        let begun = Instant::now();
        let answer: ChatCompletion =
            self.daemon.client().ask(&json!({"messages": [{"role": "user", "content": text}]})).await?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.choices[0].message.content == ANSWER, "{:?}", answer.choices[0].message.content);
        Ok(ms)
    }

    /// Streams at once; how many failed, and the seconds that all of them took.
    async fn streams(&self, rated: bool) -> Result<(usize, f64)> {
        let begun = Instant::now();
        let all = (0..STREAMS).map(|number| tokio::spawn(stream(self.daemon.client(), number, rated)));
        let mut errors = 0;
        for one in all.collect::<Vec<_>>() {
            if let Err(error) = one.await? {
                errors += 1;
                eprintln!("a stream failed: {error:#}");
            }
        }
        Ok((errors, begun.elapsed().as_secs_f64()))
    }
}

async fn stream(client: Client, number: usize, rated: bool) -> Result<()> {
    let request = json!({"messages": [{"role": "user", "content": format!("count to {number}")}], "stream": true});
    let mut stream = client.ask_streamed(&request).await?;
    let (mut text, mut turn_id) = (String::new(), None);
    while let Some(chunk) = stream.next().await? {
        text.extend(chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref()));
        turn_id = chunk.tether.map(|tether| tether.turn_id).or(turn_id);
    }
    ensure!(text == ANSWER, "the answer was {text:?}");
    if rated {
        let rating = f64::from(u8::from(!number.is_multiple_of(3)));
        let feedback: Feedback = client.post("/v1/feedback", &json!({"turn_id": turn_id, "rating": rating})).await?;
        ensure!(feedback.gateway == Some(GatewayRating::Recorded), "the rating was {:?}", feedback.gateway);
    }
    Ok(())
}

fn zoo(script: &str) -> String {
    let backend = |(name, usd): (&str, u32)| {
        format!(
            "[[zoo]]\nname = \"{name}\"\nkind = \"scripted\"\nconcurrency = 200\nqueue = 200\n\
             usd_per_million_completion_tokens = {usd}.0\nscript = {{ answer = \"{ANSWER}\"{script} }}\n"
        )
    };
    [("small", 1), ("middle", 8), ("large", 60)].map(backend).concat()
}

/// The rows of both.
///
/// # Errors
/// A process that does not start, or an answer that is not the script's.
pub async fn measure(folder: &Path) -> Result<()> {
    let routing = "[routing]\nalpha = 0.85\n";
    let slow = zoo(", first_token_ms = 20, token_ms = 5");
    let plain = Site::start(&folder.join("plain-streams"), &slow).await?;
    let (_, plain_s) = plain.streams(false).await?;
    drop(plain);
    let routed = Site::start(&folder.join("routed-streams"), &format!("{routing}{slow}")).await?;
    let (errors, routed_s) = routed.streams(true).await?;
    drop(routed);
    let how = format!(
        "{STREAMS} at once, socket to three scripted backends under MESS+ with its state on disk, every answer rated; {routed_s:.2} s \
         in all, {plain_s:.2} s without routing and ratings"
    );
    row("routed_stream_errors", errors as f64, Good::AtMost, 0.0, "errors", &how);

    let quick = zoo("");
    let plain = Site::start(&folder.join("plain"), &quick).await?;
    let routed = Site::start(&folder.join("routed"), &format!("{routing}{quick}")).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for number in 0..TURNS + 20 {
        let (plain_ms, routed_ms) = match number % 2 {
            0 => (plain.turn(number).await?, routed.turn(number).await?),
            _ => {
                let routed_ms = routed.turn(number).await?;
                (plain.turn(number).await?, routed_ms)
            }
        };
        // The first ones warm both sides up.
        if number >= 20 {
            without.push(plain_ms);
            with.push(routed_ms);
        }
    }
    let (without, with) = (median(&mut without), median(&mut with));
    let how = format!(
        "medians of {TURNS} whole turns each, one at a time and by turns, scripted backends that answer at once: {with:.2} ms \
         with MESS+, {without:.2} ms without"
    );
    row("routing_added_per_turn", with - without, Good::AtMost, ADDED_MS, "ms", &how);
    Ok(())
}
