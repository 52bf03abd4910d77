//! What `/metrics` tells. Base units; labels have few values: the zoo's names, outcomes, directions.

mod routing;

use crate::routing::RoutingStatus;
use crate::zoo::Zoo;
use crate::zoo::choose::Predicted;
use bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use routing::RoutingGauges;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tether_protocol::record::Usage;
use tether_protocol::wire::{Part, TurnRequest};

/// The outcome of a turn that got a complete answer.
pub const ANSWERED: &str = "answered";

/// One turn, for counting and logging.
#[derive(Debug, Clone)]
pub struct TurnReport {
    /// The backend that was asked last; `none` if none was.
    pub model: String,
    /// Why it was asked, and what was expected of it.
    pub reason: &'static str,
    pub predicted: Option<Predicted>,
    pub outcome: &'static str,
    pub queued: Duration,
    pub first_token: Option<Duration>,
    pub total: Duration,
    pub usage: Usage,
    pub cost_usd: f64,
    /// Text and images of the request; text of the answer.
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl TurnReport {
    pub fn new(request: &TurnRequest) -> Self {
        let parts = request.messages.iter().flat_map(|message| &message.parts);
        let text = parts.map(|part| if let Part::Text(text) = part { text.len() as u64 } else { 0 });
        Self {
            model: "none".to_owned(),
            reason: "none",
            predicted: None,
            outcome: "cancelled",
            queued: Duration::ZERO,
            first_token: None,
            total: Duration::ZERO,
            usage: Usage::default(),
            cost_usd: 0.0,
            received_bytes: text.sum(),
            sent_bytes: 0,
        }
    }

    pub fn received(&mut self, images: &[Bytes]) {
        self.received_bytes += images.iter().map(|image| image.len() as u64).sum::<u64>();
    }
}

type Labels<const N: usize> = [(&'static str, String); N];
type Seconds = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// Every counter of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    turns: Family<Labels<2>, Counter>,
    queue_seconds: Seconds,
    first_token_seconds: Seconds,
    turn_seconds: Seconds,
    tokens: Family<Labels<2>, Counter>,
    cost_usd: Family<Labels<1>, Counter<f64, AtomicU64>>,
    bytes: Family<Labels<1>, Counter>,
    running: Family<Labels<1>, Gauge>,
    waiting: Family<Labels<1>, Gauge>,
    up: Family<Labels<1>, Gauge>,
    routing: RoutingGauges,
}

/// From a millisecond to about ten minutes, in steps of two.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 20))
}

fn seconds_family() -> Seconds {
    Family::new_with_constructor(seconds)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tether_gateway"),
            turns: Family::default(),
            queue_seconds: seconds_family(),
            first_token_seconds: seconds_family(),
            turn_seconds: seconds_family(),
            tokens: Family::default(),
            cost_usd: Family::default(),
            bytes: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            up: Family::default(),
            routing: RoutingGauges::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("turns", "Turns by the model asked last and by outcome", self.turns.clone());
        let seconds = [
            ("queue", "Waiting for the backend", &self.queue_seconds),
            ("first_token", "From a turn's arrival to its first token", &self.first_token_seconds),
            ("turn", "From a turn's arrival to its end", &self.turn_seconds),
        ];
        for (name, help, family) in seconds {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
        registry.register("tokens", "Tokens of answered turns by kind", self.tokens.clone());
        registry.register("cost_usd", "Charges of answered turns in USD", self.cost_usd.clone());
        registry.register_with_unit("payload", "Text and images, without framing", Unit::Bytes, self.bytes.clone());
        registry.register("turns_running", "Turns that a backend works on", self.running.clone());
        registry.register("turns_waiting", "Turns in a backend's queue", self.waiting.clone());
        registry.register("backend_up", "1 while a backend is asked, 0 while it is out", self.up.clone());
        self.routing.register(registry);
    }

    /// Counts a finished turn.
    pub fn count(&self, turn: &TurnReport) {
        let model = || [("model", turn.model.clone())];
        let and = |name, value: &str| [("model", turn.model.clone()), (name, value.to_owned())];
        self.turns.get_or_create(&and("outcome", turn.outcome)).inc();
        self.turn_seconds.get_or_create(&model()).observe(turn.total.as_secs_f64());
        self.bytes.get_or_create(&[("direction", "received".to_owned())]).inc_by(turn.received_bytes);
        self.bytes.get_or_create(&[("direction", "sent".to_owned())]).inc_by(turn.sent_bytes);
        if let Some(first_token) = turn.first_token {
            self.queue_seconds.get_or_create(&model()).observe(turn.queued.as_secs_f64());
            self.first_token_seconds.get_or_create(&model()).observe(first_token.as_secs_f64());
        }
        if turn.outcome == ANSWERED {
            self.tokens.get_or_create(&and("kind", "prompt")).inc_by(turn.usage.prompt_tokens.into());
            self.tokens.get_or_create(&and("kind", "completion")).inc_by(turn.usage.completion_tokens.into());
            self.cost_usd.get_or_create(&model()).inc_by(turn.cost_usd);
        }
    }

    /// Turns of a model that were answered, and what they cost in USD; since the start.
    pub fn answered(&self, model: &str) -> (u64, f64) {
        let turns = self.turns.get(&[("model", model.to_owned()), ("outcome", ANSWERED.to_owned())]);
        let cost_usd = self.cost_usd.get(&[("model", model.to_owned())]);
        (turns.map_or(0, |counter| counter.get()), cost_usd.map_or(0.0, |counter| counter.get()))
    }

    /// The page, with the zoo's queues as they are now.
    pub fn page(&self, zoo: &Zoo, routing: Option<&RoutingStatus>) -> String {
        self.routing.set(routing);
        // Models that have left the zoo leave the page.
        [&self.running, &self.waiting, &self.up].into_iter().for_each(Family::clear);
        for member in zoo.members() {
            let model = [("model", member.settings.name.clone())];
            let (inside, waiting) = (member.gate.inside() as i64, member.gate.waiting() as i64);
            self.running.get_or_create(&model).set(inside - waiting);
            self.waiting.get_or_create(&model).set(waiting);
            self.up.get_or_create(&model).set(member.is_healthy().into());
        }
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}
