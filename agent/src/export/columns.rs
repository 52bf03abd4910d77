//! A turn as a row: what most questions ask for in columns of their own, and the whole record as JSON beside them.

use super::Exported;

/// One value; `None` is unknown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
    Float(Option<f64>),
    Bool(bool),
}

/// What a column holds, for forms that have types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
}

type Make = fn(&Exported) -> Cell;

fn text(value: impl Into<String>) -> Cell {
    Cell::Text(Some(value.into()))
}

fn int(value: Option<u64>) -> Cell {
    Cell::Int(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
}

fn link(turn: &Exported) -> Option<&tether_protocol::context::Link> {
    turn.record.context.link.value()
}

/// Names, kinds and how to make them, in the order of the table.
pub(super) const COLUMNS: [(&str, Kind, Make); 44] = [
    ("turn_id", Kind::Text, |t| text(t.record.turn_id.as_str())),
    ("session", Kind::Text, |t| Cell::Text(t.record.session.as_ref().map(|session| session.to_string()))),
    ("started_unix_ms", Kind::Int, |t| Cell::Int(Some(t.record.started_unix_ms))),
    ("task", Kind::Text, |t| Cell::Text(t.record.task.clone())),
    ("task_source", Kind::Text, |t| Cell::Text(t.record.task_source.map(|source| source.as_str().into()))),
    ("local_only", Kind::Bool, |t| Cell::Bool(t.record.local_only)),
    ("action", Kind::Int, |t| Cell::Int(Some(i64::from(t.record.action.0)))),
    ("permitted", Kind::Text, |t| json(&t.record.permitted)),
    ("probabilities", Kind::Text, |t| json(&t.record.probabilities)),
    ("propensity", Kind::Float, |t| Cell::Float(Some(t.record.propensity))),
    ("policy", Kind::Text, |t| text(&t.record.policy)),
    ("reason", Kind::Text, |t| text(&t.record.reason.code)),
    ("reason_detail", Kind::Text, |t| text(&t.record.reason.detail)),
    ("predicted_latency_ms", Kind::Float, |t| Cell::Float(t.record.predicted.latency_ms)),
    ("predicted_cost_usd", Kind::Float, |t| Cell::Float(t.record.predicted.cost_usd)),
    ("predicted_energy_j", Kind::Float, |t| Cell::Float(t.record.predicted.energy_j)),
    ("predicted_uplink_bytes", Kind::Int, |t| int(t.record.predicted.uplink_bytes)),
    ("predicted_downlink_bytes", Kind::Int, |t| int(t.record.predicted.downlink_bytes)),
    ("reserved_cost_usd", Kind::Float, |t| Cell::Float(t.record.reserved.and_then(|cost| cost.cost_usd))),
    ("reserved_uplink_bytes", Kind::Int, |t| int(t.record.reserved.and_then(|cost| cost.uplink_bytes))),
    ("route", Kind::Text, |t| text(t.record.route.as_str())),
    ("views", Kind::Text, |t| json(&t.record.views)),
    ("vision", Kind::Text, |t| Cell::Text(t.record.vision.map(|vision| vision.as_str().to_owned()))),
    ("model", Kind::Text, |t| Cell::Text(t.record.model.clone())),
    ("fallback", Kind::Text, |t| Cell::Text(t.record.fallback.clone())),
    ("outcome", Kind::Text, |t| text(t.record.outcome.as_str())),
    ("latency_ms", Kind::Float, |t| Cell::Float(t.record.measured.latency_ms)),
    ("first_token_ms", Kind::Float, |t| Cell::Float(t.record.timings.first_token_ms)),
    ("queue_ms", Kind::Float, |t| Cell::Float(t.record.timings.queue_ms)),
    ("decision_us", Kind::Int, |t| int(Some(t.record.timings.decision_us))),
    ("cost_usd", Kind::Float, |t| Cell::Float(t.record.measured.cost_usd)),
    ("energy_j", Kind::Float, |t| Cell::Float(t.record.measured.energy_j)),
    ("energy_source", Kind::Text, |t| text(&t.record.energy_source)),
    ("uplink_bytes", Kind::Int, |t| int(t.record.measured.uplink_bytes)),
    ("downlink_bytes", Kind::Int, |t| int(t.record.measured.downlink_bytes)),
    ("prompt_tokens", Kind::Int, |t| int(Some(t.record.usage.prompt_tokens.into()))),
    ("completion_tokens", Kind::Int, |t| int(Some(t.record.usage.completion_tokens.into()))),
    ("rating", Kind::Float, |t| Cell::Float(t.record.rating)),
    ("link_state", Kind::Text, |t| Cell::Text(link(t).map(|link| format!("{:?}", link.state).to_lowercase()))),
    ("link_rtt_ms", Kind::Float, |t| Cell::Float(link(t).and_then(|link| link.rtt_ms))),
    ("battery_percent", Kind::Float, |t| Cell::Float(t.record.context.battery.value().map(|battery| battery.percent))),
    ("question", Kind::Text, |t| Cell::Text(t.text.as_ref().map(|(question, _)| question.clone()))),
    ("answer", Kind::Text, |t| Cell::Text(t.text.as_ref().map(|(_, answer)| answer.clone()))),
    ("record", Kind::Text, |t| json(&t.record)),
];

fn json(value: &impl serde::Serialize) -> Cell {
    // These types are JSON by their nature.
    Cell::Text(serde_json::to_string(value).ok())
}
