//! `tether doctor`: what works, what does not, and the fix; with or without a daemon.

mod cloud;
mod device;
mod files;
mod service;

use super::Global;
use super::output::{self, BAD, DIM, GOOD, WARN};
use crate::config::{self, Loaded};
use anstyle::Style;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tether doctor                               every check, with the fix where one is needed
  tether doctor --json | jq '.checks[] | select(.level != \"ok\")'

Exit codes: 0 nothing failed (warnings may stand), 1 something failed.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// Works, but not as somebody may expect.
    Warn,
    Fail,
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub name: &'static str,
    pub level: Level,
    pub detail: String,
    /// What to do about it; never absent from a failure.
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into(), fix: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Fail, detail: detail.into(), fix: Some(fix.into()) }
    }
}

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let checks = diagnose(global).await?;
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    if global.json {
        output::json(&json!({"ok": !failed, "checks": checks}))?;
    } else {
        print(&checks)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn diagnose(global: &Global) -> anyhow::Result<Vec<Check>> {
    let loaded = config::load(global.config.as_deref());
    let mut checks = files::config(&loaded);
    let (mut service, status) = service::checks(&global.client()?).await;
    checks.append(&mut service);
    if let Ok(Loaded { settings, .. }) = &loaded {
        checks.push(files::model(settings));
        checks.push(files::policy(settings));
        checks.extend(files::clip(settings));
        checks.extend(files::disk(settings));
        checks.extend(files::secrets(settings));
        checks.push(cloud::check(settings, status.as_ref()).await);
    }
    let root = loaded.as_ref().map_or(Path::new("/"), |loaded| loaded.settings.power.root.as_path());
    checks.push(device::battery(root));
    Ok(checks)
}

fn print(checks: &[Check]) -> std::io::Result<()> {
    let mut out = output::stdout();
    for check in checks {
        let (word, style): (&str, Style) = match check.level {
            Level::Ok => ("ok", GOOD),
            Level::Warn => ("warn", WARN),
            Level::Fail => ("fail", BAD),
        };
        writeln!(out, "{style}{word:<5}{style:#} {:<8} {}", check.name, check.detail)?;
        if let Some(fix) = &check.fix {
            writeln!(out, "               {DIM}fix:{DIM:#} {fix}")?;
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    writeln!(out, "{} ok, {} warnings, {} failed", count(Level::Ok), count(Level::Warn), count(Level::Fail))?;
    out.flush()
}
