//! From the form to the settings.

use super::form::{Form, LogFormat, TokenForm};
use super::{BackendSettings, DEFAULT_LISTEN, DEFAULT_METRICS, LogSettings, MAX_ZOO, Settings, Token, routing, zoo};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tether_protocol::limits::{MAX_DEADLINE_MS, MAX_NAME_BYTES};

/// The key, and what is wrong with it.
pub(super) type Wrong = (String, String);

/// An answer of 300 tokens from a small model takes about as long.
const DEFAULT_DRAIN_MS: u64 = 20_000;
const MAX_DRAIN_MS: u64 = 600_000;

pub(super) fn resolve(form: Form, folder: &Path) -> Result<Settings, Wrong> {
    let zoo = backends(form.zoo, folder)?;
    let metrics = match form.metrics.as_deref() {
        Some("none") => None,
        given => Some(address("metrics", given.unwrap_or(DEFAULT_METRICS))?),
    };
    Ok(Settings {
        listen: address("listen", form.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
        cert: folder.join(form.cert),
        key: folder.join(form.key),
        client_ca: form.client_ca.map(|path| folder.join(path)),
        tokens: tokens(form.tokens)?,
        metrics,
        drain: duration("drain_ms", form.drain_ms.unwrap_or(DEFAULT_DRAIN_MS), 0..=MAX_DRAIN_MS)?,
        turn_limit: duration("turn_limit_ms", form.turn_limit_ms.unwrap_or(MAX_DEADLINE_MS), 1..=MAX_DEADLINE_MS)?,
        log: LogSettings {
            level: form.log.level.unwrap_or_else(|| "info".to_owned()),
            json: form.log.format == LogFormat::Json,
        },
        routing: routing::resolve(form.routing, form.tenants, form.state, &zoo, folder)?,
        zoo,
    })
}

fn backends(forms: Vec<super::form::BackendForm>, folder: &Path) -> Result<Vec<BackendSettings>, Wrong> {
    if forms.is_empty() {
        return Ok(vec![zoo::embedded_default()]);
    }
    if forms.len() > MAX_ZOO {
        return Err(("zoo".into(), format!("{} backends are given, at most {MAX_ZOO} are allowed", forms.len())));
    }
    let mut backends: Vec<BackendSettings> = Vec::new();
    for form in forms {
        let backend = zoo::backend(form, folder)?;
        if backends.iter().any(|other| other.name == backend.name) {
            return Err((format!("zoo.{}", backend.name), "two backends have this name".into()));
        }
        backends.push(backend);
    }
    Ok(backends)
}

fn tokens(forms: Vec<TokenForm>) -> Result<Vec<Token>, Wrong> {
    let mut tokens: Vec<Token> = Vec::new();
    for TokenForm { name, sha256 } in forms {
        let name = self::name("tokens.name", name)?;
        if tokens.iter().any(|other| other.name == name) {
            return Err((format!("tokens.{name}"), "two tokens have this name".into()));
        }
        let sha256 = hash(&sha256).ok_or_else(|| {
            (format!("tokens.{name}.sha256"), "must be the 64 hex digits that `tether-cloud init` prints".to_owned())
        })?;
        tokens.push(Token { name, sha256 });
    }
    Ok(tokens)
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

pub(super) fn name(key: &str, given: String) -> Result<String, Wrong> {
    let legal = !given.is_empty() && given.len() <= MAX_NAME_BYTES && given.bytes().all(|byte| byte.is_ascii_graphic());
    let problem = || format!("{given:?} must be 1 to {MAX_NAME_BYTES} visible ASCII characters");
    if legal { Ok(given) } else { Err((key.to_owned(), problem())) }
}

fn address(key: &str, given: &str) -> Result<SocketAddr, Wrong> {
    given
        .parse()
        .map_err(|_| (key.to_owned(), format!("{given:?} must be IP:PORT, such as \"[::]:4433\" or \"0.0.0.0:4433\"")))
}

pub(super) fn duration(key: &str, ms: u64, range: std::ops::RangeInclusive<u64>) -> Result<Duration, Wrong> {
    within(key, ms, range).map(Duration::from_millis)
}

pub(super) fn within<N: PartialOrd + std::fmt::Display + Copy>(
    key: &str,
    given: N,
    range: std::ops::RangeInclusive<N>,
) -> Result<N, Wrong> {
    let problem = || format!("{given} must be from {} to {}", range.start(), range.end());
    if range.contains(&given) { Ok(given) } else { Err((key.to_owned(), problem())) }
}
