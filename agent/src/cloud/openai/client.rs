//! The HTTP client: settings in, errors that name the thing and the fix out.

use super::OpenAiConfig;
use super::events::failed;
use crate::cloud::CloudError;
use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, Url};
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;
use tether_protocol::openai;
use tether_protocol::wire::{ErrorCode, WireError};

/// What is read of an error's body.
pub(super) const MAX_ERROR_BODY_BYTES: usize = 64 * 1_024;
/// Shorter than most servers keep an idle connection, so that a turn seldom meets a closed one.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

pub(super) fn check(config: &OpenAiConfig) -> Result<(), CloudError> {
    if config.model.is_empty() {
        return Err(problem("cloud.model is empty"));
    }
    for (name, price) in [
        ("usd_per_million_prompt_tokens", config.usd_per_million_prompt_tokens),
        ("usd_per_million_completion_tokens", config.usd_per_million_completion_tokens),
    ] {
        if !price.is_finite() || price < 0.0 {
            return Err(problem(format!("cloud.{name} is {price}: it must be a number and at least 0")));
        }
    }
    if !(1..=60_000).contains(&config.connect_timeout_ms) {
        return Err(problem(format!(
            "cloud.connect_timeout_ms is {}: it must be 1 to 60000",
            config.connect_timeout_ms
        )));
    }
    Ok(())
}

pub(super) fn chat_url(base_url: &str) -> Result<Url, CloudError> {
    let url: Url = base_url.parse().map_err(|error| problem(format!("cloud.base_url is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(problem("cloud.base_url must be such as https://host/v1"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(problem("cloud.base_url must hold no user, password, query or fragment: use api_key_file"));
    }
    let text = format!("{}/chat/completions", base_url.trim_end_matches('/'));
    text.parse().map_err(|error| problem(format!("cloud.base_url: {error}")))
}

pub(super) fn build(config: &OpenAiConfig, url: &Url) -> Result<Client, CloudError> {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("tether/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .pool_idle_timeout(IDLE_CONNECTION)
        // A redirect would carry pictures to a server that nobody configured.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if let Some(path) = &config.ca {
        let shown = path.display();
        let pem = std::fs::read(path).map_err(|error| problem(format!("cloud.ca {shown}: {error}")))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| problem(format!("cloud.ca {shown}: {}", root_cause(&error))))?;
        if certificates.is_empty() {
            return Err(problem(format!("cloud.ca {shown} holds no certificate in PEM form")));
        }
        builder = builder.tls_certs_only(certificates);
    } else if url.scheme() == "http" {
        // Nothing to trust, so a device without system certificates works too.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        problem(format!("no HTTPS client: {} (install ca-certificates, or set cloud.ca)", root_cause(&error)))
    })
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn unreachable(base_url: &str, error: &reqwest::Error) -> CloudError {
    let address = base_url.to_owned();
    match tls_error(error) {
        Some(tls) => CloudError::Untrusted { address, problem: tls.to_string() },
        None if error.is_timeout() => CloudError::Unreachable { address, problem: "no answer to connecting".into() },
        None => CloudError::Unreachable { address, problem: root_cause(error) },
    }
}

pub(super) fn deadline_error() -> WireError {
    WireError::new(ErrorCode::DeadlineExceeded, "the deadline passed before the server had answered")
}

pub(super) fn status_error(response: &Response, body: &[u8]) -> WireError {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status();
    if let (true, Some(place)) = (status.is_redirection(), header(LOCATION)) {
        let place: String = place.chars().take(200).collect();
        return failed(format!("the server redirects to {place}: set cloud.base_url to where it is meant to be"));
    }
    openai::status_error(status.as_u16(), header(RETRY_AFTER), body)
}

/// A captive portal or a web page in place of the API.
pub(super) fn wrong_content(response: &Response) -> Option<WireError> {
    match content_type(response) {
        "" | "text/event-stream" | "application/json" => None,
        other => {
            let other: String = other.chars().take(80).collect();
            Some(failed(format!("the server answers with {other}, not with an event stream: is cloud.base_url right?")))
        }
    }
}

/// Without its parameters.
pub(super) fn content_type(response: &Response) -> &str {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The innermost reason: `Connection refused`, rather than `error sending request`.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An I/O error hides what it wraps from `source`, and may wrap another one.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn problem(text: impl Into<String>) -> CloudError {
    CloudError::Config(text.into())
}
