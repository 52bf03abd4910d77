//! An answer from the client's side: chunks to words, and the line that says what happened.

use super::output::{DIM, WARN, Words, json, note};
use super::turn::TurnOptions;
use super::units;
use crate::client::Client;
use tether_protocol::Route;
use tether_protocol::api::{ChatChunk, ChatCompletion, ChatRequest, TetherAnswer, UsageBody};
use tether_protocol::record::FinishReason;
use tether_protocol::wire::Vision;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Word by word.
    Streamed,
    /// As text, when it is complete.
    Whole,
    /// As the API's own object.
    Json,
}

/// One turn, from its options to its printed answer. `None`: Ctrl-C stopped it; the connection is dropped with the
/// work, and that cancels the turn in the daemon, also before its first token.
pub(crate) async fn take_turn(
    client: &Client,
    options: &TurnOptions,
    text: &str,
    form: Form,
) -> anyhow::Result<Option<Facts>> {
    let mut words = Words::new();
    let outcome = tokio::select! {
        facts = answer(client, options, text, form, &mut words) => facts.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
    };
    words.end()?;
    outcome
}

async fn answer(
    client: &Client,
    options: &TurnOptions,
    text: &str,
    form: Form,
    words: &mut Words,
) -> anyhow::Result<Facts> {
    let request = options.request(text, form == Form::Streamed)?;
    match form {
        Form::Streamed => streamed(client, &request, words).await,
        Form::Whole | Form::Json => whole(client.ask(&request).await?, form, words),
    }
}

async fn streamed(client: &Client, request: &ChatRequest, words: &mut Words) -> anyhow::Result<Facts> {
    let mut facts = Facts::default();
    let mut stream = client.ask_streamed(request).await?;
    while let Some(chunk) = stream.next().await? {
        words.print(&facts.absorb(chunk).unwrap_or_default())?;
    }
    Ok(facts)
}

fn whole(answer: ChatCompletion, form: Form, words: &mut Words) -> anyhow::Result<Facts> {
    if form == Form::Json {
        json(&answer)?;
    }
    let choice = answer.choices.into_iter().next();
    if let Some(choice) = choice.as_ref().filter(|_| form == Form::Whole) {
        words.print(&choice.message.content)?;
    }
    let finish = choice.map(|choice| choice.finish_reason);
    Ok(Facts { model: answer.model, tether: Some(answer.tether), usage: Some(answer.usage), finish })
}

/// What is known of an answer when it has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub model: String,
    pub tether: Option<TetherAnswer>,
    pub usage: Option<UsageBody>,
    pub finish: Option<FinishReason>,
}

impl Facts {
    /// Takes what a chunk adds, and gives its words.
    fn absorb(&mut self, chunk: ChatChunk) -> Option<String> {
        self.model = chunk.model;
        self.tether = chunk.tether.or(self.tether.take());
        self.usage = chunk.usage.flatten().or(self.usage);
        let choice = chunk.choices.into_iter().next()?;
        self.finish = choice.finish_reason.or(self.finish);
        choice.delta.content
    }

    /// Says on standard error where the answer was made, what left the device, why, and what it cost.
    pub(crate) fn note(&self) {
        let Some(tether) = &self.tether else { return };
        if let Some(why) = &tether.fallback {
            note(format_args!("{DIM}fell back to {}: {why}{DIM:#}", tether.route));
        }
        note(format_args!("{DIM}{}{DIM:#}", self.line(tether)));
        if let Some(why) = tether.costs.as_ref().and_then(|costs| costs.not_recorded.as_ref()) {
            note(format_args!("{WARN}not recorded, a restart forgets it:{WARN:#} {why}"));
        }
    }

    fn line(&self, tether: &TetherAnswer) -> String {
        let views: Vec<&str> = tether.views.iter().map(|view| view.as_str()).collect();
        let place = match (tether.route, views.is_empty()) {
            (Route::Local, _) => "local".to_owned(),
            (Route::Cloud, true) => "cloud, no views".to_owned(),
            (Route::Cloud, false) => format!("cloud with {}", views.join(", ")),
        };
        // Words about pixels are not sight; whoever reads the answer should know.
        let measured = tether.vision == Some(Vision::Measured);
        let place = if measured { place + ", measured rather than seen" } else { place };
        let mut parts = vec![format!("[{place}]"), self.model.clone(), reason(tether)];
        parts.extend(self.tokens(tether));
        parts.extend(costs(tether));
        if self.finish == Some(FinishReason::Length) {
            parts.push("cut at the token limit".into());
        }
        parts.push(format!("turn {}", tether.turn_id));
        parts.join(" · ")
    }

    fn tokens(&self, tether: &TetherAnswer) -> Option<String> {
        let count = self.usage?.completion_tokens;
        let counted = format!("{count} tokens");
        let rate = tether.costs.as_ref().and_then(|costs| {
            let decoding_ms = costs.latency_ms - costs.first_token_ms?;
            (count > 1 && decoding_ms > 0.0).then(|| f64::from(count - 1) / decoding_ms * 1e3)
        });
        Some(rate.map_or(counted.clone(), |rate| format!("{counted}, {rate:.1} tokens/s")))
    }
}

fn reason(tether: &TetherAnswer) -> String {
    match tether.reason_detail.is_empty() {
        true => tether.reason.clone(),
        false => format!("{}: {}", tether.reason, tether.reason_detail),
    }
}

/// Unknown stays unsaid, except bytes of a cloud turn: what left the device is always said.
fn costs(tether: &TetherAnswer) -> Vec<String> {
    let Some(costs) = &tether.costs else { return Vec::new() };
    let mut parts = vec![units::duration_ms(costs.latency_ms)];
    let amount = |bytes: Option<u64>| bytes.map_or("unknown".into(), units::bytes);
    if tether.route == Route::Cloud {
        parts.push(format!("up {}, down {}", amount(costs.uplink_bytes), amount(costs.downlink_bytes)));
    }
    parts.extend(costs.usd.map(units::usd));
    parts.extend(costs.joules.map(|joules| format!("{joules:.2} J ({})", costs.joules_source)));
    if costs.dropped_messages > 0 {
        parts.push(format!("{} old messages left out", costs.dropped_messages));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(route: &str, views: &[&str]) -> Facts {
        let tether = json!({"turn_id": "t1", "route": route, "views": views, "reason": "views_needed",
            "reason_detail": "asks what it sees", "policy": "rule", "propensity": 1.0, "decision_us": 40,
            "latency_ms": 2000.0, "first_token_ms": 1000.0, "usd": 0.000012, "joules": 3.25,
            "joules_source": "modelled", "uplink_bytes": 41234, "downlink_bytes": null,
            "dropped_messages": 2, "dropped_images": 0, "budget_remaining": {}});
        let tether = Some(serde_json::from_value(tether).unwrap());
        let usage =
            Some(UsageBody { prompt_tokens: 9, completion_tokens: 21, total_tokens: 30, ..UsageBody::default() });
        Facts { model: "m".into(), tether, usage, finish: Some(FinishReason::Length) }
    }

    #[test]
    fn the_line_says_where_why_and_what_it_cost() {
        let cloud = facts("cloud", &["front"]);
        assert_eq!(
            cloud.line(cloud.tether.as_ref().unwrap()),
            "[cloud with front] · m · views_needed: asks what it sees · 21 tokens, 20.0 tokens/s · 2.00 s · \
             up 41.2 kB, down unknown · $0.000012 · 3.25 J (modelled) · 2 old messages left out · \
             cut at the token limit · turn t1"
        );
        let mut measured = cloud.tether.clone().unwrap();
        measured.vision = Some(Vision::Measured);
        let line = cloud.line(&measured);
        assert!(line.starts_with("[cloud with front, measured rather than seen] · m"), "{line}");
        let local = facts("local", &[]);
        let line = local.line(local.tether.as_ref().unwrap());
        assert!(line.starts_with("[local] · m") && !line.contains("up "), "{line}");
    }
}
