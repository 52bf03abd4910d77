//! `tether explain TURN`: a record in plain words.

use super::output;
use super::turns::local_time;
use super::{Global, status, units};
use crate::export::Source;
use anyhow::Context;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tether_protocol::record::{FinishReason, Outcome, SentPicture, TaskSource, Unaffordable};
use tether_protocol::{Action, ActionSpace, Cost, Reading, Reason, Route, TurnId, TurnRecord};

/// Actions that are written out; of more, the rest is counted.
const SHOWN_ACTIONS: usize = 12;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tether explain 0199a1b2-...\n  tether explain $(tether turns -n 1 --json | jq -r .turn_id)\n  tether explain --ledger robot7.db 0199a1b2-...    of a replay, or of another robot; no daemon is asked"
)]
pub(crate) struct ExplainArgs {
    /// The turn's id, as `ask` and `turns` print it
    turn: TurnId,
    /// Read this ledger's file instead of asking the daemon
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

pub(crate) async fn run(args: ExplainArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let ExplainArgs { turn, ledger } = args;
    let record: TurnRecord = match ledger {
        None => global.client()?.get(&format!("/v1/turns/{turn}")).await?,
        Some(path) => {
            let found = Source::open(&path, i64::MIN)?.turn(&turn)?;
            found.with_context(|| format!("the ledger {} has no turn {turn}", path.display()))?
        }
    };
    if global.json {
        output::json(&record)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    for paragraph in explain(&record) {
        writeln!(out, "{paragraph}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn explain(record: &TurnRecord) -> Vec<String> {
    let mut words = vec![asked(record), known(record)];
    if let Outcome::Refused { unaffordable, possible_unix_ms } = &record.outcome {
        words.extend(refused(record, unaffordable, *possible_unix_ms));
        return words;
    }
    words.push(permitted(record));
    words.extend(budgets(record));
    words.extend([chosen(record), happened(record)]);
    words.extend(uploaded(record));
    words.extend(spent(record));
    words.push(match record.rating {
        Some(rating) => format!("It was rated {rating} (0 is useless, 1 is right)."),
        None => "Nobody has rated it.".into(),
    });
    words
}

/// How its pictures travelled, and how long that took.
fn uploaded(record: &TurnRecord) -> Option<String> {
    let upload = record.upload.as_ref()?;
    let picture = |sent: &SentPicture| {
        let (bytes, estimated) = (units::bytes(sent.bytes), units::bytes(sent.estimated_bytes));
        let SentPicture { view, max_side_px, jpeg_quality, .. } = sent;
        format!("{view} at up to {max_side_px} px and quality {jpeg_quality}, {bytes} ({estimated} expected)")
    };
    let pictures: Vec<String> = upload.pictures.iter().map(picture).collect();
    let pictures = if pictures.is_empty() { String::new() } else { format!(" with {}", pictures.join("; ")) };
    let took =
        upload.measured_ms.map_or("was not seen to its end".into(), |ms| format!("took {}", units::duration_ms(ms)));
    let expected = match (upload.predicted_ms, upload.predicted_low_ms, upload.predicted_high_ms) {
        (Some(ms), Some(low_ms), Some(high_ms)) => {
            let [ms, low, high] = [ms, low_ms, high_ms].map(units::duration_ms);
            format!(", predicted {ms} ({low} to {high})")
        }
        _ => ", which nobody could predict: the link's rate was not known".into(),
    };
    Some(format!("The upload{pictures} {took}{expected}."))
}

fn asked(record: &TurnRecord) -> String {
    let session = record.session.as_ref().map(|session| format!(", in session {session}")).unwrap_or_default();
    let by = match record.task_source {
        Some(TaskSource::Text) => ", judging by its text",
        Some(TaskSource::Request) | None => "",
    };
    let task = record.task.as_ref().map(|task| format!(" Its task was {task}{by}.")).unwrap_or_default();
    let private = if record.local_only { " Nothing of it was allowed to leave this device." } else { "" };
    format!("Turn {} came from {}{session}.{task}{private}", record.turn_id, record.client)
}

fn known(record: &TurnRecord) -> String {
    let context = &record.context;
    let battery = match &context.battery {
        Reading::Known { value, .. } if value.on_ac => format!("{:.0} %, on mains", value.percent),
        Reading::Known { value, .. } => format!("{:.0} %", value.percent),
        Reading::Unknown { unknown } => format!("unknown ({unknown})"),
    };
    let load = match &context.load {
        Reading::Known { value, .. } => format!("{} waiting", value.queue),
        Reading::Unknown { unknown } => format!("unknown ({unknown})"),
    };
    let view = |view: &tether_protocol::context::ViewContext| match &view.encoded_bytes {
        Reading::Known { value, age_ms, .. } => {
            format!("{} ({}, {} old)", view.name, units::bytes(*value), units::duration_ms(*age_ms as f64))
        }
        Reading::Unknown { unknown } => format!("{} ({unknown})", view.name),
    };
    let views: Vec<String> = context.views.iter().map(view).collect();
    let views = if views.is_empty() { "none".into() } else { views.join(", ") };
    let link = status::link_line(&context.link);
    format!("Known then: link {link}; battery {battery}; local model {load}; views: {views}.")
}

fn space(record: &TurnRecord) -> Option<ActionSpace> {
    ActionSpace::new(record.context.views.iter().map(|view| view.name.clone()).collect()).ok()
}

fn name(space: Option<&ActionSpace>, action: Action) -> String {
    let views = space.filter(|space| space.actions().any(|known| known == action)).map(|space| {
        space.names(space.sent(action)).iter().map(|view| view.to_string()).collect::<Vec<_>>().join(" + ")
    });
    match (action.route(), views.as_deref()) {
        (Route::Local, _) => "local".into(),
        (Route::Cloud, None | Some("")) => "cloud with text alone".into(),
        (Route::Cloud, Some(views)) => format!("cloud with {views}"),
    }
}

fn permitted(record: &TurnRecord) -> String {
    let space = space(record);
    let action = |(at, action): (usize, &Action)| {
        let cost = record.predicted_costs.get(at).map(|cost| format!(" ({})", cost_text(cost))).unwrap_or_default();
        let value = record.values.as_ref().and_then(|values| values.get(at));
        let value = value.map(|value| format!(", value {value:.3}")).unwrap_or_default();
        let chance = record.probabilities.as_ref().filter(|_| record.propensity < 1.0).and_then(|told| told.get(at));
        let chance = chance.map(|chance| format!(", probability {chance:.3}")).unwrap_or_default();
        format!("{}{cost}{value}{chance}", name(space.as_ref(), *action))
    };
    let actions = listed(record.permitted.iter().enumerate().map(action));
    format!("Permitted, with what each was predicted to cost: {actions}.")
}

fn listed(actions: impl ExactSizeIterator<Item = String>) -> String {
    let more = actions.len().saturating_sub(SHOWN_ACTIONS);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    actions.take(SHOWN_ACTIONS).collect::<Vec<_>>().join("; ") + &more
}

fn budgets(record: &TurnRecord) -> Option<String> {
    let reserved = record.reserved.as_ref()?;
    Some(format!("Left of the budgets before it: {}. Reserved for it: {}.", left(record), cost_text(reserved)))
}

fn left(record: &TurnRecord) -> String {
    let left: Vec<String> = record.budget_remaining.iter().map(|(name, left)| format!("{name} {left}")).collect();
    left.join(", ")
}

/// What could not be afforded, why, and when it may be possible.
fn refused(record: &TurnRecord, unaffordable: &[Unaffordable], possible_unix_ms: Option<i64>) -> Vec<String> {
    let mut words = Vec::new();
    if !unaffordable.is_empty() {
        let space = space(record);
        let action = |it: &Unaffordable| format!("{} ({})", name(space.as_ref(), it.action), cost_text(&it.predicted));
        let actions = listed(unaffordable.iter().map(action));
        words.push(format!("Not affordable, with what each was predicted to cost: {actions}."));
    }
    if !record.budget_remaining.is_empty() {
        words.push(format!("Left of the budgets: {}.", left(record)));
    }
    let Reason { code, detail } = &record.reason;
    words.push(format!("It was refused, because: {detail} ({code})."));
    words.push("Nobody was asked, nothing was reserved, and nothing left the device.".into());
    words.extend(possible_unix_ms.map(|unix_ms| format!("It may be possible from {} on.", local_time(unix_ms))));
    words
}

fn chosen(record: &TurnRecord) -> String {
    let action = name(space(record).as_ref(), record.action);
    let chance = if record.propensity < 1.0 {
        format!(", which it does here with probability {:.3}", record.propensity)
    } else {
        String::new()
    };
    format!("{} chose {action}{chance}, because: {} ({}).", record.policy, record.reason.detail, record.reason.code)
}

fn happened(record: &TurnRecord) -> String {
    let who = record.model.as_deref().map(|model| format!(" ({model})")).unwrap_or_default();
    let fallback = match &record.fallback {
        Some(why) => format!("The chosen route failed before its first token: {why}. "),
        None => String::new(),
    };
    let route = if record.route == Route::Local { "The device" } else { "The cloud" };
    let took = record.timings.total_ms.map(|ms| format!(" after {}", units::duration_ms(ms))).unwrap_or_default();
    let first = record.timings.first_token_ms.map(|ms| format!(", its first token after {}", units::duration_ms(ms)));
    let tokens = format!("{} prompt and {} answer tokens", record.usage.prompt_tokens, record.usage.completion_tokens);
    let end = match &record.outcome {
        Outcome::Answered { finish_reason: FinishReason::Stop } => format!("{route}{who} answered, done{took}"),
        Outcome::Answered { finish_reason: FinishReason::Length } => {
            format!("{route}{who} answered, cut at its length{took}")
        }
        Outcome::Cancelled => format!("{route}{who} was answering when the client went away{took}"),
        Outcome::Failed { error } => format!("{route}{who} failed{took}: {error}"),
        Outcome::Refused { .. } => "Nobody was asked".into(),
        Outcome::Unfinished => "It was never finished: the daemon stopped in the middle, or it still runs".into(),
    };
    format!("{fallback}{end}{}; {tokens}.", first.unwrap_or_default())
}

fn spent(record: &TurnRecord) -> Option<String> {
    if record.outcome == Outcome::Unfinished {
        return record.reserved.as_ref().map(|_| "What was reserved for it counts as spent.".into());
    }
    let views: Vec<&str> = record.views.iter().map(|view| view.as_str()).collect();
    let left = match (record.measured.uplink_bytes, views.is_empty()) {
        (Some(0), true) => "Nothing left the device".to_owned(),
        (_, true) => "Of the views, none left the device".to_owned(),
        (_, false) => format!("These views left the device: {}", views.join(", ")),
    };
    let energy = format!("energy {}", record.energy_source);
    Some(format!("{left}. It cost {}; {energy}.", cost_text(&record.measured)))
}

/// What is known of a cost; what is not is said.
fn cost_text(cost: &Cost) -> String {
    let parts = [
        cost.latency_ms.map(units::duration_ms),
        Some(cost.cost_usd.map_or("$ unknown".into(), units::usd)),
        Some(cost.energy_j.map_or("J unknown".into(), |energy_j| format!("{energy_j:.1} J"))),
        Some(cost.uplink_bytes.map_or("up unknown".into(), |bytes| format!("up {}", units::bytes(bytes)))),
        Some(cost.downlink_bytes.map_or("down unknown".into(), |bytes| format!("down {}", units::bytes(bytes)))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_protocol::ViewName;
    use tether_protocol::context::ViewContext;

    #[test]
    fn a_record_is_told_in_plain_words() {
        let mut record = crate::testing::turn_record("a1");
        record.context.views = vec![ViewContext {
            name: ViewName::new("front").unwrap(),
            encoded_bytes: Reading::known(12_000, 3_000, "encoded"),
            attached: false,
            is_text: false,
            local_only: false,
            association: None,
        }];
        record.permitted = vec![Action(0), Action(1), Action(2)];
        record.action = Action(2);
        record.route = Route::Cloud;
        record.predicted_costs = vec![Cost::ZERO, Cost::default(), Cost { cost_usd: Some(0.01), ..Cost::ZERO }];
        record.reason = Reason::new("views_needed", "the prompt is about front");
        record.views = vec![ViewName::new("front").unwrap()];
        record.reserved = Some(Cost { latency_ms: None, cost_usd: Some(0.02), ..Cost::ZERO });
        record.budget_remaining.insert("usd_per_day".into(), 0.5);
        record.measured = Cost { cost_usd: Some(0.009), uplink_bytes: Some(13_000), ..Cost::default() };
        record.outcome = Outcome::Answered { finish_reason: FinishReason::Stop };
        record.propensity = 0.25;
        record.probabilities = Some(vec![0.5, 0.25, 0.25]);
        let text = explain(&record).join("\n");
        for words in [
            "front (12.0 kB, 3.00 s old)",
            "cloud with text alone ($ unknown, J unknown",
            "cloud with front (0 ms, $0.01",
            "down 0 B), probability 0.500; cloud with text alone",
            "Left of the budgets before it: usd_per_day 0.5. Reserved for it: $0.02",
            "rule-1 chose cloud with front, which it does here with probability 0.250, because: the prompt is about front",
            "The cloud answered, done",
            "These views left the device: front. It cost $0.009, J unknown, up 13.0 kB, down unknown; energy unknown.",
            "Nobody has rated it.",
        ] {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
    }
}
