//! What MESS+ has learned, as gauges: they outlive the process, and counters must begin at zero.

use crate::routing::RoutingStatus;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Figures = Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>;

#[derive(Debug, Default)]
pub(super) struct RoutingGauges {
    alpha: Figures,
    satisfaction: Figures,
    at_least: Figures,
    queue: Figures,
    queue_bound: Figures,
    shadow_price: Figures,
    rated: Figures,
    calls: Figures,
    labels: Figures,
    model_satisfaction: Figures,
    mean_cost: Figures,
    shared_reachable: Figures,
    shared_unsent: Figures,
    unread: Figures,
}

impl RoutingGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let figures = [
            ("mess_alpha", "Agreed mean satisfaction of a tenant", &self.alpha),
            ("mess_satisfaction", "Mean of a tenant's ratings", &self.satisfaction),
            ("mess_satisfaction_at_least", "Lower bound on the mean over all answers", &self.at_least),
            ("mess_queue", "Virtual queue of a tenant, in satisfied answers", &self.queue),
            ("mess_queue_bound", "What the queue stays below with probability 0.99", &self.queue_bound),
            ("mess_shadow_price_usd", "Price of one satisfied answer", &self.shadow_price),
            ("mess_rated", "Ratings of a tenant that were learned", &self.rated),
            ("mess_calls", "Turns routed to a model", &self.calls),
            ("mess_labels", "Ratings learned of a model, forgetting after a change", &self.labels),
            ("mess_model_satisfaction", "Mean of a model's ratings", &self.model_satisfaction),
            ("mess_model_mean_cost_usd", "Mean cost of a model's answers", &self.mean_cost),
            (
                "mess_shared_reachable",
                "1 while the state that gateways share is reached, else 0",
                &self.shared_reachable,
            ),
            ("mess_unread", "Turns routed by the models' means because the encoder was busy", &self.unread),
            ("mess_shared_unsent", "Records that wait to be written to the shared state", &self.shared_unsent),
        ];
        for (name, help, family) in figures {
            registry.register(name, help, family.clone());
        }
    }

    /// Takes the figures as they are now; those who left leave the page.
    pub(super) fn set(&self, routing: Option<&RoutingStatus>) {
        let Some(routing) = routing else { return };
        [&self.alpha, &self.satisfaction, &self.at_least, &self.queue, &self.queue_bound, &self.shadow_price]
            .into_iter()
            .chain([&self.rated, &self.calls, &self.labels, &self.model_satisfaction, &self.mean_cost])
            .for_each(Family::clear);
        let put = |family: &Figures, label: &'static str, name: &str, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&[(label, name.to_owned())]).set(value);
            }
        };
        put(&self.unread, "encoder", &routing.encoder, Some(routing.unread as f64));
        if let Some(shared) = &routing.shared {
            put(&self.shared_reachable, "kind", &shared.kind, Some(f64::from(u8::from(shared.reachable))));
            put(&self.shared_unsent, "kind", &shared.kind, Some(shared.unsent as f64));
        }
        for tenant in &routing.tenants {
            let (name, status) = (&tenant.name, &tenant.status);
            put(&self.alpha, "tenant", name, Some(status.alpha));
            put(&self.satisfaction, "tenant", name, status.satisfaction);
            put(&self.at_least, "tenant", name, Some(status.satisfaction_at_least));
            put(&self.queue, "tenant", name, Some(status.queue));
            put(&self.queue_bound, "tenant", name, Some(status.queue_bound));
            put(&self.shadow_price, "tenant", name, status.shadow_price);
            put(&self.rated, "tenant", name, Some(status.rated as f64));
        }
        for model in &routing.models {
            put(&self.calls, "model", &model.name, Some(model.calls as f64));
            put(&self.labels, "model", &model.name, Some(model.labels));
            put(&self.model_satisfaction, "model", &model.name, model.satisfaction);
            put(&self.mean_cost, "model", &model.name, model.mean_cost);
        }
    }
}
