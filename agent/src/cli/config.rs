//! `tether config show|check`: what the daemon would run with.

use super::Global;
use super::output::{self, DIM, WARN};
use crate::config::{self, Loaded, Origin};
use crate::daemon::Live;
use clap::Subcommand;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use toml::Value;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  tether config check && systemctl --user reload tether\n  tether config show --config ./try.toml\n  TETHER_MODEL_THREADS=2 tether config show"
)]
pub(crate) enum ConfigCommand {
    /// Print every key with its value and where it comes from
    Show,
    /// Read the settings and say what is wrong with them; exit code 1 if something is
    Check,
}

pub(crate) fn run(command: &ConfigCommand, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = config::load(global.config.as_deref())?;
    match command {
        ConfigCommand::Show => show(&loaded, global.json)?,
        ConfigCommand::Check => {
            // Not one of the keys is wrong; a file that they name may be.
            let warning = Live::check(&loaded.settings)?;
            let warnings: Vec<&String> = loaded.warnings.iter().chain(&warning).collect();
            check(&loaded, &warnings, global.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One key as `show` prints it.
#[derive(Debug, PartialEq)]
struct Row {
    key: String,
    /// Absent: not set, and there is no default either.
    value: Option<Value>,
    origin: String,
}

fn rows(loaded: &Loaded) -> Vec<Row> {
    let defaults = config::defaults();
    let mut keys = config::known_keys();
    // The keys of the clouds that are not used would only be noise; top-level keys come first, as TOML wants it.
    keys.retain(|key| !key.starts_with("cloud.") || key == "cloud.kind" || loaded.written.contains_key(key));
    keys.sort_by_key(|key| key.contains('.'));
    let row = |key: String| match loaded.written.get(&key) {
        Some((value, origin)) => Row { value: Some(value.clone()), origin: origin_name(origin), key },
        None => match defaults.get(&key) {
            Some(value) => Row { value: Some(value.clone()), origin: "default".into(), key },
            None => Row { value: None, origin: format!("not set; {}", config::env_name(&key)), key },
        },
    };
    keys.into_iter().map(row).collect()
}

fn origin_name(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".into(),
        Origin::File(path) => path.display().to_string(),
        Origin::Environment(name) => name.clone(),
    }
}

/// The text is a settings file itself: what is printed can be pasted.
fn show(loaded: &Loaded, as_json: bool) -> anyhow::Result<()> {
    let rows = rows(loaded);
    if as_json {
        let object = |row: &Row| json!({"key": row.key, "value": row.value, "origin": row.origin});
        return output::json(&rows.iter().map(object).collect::<Vec<_>>());
    }
    let mut out = output::stdout();
    let mut section = "";
    for row in &rows {
        let (own, field) = row.key.split_once('.').unwrap_or(("", &row.key));
        if own != section {
            writeln!(out, "\n[{own}]")?;
            section = own;
        }
        match &row.value {
            Some(value) => writeln!(out, "{field} = {value}  {DIM}# {}{DIM:#}", row.origin)?,
            None => writeln!(out, "{DIM}# {field}: {}{DIM:#}", row.origin)?,
        }
    }
    Ok(out.flush()?)
}

fn check(loaded: &Loaded, warnings: &[&String], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(&json!({"file": loaded.settings.file, "warnings": warnings}));
    }
    let mut out = output::stdout();
    for warning in warnings {
        writeln!(out, "{WARN}warning:{WARN:#} {warning}")?;
    }
    match &loaded.settings.file {
        Some(path) => writeln!(out, "{} is good", path.display())?,
        None => writeln!(out, "no settings file: the defaults and the environment are good")?,
    }
    Ok(out.flush()?)
}
