//! What `/metrics` tells, in OpenMetrics: base units, labels of few values.

mod surroundings;

pub(crate) use surroundings::Readings;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use surroundings::Surroundings;
use tether_models::WorkerStats;
use tether_protocol::api::{ApiError, BudgetStatus, MemoryStatus};
use tether_protocol::{Route, TurnRecord};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    route: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FellBack {
    from: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Crossed {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBudget {
    budget: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    route: &'static str,
    kind: &'static str,
}

/// All metrics of one daemon.
pub struct Metrics {
    registry: Registry,
    decisions: Family<Decided, Counter>,
    turns: Family<Ended, Counter>,
    refusals: Family<OfCode, Counter>,
    fallbacks: Family<FellBack, Counter>,
    faults: Family<OfCode, Counter>,
    tokens: Family<Counted, Counter>,
    bytes: Family<Crossed, Counter>,
    decision_seconds: Histogram,
    first_token_seconds: Family<OfRoute, Histogram>,
    turn_seconds: Family<OfRoute, Histogram>,
    queue_seconds: Histogram,
    inter_token_seconds: Histogram,
    queue: Gauge,
    active: Gauge,
    sessions: Gauge,
    budget_spent: Family<OfBudget, Gauge<f64, AtomicU64>>,
    budget_reserved: Family<OfBudget, Gauge<f64, AtomicU64>>,
    cache_sequences: Gauge,
    cache_bytes: Gauge,
    cache_disk_bytes: Gauge,
    resident_bytes: Gauge,
    surroundings: Surroundings,
    upload_seconds: Histogram,
}

/// From a millisecond to the longest deadline.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];
/// From a microsecond to a tenth of a second.
const SHORT_SECONDS: [f64; 11] = [1e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 1e-1];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tether"),
            decisions: Family::default(),
            turns: Family::default(),
            refusals: Family::default(),
            fallbacks: Family::default(),
            faults: Family::default(),
            tokens: Family::default(),
            bytes: Family::default(),
            decision_seconds: Histogram::new(SHORT_SECONDS),
            first_token_seconds: Family::new_with_constructor(seconds),
            turn_seconds: Family::new_with_constructor(seconds),
            queue_seconds: seconds(),
            inter_token_seconds: seconds(),
            queue: Gauge::default(),
            active: Gauge::default(),
            sessions: Gauge::default(),
            budget_spent: Family::default(),
            budget_reserved: Family::default(),
            cache_sequences: Gauge::default(),
            cache_bytes: Gauge::default(),
            cache_disk_bytes: Gauge::default(),
            resident_bytes: Gauge::default(),
            surroundings: Surroundings::default(),
            upload_seconds: seconds(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("decisions", "Turns by chosen route and reason", self.decisions.clone());
        registry.register("turns", "Turns that ended, by the route that answered", self.turns.clone());
        registry.register("refusals", "Requests answered with an error, by code", self.refusals.clone());
        registry.register("fallbacks", "Turns whose chosen route failed early", self.fallbacks.clone());
        registry.register("faults", "What failed without ending a turn", self.faults.clone());
        registry.register("tokens", "Tokens of prompts and answers", self.tokens.clone());
        registry.register("cloud_bytes", "Bytes of cloud turns", self.bytes.clone());
        registry.register("decision_seconds", "Features and decision", self.decision_seconds.clone());
        registry.register("first_token_seconds", "From arrival to the first token", self.first_token_seconds.clone());
        registry.register("turn_seconds", "From arrival to the end", self.turn_seconds.clone());
        registry.register("queue_seconds", "Waiting for the model that answered", self.queue_seconds.clone());
        registry.register("inter_token_seconds", "Between two pieces of text", self.inter_token_seconds.clone());
        registry.register("queue_depth", "Jobs of the local model, the running one included", self.queue.clone());
        registry.register("active_turns", "Turns under way", self.active.clone());
        let (spent, reserved) = (self.budget_spent.clone(), self.budget_reserved.clone());
        registry.register("budget_spent_ratio", "Spent of each budget in its window", spent);
        registry.register("budget_reserved_ratio", "Reserved of each budget by turns under way", reserved);
        registry.register("sessions", "Dialogues that are remembered", self.sessions.clone());
        let kept = "Dialogues whose keys and values the local model keeps in memory";
        registry.register("model_cache_sequences", kept, self.cache_sequences.clone());
        registry.register("model_cache_bytes", "Keys and values in memory", self.cache_bytes.clone());
        registry.register("model_cache_disk_bytes", "Keys and values on disk", self.cache_disk_bytes.clone());
        registry.register("resident_bytes", "Memory of the daemon's process", self.resident_bytes.clone());
        let upload = "Until all of a cloud turn's request and pictures was acknowledged";
        registry.register("upload_seconds", upload, self.upload_seconds.clone());
        self.surroundings.register(registry);
    }

    pub(crate) fn settled(&self, record: &TurnRecord) {
        let route = record.route.as_str();
        let chosen = if record.fallback.is_some() { other(record.route) } else { record.route };
        let reason = record.reason.code.clone();
        self.decisions.get_or_create(&Decided { route: chosen.as_str(), reason }).inc();
        let outcome = record.outcome.as_str();
        self.turns.get_or_create(&Ended { route, outcome }).inc();
        let count = |kind, tokens: u32| self.tokens.get_or_create(&Counted { route, kind }).inc_by(tokens.into());
        count("prompt", record.usage.prompt_tokens);
        count("completion", record.usage.completion_tokens);
        count("cached", record.cached_tokens.unwrap_or(0));
        for (direction, bytes) in
            [("uplink", record.measured.uplink_bytes), ("downlink", record.measured.downlink_bytes)]
        {
            self.bytes.get_or_create(&Crossed { direction }).inc_by(bytes.unwrap_or(0));
        }
        if let Some(ms) = record.upload.as_ref().and_then(|upload| upload.measured_ms) {
            self.upload_seconds.observe(ms / 1e3);
        }
        let timings = &record.timings;
        self.decision_seconds.observe(timings.decision_us as f64 / 1e6);
        if let Some(ms) = timings.first_token_ms {
            self.first_token_seconds.get_or_create(&OfRoute { route }).observe(ms / 1e3);
        }
        if let Some(ms) = timings.total_ms {
            self.turn_seconds.get_or_create(&OfRoute { route }).observe(ms / 1e3);
        }
        if let Some(ms) = timings.queue_ms {
            self.queue_seconds.observe(ms / 1e3);
        }
    }

    /// The time between two pieces of one answer.
    pub(crate) fn between_tokens(&self, seconds: f64) {
        self.inter_token_seconds.observe(seconds);
    }

    pub(crate) fn refused(&self, error: &ApiError) {
        self.refusals.get_or_create(&OfCode { code: error.code().to_owned() }).inc();
    }

    pub(crate) fn fell_back(&self, from: Route, code: &str) {
        self.fallbacks.get_or_create(&FellBack { from: from.as_str(), code: code.to_owned() }).inc();
    }

    pub(crate) fn failed(&self, what: &'static str) {
        self.faults.get_or_create(&OfCode { code: what.to_owned() }).inc();
    }

    /// The budgets as they are when somebody asks; one that went shows no more.
    pub(crate) fn budgets(&self, budgets: &[BudgetStatus]) {
        self.budget_spent.clear();
        self.budget_reserved.clear();
        for BudgetStatus { name, cap, spent, reserved, .. } in budgets {
            let label = OfBudget { budget: name.clone() };
            // Of a budget of nothing, all is spent.
            let ratio = |part: f64| if *cap > 0.0 { part / cap } else { 1.0 };
            self.budget_spent.get_or_create(&label).set(ratio(*spent));
            self.budget_reserved.get_or_create(&label).set(ratio(*reserved));
        }
    }

    /// The link, battery, power and load at the moment of asking.
    pub(crate) fn surroundings(&self, readings: &Readings) {
        self.surroundings.set(readings);
    }

    /// What the local model keeps, and the process holds, at the moment of asking.
    pub(crate) fn cache(&self, stats: &WorkerStats, memory: Option<MemoryStatus>) {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.cache_sequences, stats.slots.count as u64);
        set(&self.cache_bytes, stats.slots.bytes as u64);
        set(&self.cache_disk_bytes, stats.disk.bytes);
        set(&self.resident_bytes, memory.map_or(0, |memory| memory.resident_bytes));
    }

    /// The exposition; the gauges are given, because only the moment of asking knows them.
    pub(crate) fn text(&self, queue: u32, active_turns: usize, sessions: u64) -> String {
        self.queue.set(queue.into());
        self.active.set(i64::try_from(active_turns).unwrap_or(i64::MAX));
        self.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a string does not fail");
        text
    }
}

fn other(route: Route) -> Route {
    match route {
        Route::Local => Route::Cloud,
        Route::Cloud => Route::Local,
    }
}
