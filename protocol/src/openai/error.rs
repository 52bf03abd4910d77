//! Errors of OpenAI-compatible servers, in the shapes that are met in practice.

use crate::wire::{ErrorCode, WireError};
use serde_json::Value;

/// Bytes of a server's message that are repeated in ours.
const MAX_MESSAGE_CHARS: usize = 300;

/// An answer with a status that is not 2xx. `retry_after` is the header's value; only seconds are understood, a date
/// is treated as absent.
pub fn status_error(status: u16, retry_after: Option<&str>, body: &[u8]) -> WireError {
    let said = serde_json::from_slice::<Value>(body).ok().and_then(|value| read_error(&value));
    let code = said.as_ref().and_then(|said| said.code.as_deref());
    let text = match &said {
        Some(said) => said.message.clone(),
        None => shorten(String::from_utf8_lossy(&body[..body.len().min(4 * MAX_MESSAGE_CHARS)]).trim()),
    };
    let message =
        if text.is_empty() { format!("HTTP status {status}") } else { format!("HTTP status {status}: {text}") };
    WireError { code: status_code(status, code), message, retry_after_ms: retry_after.and_then(seconds_as_ms) }
}

fn status_code(status: u16, code: Option<&str>) -> ErrorCode {
    match (status, code) {
        (_, Some(CONTEXT_CODE)) => ErrorCode::ContextFull,
        (401 | 403, _) => ErrorCode::Unauthorized,
        (404, _) => ErrorCode::UnknownModel,
        (429 | 503, _) => ErrorCode::Overloaded,
        (400..=499, _) => ErrorCode::BadRequest,
        _ => ErrorCode::BackendFailed,
    }
}

const CONTEXT_CODE: &str = "context_length_exceeded";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) message: String,
    pub(super) code: Option<String>,
}

impl ServerError {
    /// As it arrives in the middle of a stream, where there is no status any more.
    pub(super) fn into_wire(self) -> WireError {
        let status = self.code.as_deref().and_then(|code| code.parse().ok()).unwrap_or(500);
        let code = match self.code.as_deref() {
            Some("rate_limit_exceeded" | "server_overloaded") => ErrorCode::Overloaded,
            code => status_code(status, code),
        };
        WireError { code, message: format!("the server said: {}", self.message), retry_after_ms: None }
    }
}

/// `{"error":{..}}` (OpenAI), `{"error":"..."}` (some proxies), `{"object":"error",..}` (older vLLM), `{"detail":..}`.
pub(super) fn read_error(value: &Value) -> Option<ServerError> {
    let inner = match value {
        Value::Object(fields) if fields.get("error").is_some_and(|error| !error.is_null()) => &value["error"],
        Value::Object(fields) if fields.get("object").is_some_and(|kind| kind == "error") => value,
        Value::Object(fields) if fields.contains_key("detail") => &value["detail"],
        _ => return None,
    };
    let message = match inner {
        Value::String(text) => text.clone(),
        Value::Object(fields) => match fields.get("message") {
            Some(Value::String(text)) => text.clone(),
            _ => inner.to_string(),
        },
        other => other.to_string(),
    };
    let code = match inner.get("code") {
        Some(Value::String(code)) => Some(code.clone()),
        Some(Value::Number(code)) => Some(code.to_string()),
        _ => None,
    };
    Some(ServerError { message: shorten(&message), code })
}

fn shorten(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let short: String = text.chars().take(MAX_MESSAGE_CHARS).map(clean).collect();
    if text.chars().nth(MAX_MESSAGE_CHARS).is_some() { short + "..." } else { short }
}

fn seconds_as_ms(header: &str) -> Option<u32> {
    let seconds: f64 = header.trim().parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0)?;
    Some((seconds * 1_000.0).ceil().min(f64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_codes() {
        let code = |status| status_error(status, None, b"").code;
        assert_eq!(code(400), ErrorCode::BadRequest);
        assert_eq!(code(401), ErrorCode::Unauthorized);
        assert_eq!(code(404), ErrorCode::UnknownModel);
        assert_eq!(code(413), ErrorCode::BadRequest);
        assert_eq!(code(429), ErrorCode::Overloaded);
        assert_eq!(code(500), ErrorCode::BackendFailed);
        assert_eq!(code(503), ErrorCode::Overloaded);
        let full = br#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
        assert_eq!(status_error(400, None, full).code, ErrorCode::ContextFull);
    }

    #[test]
    fn the_servers_words_are_kept_in_every_shape_and_bounded() {
        let said = |body: &str| status_error(500, None, body.as_bytes()).message;
        assert_eq!(said(r#"{"error":{"message":"a"}}"#), "HTTP status 500: a");
        assert_eq!(said(r#"{"error":"b"}"#), "HTTP status 500: b");
        assert_eq!(said(r#"{"object":"error","message":"c"}"#), "HTTP status 500: c");
        assert_eq!(said(r#"{"detail":"d"}"#), "HTTP status 500: d");
        assert_eq!(said("<h1>Bad\ngateway</h1>"), "HTTP status 500: <h1>Bad gateway</h1>");
        assert_eq!(said(""), "HTTP status 500");
        assert!(said(&"é".repeat(100_000)).chars().count() < 400);
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let after = |header| status_error(429, Some(header), b"").retry_after_ms;
        assert_eq!(after("2"), Some(2_000));
        assert_eq!(after("0.25"), Some(250));
        assert_eq!(after("1e99"), Some(u32::MAX));
        for odd in ["-1", "NaN", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
            assert_eq!(after(odd), None, "{odd}");
        }
    }
}
