//! Around every handler: whoever is refused stands in the log, and a panic ends one request, not its connection.

use super::Peer;
use super::reply::{Refusal, Refused};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use tether_protocol::api::ApiError;

/// Bytes of a path that are logged.
const MAX_PATH: usize = 128;

pub(super) async fn guard(request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), |peer| peer.name.clone());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    // Whatever the handler held is dropped; what others share is behind locks that outlive a panic.
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = response.unwrap_or_else(|_| Refusal(fault()).into_response());
    if let Some(Refused(code)) = response.extensions().get() {
        let path: String = uri.path().chars().take(MAX_PATH).collect();
        let status = response.status().as_u16();
        // The code alone: a message may quote what the client sent.
        tracing::info!(client, %method, path, status, code, "request refused");
    }
    response
}

/// What a client is told of a panic; the panic itself is in the log.
pub(super) fn fault() -> ApiError {
    ApiError::server(
        500,
        "internal",
        "a fault within the daemon ended this request; its log tells more, please report it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_an_error_in_openai_s_shape() {
        async fn broken() -> &'static str {
            panic!("the handler panics because the test asks for it")
        }
        let router: Router = Router::new().route("/", get(broken)).layer(axum::middleware::from_fn(guard));
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 500);
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
        assert_eq!(body["error"]["type"], "server_error");
    }
}
