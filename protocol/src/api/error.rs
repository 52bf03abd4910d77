//! Errors in OpenAI's shape, and JSON whose errors name line, column and field.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An error as it goes over the socket: a status code and `{"error":{"message","type","param","code"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .object.message)]
pub struct ApiError {
    pub status: u16,
    pub object: ErrorObject,
    /// Sent as `retry-after`, in whole seconds, with 429 and 503.
    pub retry_after_s: Option<u32>,
}

/// The body of an error response, and the data of an error event in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorObject,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault, such as `messages[2].role`.
    pub param: Option<String>,
    /// A word for programs, such as `unsupported_parameter`.
    pub code: Option<String>,
}

impl ApiError {
    /// 400: the request is wrong, and this field is why.
    pub fn bad_request(param: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", code, message).with_param(param)
    }

    /// 400: a legal OpenAI parameter that this daemon does not honour.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request(param, "unsupported_parameter", message)
    }

    /// 404, 405, 409, 413: a request that is wrong as a whole.
    pub fn refused(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// 429 or 503: the same request may succeed in `retry_after_s` seconds.
    pub fn busy(status: u16, code: &str, message: impl Into<String>, retry_after_s: u32) -> Self {
        let kind = if status == 429 { "rate_limit_error" } else { "server_error" };
        Self { retry_after_s: Some(retry_after_s), ..Self::new(status, kind, code, message) }
    }

    /// 5xx: not the client's fault.
    pub fn server(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self::new(status, "server_error", code, message)
    }

    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.object.param = Some(param.into());
        self
    }

    pub fn code(&self) -> &str {
        self.object.code.as_deref().unwrap_or_default()
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.object.clone() }
    }

    fn new(status: u16, kind: &str, code: &str, message: impl Into<String>) -> Self {
        let object =
            ErrorObject { message: message.into(), kind: kind.into(), param: None, code: Some(code.to_owned()) };
        Self { status, object, retry_after_s: None }
    }
}

/// Reads a JSON body.
///
/// # Errors
/// 400 `invalid_json` for what is not JSON, with line and column; 400 `invalid_value` for a field of the wrong type
/// or name, with its path as `param`.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let json = error.into_inner();
        if json.is_syntax() || json.is_eof() {
            return ApiError::refused(400, "invalid_json", format!("the body is not valid JSON: {json}"));
        }
        let refused = ApiError::refused(400, "invalid_value", json.to_string());
        if path == "." { refused } else { refused.with_param(path) }
    })?;
    match deserializer.end() {
        Ok(()) => Ok(value),
        Err(json) => Err(ApiError::refused(400, "invalid_json", format!("the body is not valid JSON: {json}"))),
    }
}
