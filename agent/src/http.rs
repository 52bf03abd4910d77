//! The Unix-socket API: paths to handlers, and everything that is not one to an error in OpenAI's shape.

mod body;
mod budgets;
mod chat;
mod device;
mod guard;
mod reply;
mod stream;
mod turns;

use crate::daemon::Daemon;
use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post, put};
use reply::Refusal;
use std::sync::Arc;
use tether_protocol::api::ApiError;
use tokio::net::UnixStream;

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub name: String,
}

impl Peer {
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let name = match stream.peer_cred() {
            Ok(cred) => {
                let pid = cred.pid().map(|pid| format!(" pid={pid}")).unwrap_or_default();
                format!("uid={}{pid}", cred.uid())
            }
            Err(error) => format!("unknown ({error})"),
        };
        Self { name }
    }
}

pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(device::models))
        .route("/v1/feedback", post(turns::feedback))
        .route("/v1/cameras/{name}", put(device::push_camera))
        .route("/v1/sensors/{name}", put(device::push_sensor))
        .route("/v1/status", get(device::status))
        .route("/v1/turns", get(turns::list))
        .route("/v1/turns/{id}", get(turns::one))
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/{name}", put(budgets::set).delete(budgets::unset))
        .route("/v1/budgets/{name}/reset", post(budgets::reset))
        .route("/v1/sessions/{id}", axum::routing::delete(turns::forget))
        .route("/healthz", get(device::healthz))
        .route("/readyz", get(device::readyz))
        .route("/metrics", get(device::metrics))
        .route("/version", get(device::version))
        .method_not_allowed_fallback(wrong_method)
        .fallback(wrong_path)
        .layer(axum::middleware::from_fn(guard::guard))
        .with_state(daemon)
}

async fn wrong_path(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(128).collect();
    ApiError::refused(404, "unknown_path", format!("there is nothing at {path}; see GET /v1/status")).into()
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(128).collect();
    ApiError::refused(405, "wrong_method", format!("{path} does not take {method}")).into()
}
