//! Whether the cloud can be reached: as the running daemon sees it, or by a connection of our own.

use super::Check;
use crate::cli::status::link_line;
use crate::cloud::openai::OpenAiCloud;
use crate::cloud::quic::QuicCloud;
use crate::cloud::{Cloud, CloudError};
use crate::config::{CloudConfig, Settings};
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tether_protocol::api::Status;
use tether_protocol::context::LinkState;

/// Longer than any sensible connect timeout, short enough for a person who waits.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn check(settings: &Settings, status: Option<&Status>) -> Check {
    if settings.cloud == CloudConfig::None {
        return Check::ok("cloud", "not configured: every turn is answered on this device");
    }
    if settings.local_only || status.is_some_and(|status| status.local_only) {
        return Check::ok("cloud", "configured, and never used: local_only is set");
    }
    match status.and_then(as_seen_by_the_daemon) {
        Some(check) => check,
        None => reach(&settings.cloud).await,
    }
}

/// Nothing if the daemon has not tried the cloud yet.
fn as_seen_by_the_daemon(status: &Status) -> Option<Check> {
    let cloud = &status.cloud;
    let address = cloud.address.as_deref().unwrap_or(&cloud.kind);
    if let Some(problem) = &cloud.problem {
        let fix = cloud.fix.as_deref().unwrap_or("correct [cloud] in the settings");
        return Some(Check::fail("cloud", format!("{problem}; turns are answered on the device"), fix));
    }
    let Reading::Known { value, .. } = &cloud.link else { return None };
    let detail = format!("{address}: {}", link_line(&cloud.link));
    Some(match value.state {
        LinkState::Up => Check::ok("cloud", detail),
        LinkState::Degraded => Check::warn("cloud", detail, "a slow or lossy link; turns may stay on the device"),
        LinkState::Down => {
            Check::fail("cloud", detail, "turns are answered on the device; see the network and gateway")
        }
    })
}

async fn reach(config: &CloudConfig) -> Check {
    let cloud = match config {
        CloudConfig::None => return Check::ok("cloud", "not configured"),
        CloudConfig::Quic(config) => QuicCloud::new(config.clone()).map(Cloud::Quic),
        CloudConfig::OpenAi(config) => OpenAiCloud::new(config.clone()).map(Cloud::OpenAi),
    };
    let cloud = match cloud {
        Ok(cloud) => cloud,
        Err(error) => return Check::fail("cloud", error.to_string(), "correct [cloud] in the settings"),
    };
    let (address, start) = (cloud.address(), Instant::now());
    match tokio::time::timeout(PATIENCE, cloud.reach()).await {
        Ok(Ok(())) => {
            let answered_ms = start.elapsed().as_secs_f64() * 1e3;
            // A link too slow for it is told by what is known then.
            let _ = tokio::time::timeout(PATIENCE, cloud.measure()).await;
            Check::ok("cloud", format!("{address} answers ({answered_ms:.0} ms); link {}", link_line(&cloud.link())))
        }
        Ok(Err(error)) => Check::fail("cloud", error.to_string(), error.fix()),
        Err(_) => {
            let late = CloudError::Unreachable { address, problem: format!("no answer within {PATIENCE:?}") };
            Check::fail("cloud", late.to_string(), late.fix())
        }
    }
}
