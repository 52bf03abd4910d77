//! The ledger over HTTP: turns, ratings, and forgetting a dialogue.

use super::body;
use super::reply::Refusal;
use crate::daemon::Daemon;
use crate::store::StoreError;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;
use tether_protocol::api::{ApiError, Feedback, FeedbackRequest, GatewayRating, TurnList, TurnsQuery};
use tether_protocol::wire::{self, FeedbackReply};
use tether_protocol::{IdError, Route, SessionId, TurnId, TurnRecord};

const DEFAULT_TURNS: u32 = 20;
const MAX_TURNS: u32 = 1_000;
const MAX_FEEDBACK_BYTES: usize = 16 * 1024;

pub(super) async fn list(
    State(daemon): State<Arc<Daemon>>,
    query: Result<Query<TurnsQuery>, QueryRejection>,
) -> Result<Json<TurnList>, Refusal> {
    let Query(query) = query.map_err(|error| ApiError::refused(400, "invalid_value", error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_TURNS);
    if !(1..=MAX_TURNS).contains(&limit) {
        let message = format!("{limit} is not in 1..={MAX_TURNS}");
        return Err(ApiError::bad_request("limit", "invalid_value", message).into());
    }
    let before = query.before.map(TurnId::new).transpose().map_err(|error| bad_id("before", error))?;
    let session = query.session.map(SessionId::new).transpose().map_err(|error| bad_id("session", error))?;
    let turns = daemon.store().turns(limit + 1, before, session).await.map_err(unavailable)?;
    Ok(Json(TurnList::page(turns, limit)))
}

pub(super) async fn one(
    State(daemon): State<Arc<Daemon>>,
    Path(id): Path<String>,
) -> Result<Json<TurnRecord>, Refusal> {
    let id = TurnId::new(id).map_err(|error| bad_id("id", error))?;
    match daemon.store().turn(id.clone()).await.map_err(unavailable)? {
        Some(turn) => Ok(Json(turn)),
        None => Err(unknown_turn(&id).into()),
    }
}

pub(super) async fn feedback(
    State(daemon): State<Arc<Daemon>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Feedback>, Refusal> {
    let (turn_id, rating) = body::read_json(&headers, body, MAX_FEEDBACK_BYTES, check).await?;
    match daemon.store().rate(turn_id.clone(), rating).await.map_err(unavailable)? {
        Some(replaced) => {
            if let Some(zoo) = daemon.zoo() {
                // A turn that the zoo did not choose for teaches it nothing.
                zoo.rate(&turn_id, rating);
            }
            let record = daemon.store().turn(turn_id.clone()).await.map_err(unavailable)?;
            let gateway = match &record {
                Some(record) => {
                    daemon.learn(record, replaced).await.map_err(unavailable)?;
                    rate_at_gateway(&daemon, record, rating).await
                }
                None => None,
            };
            Ok(Json(Feedback { turn_id: turn_id.to_string(), rating, replaced, gateway }))
        }
        None => Err(unknown_turn(&turn_id).into()),
    }
}

/// Only a turn that the cloud answered: the gateway learns nothing of the others, not even that there were any.
async fn rate_at_gateway(daemon: &Daemon, record: &TurnRecord, rating: f64) -> Option<GatewayRating> {
    if record.route != Route::Cloud {
        return None;
    }
    let turn_id = &record.turn_id;
    let cloud = daemon.live().cloud().cloned();
    let Ok(cloud) = cloud else { return Some(GatewayRating::Unreachable) };
    let reply = cloud.feedback(wire::Feedback { turn_id: turn_id.clone(), rating: rating as f32 }).await;
    Some(match reply {
        Ok(FeedbackReply::Recorded) => GatewayRating::Recorded,
        Ok(FeedbackReply::Unsupported) => GatewayRating::Unsupported,
        Ok(FeedbackReply::UnknownTurn) => GatewayRating::UnknownTurn,
        Err(problem) => {
            tracing::info!(%turn_id, %problem, "the gateway did not take a rating");
            GatewayRating::Unreachable
        }
    })
}

pub(super) async fn forget(State(daemon): State<Arc<Daemon>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let id = SessionId::new(id).map_err(|error| bad_id("id", error))?;
    // Behind the session's running turn, which would otherwise bring it back.
    let _held = daemon.sessions().enter(&id).await?;
    let known = daemon.store().forget(id.clone()).await.map_err(unavailable)?;
    daemon.forget_computed(id.clone()).await;
    if !known {
        return Err(ApiError::refused(404, "unknown_session", format!("no session {id} is remembered")).into());
    }
    Ok(Json(json!({"session": id, "deleted": true})))
}

fn check(request: FeedbackRequest) -> Result<(TurnId, f64), ApiError> {
    if !(0.0..=1.0).contains(&request.rating) {
        let message = format!("{} is not in 0..=1", request.rating);
        return Err(ApiError::bad_request("rating", "invalid_value", message));
    }
    Ok((TurnId::new(request.turn_id).map_err(|error| bad_id("turn_id", error))?, request.rating))
}

fn bad_id(param: &str, error: IdError) -> ApiError {
    ApiError::bad_request(param, "invalid_value", error.to_string())
}

fn unknown_turn(id: &TurnId) -> ApiError {
    ApiError::refused(404, "unknown_turn", format!("the ledger has no turn {id}; see GET /v1/turns"))
}

fn unavailable(error: StoreError) -> ApiError {
    ApiError::server(503, "ledger_unavailable", error.to_string())
}
