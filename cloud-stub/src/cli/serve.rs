use super::ConfigFile;
use crate::config::{LogSettings, Settings};
use crate::serve;
use clap::Args;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Run the gateway until SIGTERM or Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Signals:
  SIGTERM, SIGINT  refuse new turns, finish those under way (at most drain_ms), exit
  SIGHUP           re-read the zoo, the tokens and the levels of routing; the rest needs a restart

Example:
  tether-cloud serve --config gateway.toml")]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,
}

impl Serve {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let settings = Settings::load(&self.file.config)?;
        tether_models::threads::apply(settings.threads())?;
        start_log(&settings.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve::run(settings, &self.file.config))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Only for a person, and only if that person wants them.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn start_log(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.level)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours());
    if settings.json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}
