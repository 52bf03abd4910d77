//! `tether serve`: the daemon in the foreground, under systemd or a terminal alike.

use super::Global;
use crate::client::{Client, address};
use crate::config::{self, Settings};
use crate::daemon::Daemon;
use crate::socket::Socket;
use crate::{logging, notify};
use clap::Args;
use logging::LogHandle;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  tether serve                                    this user's socket, the default model, no cloud
  tether serve --config robot.toml
  tether serve --socket /tmp/try.sock &           for a trial; then: tether --socket /tmp/try.sock chat
  TETHER_MODEL_PATH=my.gguf tether serve          any key of the settings from the environment

Signals: TERM and INT let running answers end, then stop (a second one stops at once); HUP reads the settings again.
Under systemd the socket may be inherited (tether.socket), readiness is notified and the watchdog fed.
Exit codes: 0 stopped, 1 failed, 2 wrong usage.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {}

/// Takes what a process has once (inherited sockets, the log) before any thread exists.
pub(crate) fn run(_: &ServeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let source = Source { config: global.config.clone(), socket: global.explicit_socket()? };
    let (settings, warnings) = source.load()?;
    tether_models::threads::apply(settings.model.as_ref().and_then(|model| model.load.threads))?;
    let inherited = notify::inherited_listener()?;
    let log = logging::start(&settings.log)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(inherited, settings, source, log));
    // Not waited for: a blocking call that hangs (a disk, a name server) must not hold up the end.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// Where the settings come from; a reload reads the same places again.
struct Source {
    config: Option<PathBuf>,
    /// `--socket` or `TETHER_HOST`; wins over the settings.
    socket: Option<PathBuf>,
}

impl Source {
    fn load(&self) -> anyhow::Result<(Settings, Vec<String>)> {
        let mut loaded = config::load(self.config.as_deref())?;
        if let Some(path) = &self.socket {
            loaded.settings.socket.path.clone_from(path);
        }
        Ok((loaded.settings, loaded.warnings))
    }
}

impl Global {
    fn explicit_socket(&self) -> anyhow::Result<Option<PathBuf>> {
        let around = address::Surroundings::of_process();
        let explicit = self.socket.is_some() || around.host.is_some();
        Ok(explicit.then(|| address::choose(self.socket.as_deref(), &around)).transpose()?)
    }
}

async fn serve(
    inherited: Option<UnixListener>,
    settings: Settings,
    source: Source,
    log: LogHandle,
) -> anyhow::Result<()> {
    // Before the model is loaded: a second daemon is refused at once, and early clients wait in the backlog.
    let mut signals = Signals::new()?;
    let socket = match inherited {
        Some(listener) => Socket::inherited(listener),
        None => Socket::bind(&settings.socket)?,
    };
    let shutdown = CancellationToken::new();
    notify::status("loading the model");
    let starting = Daemon::start(settings);
    let daemon = tokio::select! {
        daemon = starting => daemon?,
        _ = signals.stop() => return Ok(()),
    };
    let place = socket.path().map_or_else(|| "an unnamed socket".into(), |path| path.display().to_string());
    notify::ready(&format!("answers on {place}"));
    tracing::info!(socket = %place, pid = std::process::id(), "ready");
    let obeying = tokio::spawn(signals.obey(daemon.clone(), source, log, shutdown.clone()));
    if let Some(path) = socket.path() {
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(notify::feed_watchdog(Client::new(path))));
    }
    let served = daemon.serve(&socket, shutdown).await;
    obeying.abort();
    tracing::info!("stopped");
    Ok(served?)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn obey(mut self, daemon: Arc<Daemon>, source: Source, log: LogHandle, shutdown: CancellationToken) {
        let why = loop {
            tokio::select! {
                _ = self.terminate.recv() => break "SIGTERM",
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.hangup.recv() => reload(&daemon, &source, &log),
            }
        };
        tracing::info!(why, "stopping: running answers may end");
        notify::stopping("letting running answers end");
        shutdown.cancel();
        let why = self.stop().await;
        tracing::warn!(why, "stopped at once");
        // The kernel frees the lock, the next start replaces the socket, and the ledger knows unfinished turns.
        std::process::exit(1);
    }
}

/// New settings take effect for turns that start from now on; wrong ones change nothing.
fn reload(daemon: &Daemon, source: &Source, log: &LogHandle) {
    notify::reloading();
    let status = match try_reload(daemon, source, log) {
        Ok(status) => {
            tracing::info!("{status}");
            status
        }
        Err(error) => {
            let error = super::told(&error);
            tracing::error!("the settings were not read again, the old ones stay: {error}");
            format!("reload failed, the old settings stay: {error}")
        }
    };
    notify::ready(&status);
}

fn try_reload(daemon: &Daemon, source: &Source, log: &LogHandle) -> anyhow::Result<String> {
    let (settings, warnings) = source.load()?;
    let level = settings.log.clone();
    let reloaded = daemon.reload(settings)?;
    log.set_level(&level)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let names = |keys: &[&str]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
    let mut status = format!("settings read again, changed: {}", names(&reloaded.applied));
    if !reloaded.needs_restart.is_empty() {
        status += &format!("; only a restart takes up: {}", names(&reloaded.needs_restart));
    }
    Ok(status)
}
