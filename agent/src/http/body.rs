//! Request bodies under limits.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use std::time::Duration;
use tether_protocol::api::{ApiError, from_json};

/// A client on the same machine needs no longer to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Parsing more than this takes longer than a millisecond: not on the async runtime.
const INLINE_BYTES: usize = 64 * 1024;

/// Reads a whole body.
///
/// # Errors
/// 413 beyond `limit`, told before reading if `content-length` says so; 408 if it does not come; 400 if it breaks off.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes, the most allowed here");
        ApiError::refused(413, "body_too_large", message)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit as u64) {
        return Err(too_large());
    }
    let late = |_| ApiError::refused(408, "body_timeout", format!("the body did not come within {BODY_TIMEOUT:?}"));
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await.map_err(late)?;
    read.map_err(|error| match is_over_limit(&error) {
        true => too_large(),
        false => ApiError::refused(400, "body_broken", format!("the body could not be read: {error}")),
    })
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Reads a body as `T` and checks it, off the async runtime if it is large.
///
/// # Errors
/// As [`read`], and as the JSON or `check` says.
pub(super) async fn read_json<T, U>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    check: fn(T) -> Result<U, ApiError>,
) -> Result<U, ApiError>
where
    T: serde::de::DeserializeOwned + 'static,
    U: Send + 'static,
{
    let bytes = read(headers, body, limit).await?;
    let parse = move || from_json::<T>(&bytes).and_then(check);
    if announced_large(headers) {
        let parsed = tokio::task::spawn_blocking(parse).await;
        return parsed.map_err(|error| ApiError::server(500, "internal", error.to_string()))?;
    }
    parse()
}

fn announced_large(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_none_or(|length| length > INLINE_BYTES)
}
