//! The running gateway: both listeners, the zoo, and the signals.

use crate::config::{Settings, Token};
use crate::gateway::Gateway;
use crate::http;
use crate::routing::Routing;
use crate::server::{Server, ServerConfig, ServerLimits, TokenClient};
use crate::zoo::choose::{Chooser, FirstAble};
use anyhow::Context;
use sd_notify::NotifyState;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serves until SIGTERM or SIGINT; SIGHUP re-reads the zoo and the tokens from `path`.
///
/// # Errors
/// What keeps the gateway from starting: an address, a certificate, a model.
pub async fn run(settings: Settings, path: &Path) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let server = Arc::new(Server::bind(server_config(&settings))?);
    let metrics = match settings.metrics {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("metrics on {address}"))?),
        None => None,
    };
    let gateway = Arc::new(load(settings.clone()).await?);
    let signals =
        tokio::spawn(obey_signals(Arc::clone(&gateway), Arc::clone(&server), path.to_owned(), shutdown.clone()));
    let pages_end = CancellationToken::new();
    let pages = metrics.map(|listener| tokio::spawn(http::run(listener, Arc::clone(&gateway), pages_end.clone())));
    tracing::info!(listen = %server.local_addr(), metrics = ?settings.metrics, "ready");
    notify(NotifyState::Ready);
    server.run(gateway, shutdown).await;
    // The pages stay up while turns are drained, so that an operator can watch.
    pages_end.cancel();
    if let Some(pages) = pages {
        pages.await??;
    }
    signals.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Loads the models off the async threads.
async fn load(settings: Settings) -> anyhow::Result<Gateway> {
    let build = move || {
        let chooser: Box<dyn Chooser> = match Routing::open(&settings)? {
            Some(routing) => Box::new(routing),
            None => Box::new(FirstAble),
        };
        Gateway::new(&settings, chooser)
    };
    tokio::task::spawn_blocking(build).await?
}

fn server_config(settings: &Settings) -> ServerConfig {
    ServerConfig {
        listen: settings.listen,
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        client_ca: settings.client_ca.clone(),
        tokens: token_clients(&settings.tokens),
        limits: ServerLimits { drain_timeout: settings.drain, ..ServerLimits::default() },
    }
}

fn token_clients(tokens: &[Token]) -> Vec<TokenClient> {
    tokens.iter().map(|token| TokenClient { name: token.name.clone(), token_sha256: token.sha256 }).collect()
}

async fn obey_signals(
    gateway: Arc<Gateway>,
    server: Arc<Server>,
    path: PathBuf,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match reload(&gateway, &server, &path).await {
                Ok(()) => tracing::info!("zoo and tokens were read again"),
                Err(problem) => tracing::error!(problem = format!("{problem:#}"), "the old settings stay"),
            },
        }
    }
    tracing::info!("draining: new turns are refused, those under way may end");
    notify(NotifyState::Stopping);
    gateway.set_draining();
    shutdown.cancel();
    Ok(())
}

async fn reload(gateway: &Arc<Gateway>, server: &Server, path: &Path) -> anyhow::Result<()> {
    let settings = Settings::load(path)?;
    server.set_tokens(token_clients(&settings.tokens));
    let gateway = Arc::clone(gateway);
    tokio::task::spawn_blocking(move || gateway.reload(&settings)).await?
}

/// Tells systemd, if it listens.
fn notify(state: NotifyState<'_>) {
    if let Err(problem) = sd_notify::notify(&[state]) {
        tracing::debug!(%problem, "systemd was not told");
    }
}
