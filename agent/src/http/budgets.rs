//! Budgets over HTTP: what is spent, and setting and resetting one.

use super::body;
use super::reply::Refusal;
use crate::daemon::Daemon;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use std::sync::Arc;
use tether_policies::budget::BudgetName;
use tether_protocol::api::{ApiError, BudgetList, SetBudget};

const MAX_SET_BYTES: usize = 4 * 1024;

pub(super) async fn list(State(daemon): State<Arc<Daemon>>) -> Json<BudgetList> {
    Json(daemon.budget_status())
}

/// Sets a cap. What was spent stays.
pub(super) async fn set(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BudgetList>, Refusal> {
    let name = parse(&name)?;
    let SetBudget { cap } = body::read_json(&headers, body, MAX_SET_BYTES, Ok).await?;
    let live = daemon.live();
    let invalid = |problem| ApiError::bad_request("cap", "invalid_value", format!("{name}: {problem}"));
    let budgets = &live.settings.budgets;
    let cap = budgets.cap(name, cap).map_err(invalid)?;
    let predictable = budgets.predictable(name.resource, &live.settings.cloud, live.settings.model.is_some());
    predictable.map_err(invalid)?;
    keep(&daemon, name, Some(cap)).await
}

/// Goes back to the settings' cap, or to none.
pub(super) async fn unset(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Result<Json<BudgetList>, Refusal> {
    let name = parse(&name)?;
    keep(&daemon, name, None).await
}

async fn keep(daemon: &Daemon, name: BudgetName, cap: Option<u64>) -> Result<Json<BudgetList>, Refusal> {
    daemon.store().set_cap(name, cap).await.map_err(|error| unavailable(&error))?;
    daemon.budgets().set(name, cap);
    daemon.allow_probes();
    daemon.store().open_windows(daemon.budgets().new_windows());
    Ok(Json(daemon.budget_status()))
}

/// Begins a new window: nothing is spent of it.
pub(super) async fn reset(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
) -> Result<Json<BudgetList>, Refusal> {
    let name = parse(&name)?;
    let spending = daemon.budgets().reset(name);
    let spending = spending.map_err(|error| ApiError::refused(404, "unknown_budget", error.to_string()))?;
    daemon.store().put_spending(name, spending).await.map_err(|error| unavailable(&error))?;
    Ok(Json(daemon.budget_status()))
}

fn parse(name: &str) -> Result<BudgetName, ApiError> {
    name.parse::<BudgetName>().map_err(|error| {
        // The name comes from outside; its length is bounded by the request's head.
        let shown: String = error.to_string().chars().take(512).collect();
        ApiError::refused(404, "unknown_budget", shown)
    })
}

fn unavailable(error: &crate::store::StoreError) -> ApiError {
    ApiError::server(503, "ledger_unavailable", error.to_string())
}
