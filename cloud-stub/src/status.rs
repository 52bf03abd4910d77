//! What `GET /status` tells and `tether-cloud status` shows.

use crate::gateway::Gateway;
use crate::price::Prices;
use crate::routing::{NamedTenant, RoutingStatus};
use crate::zoo::Member;
use serde::{Deserialize, Serialize};
use std::fmt;
use tether_protocol::wire::Vision;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub uptime_s: u64,
    pub ready: bool,
    pub draining: bool,
    pub zoo: Vec<BackendStatus>,
    /// What MESS+ has learned, where it routes.
    #[serde(default)]
    pub routing: Option<RoutingStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub name: String,
    /// `candle`, `openai` or `scripted`.
    pub kind: String,
    pub vision: Vision,
    pub context_tokens: Option<u32>,
    pub healthy: bool,
    /// What took it out.
    pub problem: Option<String>,
    pub running: usize,
    pub waiting: usize,
    pub concurrency: usize,
    pub queue: usize,
    pub turned_away: u64,
    pub answered: u64,
    pub cost_usd: f64,
    pub prices: Prices,
}

impl Status {
    pub fn of(gateway: &Gateway) -> Self {
        let zoo = gateway.zoo();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: gateway.started.elapsed().as_secs(),
            ready: gateway.is_ready(),
            draining: gateway.is_draining(),
            zoo: zoo.members().iter().map(|member| backend(gateway, member)).collect(),
            routing: gateway.routing(),
        }
    }
}

fn backend(gateway: &Gateway, member: &Member) -> BackendStatus {
    let settings = &member.settings;
    let (answered, cost_usd) = gateway.metrics.answered(&settings.name);
    let (inside, waiting) = (member.gate.inside(), member.gate.waiting());
    BackendStatus {
        name: settings.name.clone(),
        kind: settings.kind.as_str().to_owned(),
        vision: settings.vision,
        context_tokens: member.context_tokens(),
        healthy: member.is_healthy(),
        problem: member.problem(),
        running: inside.saturating_sub(waiting),
        waiting,
        concurrency: settings.concurrency,
        queue: settings.queue,
        turned_away: member.gate.turned_away(),
        answered,
        cost_usd,
        prices: settings.prices,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.ready, self.draining) {
            (_, true) => "draining",
            (true, false) => "ready",
            (false, false) => "no backend is healthy",
        };
        writeln!(f, "tether-cloud {}, {state}, up {} s", self.version, self.uptime_s)?;
        let width = self.zoo.iter().map(|backend| backend.name.len()).max().unwrap_or(0).max("model".len());
        writeln!(f, "\n{:width$}  kind      vision    state  running  waiting  answered        usd", "model")?;
        for backend in &self.zoo {
            let BackendStatus { name, kind, running, waiting, concurrency, queue, answered, cost_usd, .. } = backend;
            let vision = format!("{:?}", backend.vision).to_lowercase();
            let state = if backend.healthy { "up" } else { "out" };
            let (running, waiting) = (format!("{running}/{concurrency}"), format!("{waiting}/{queue}"));
            writeln!(
                f,
                "{name:width$}  {kind:8}  {vision:8}  {state:5}  {running:>7}  {waiting:>7}  {answered:>8}  {cost_usd:>9.6}"
            )?;
            if let Some(problem) = &backend.problem {
                writeln!(f, "{:width$}  {problem}", "")?;
            }
        }
        self.routing.as_ref().map_or(Ok(()), |routing| write_routing(f, routing))
    }
}

fn write_routing(f: &mut fmt::Formatter<'_>, routing: &RoutingStatus) -> fmt::Result {
    let or_none = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let kept = if routing.kept { "kept" } else { "NOT kept" };
    writeln!(
        f,
        "\nrouting: {} tenants, {} turns can still be rated, the state is {kept}, encoder {}",
        routing.tenant_count, routing.awaiting_rating, routing.encoder
    )?;
    if routing.unread > 0 {
        writeln!(f, "encoder: busy for {} turns, which were routed by the models' means", routing.unread)?;
    }
    if let Some(shared) = &routing.shared {
        let reachable = if shared.reachable { "reachable" } else { "NOT reachable" };
        writeln!(
            f,
            "shared: {}, {reachable}, {} gateways (each start counts), {} records wait to be written",
            shared.kind, shared.writers, shared.unsent
        )?;
    }
    let width = routing.models.iter().map(|model| model.name.len()).max().unwrap_or(0).max("model".len());
    writeln!(f, "\n{:width$}     calls    labels  satisfied   mean usd", "model")?;
    for model in &routing.models {
        let (satisfied, cost) = (or_none(model.satisfaction, 3), or_none(model.mean_cost, 6));
        writeln!(f, "{:width$}  {:>8}  {:>8.0}  {satisfied:>9}  {cost:>9}", model.name, model.calls, model.labels)?;
    }
    let width = routing.tenants.iter().map(|tenant| tenant.name.len()).max().unwrap_or(0).max("tenant".len());
    writeln!(f, "\n{:width$}  alpha  answered     rated  satisfied  at least    queue  bound  price", "tenant")?;
    for NamedTenant { name, status } in &routing.tenants {
        let (satisfied, price) = (or_none(status.satisfaction, 3), or_none(status.shadow_price, 6));
        writeln!(
            f,
            "{name:width$}  {:>5}  {:>8}  {:>8}  {satisfied:>9}  {:>8.3}  {:>7.2}  {:>5.0}  {price}{}",
            status.alpha,
            status.answered,
            status.rated,
            status.satisfaction_at_least,
            status.queue,
            status.queue_bound,
            if status.guarding { "  guarding" } else { "" }
        )?;
        if let Some(warning) = &status.warning {
            writeln!(f, "{:width$}  {warning}", "")?;
        }
    }
    Ok(())
}
