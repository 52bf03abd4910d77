//! Talking to the service manager: readiness, reloads and stopping told, the watchdog fed, the socket inherited.
//! Without a service manager (`NOTIFY_SOCKET`, `LISTEN_FDS` unset) all of this does nothing.

use crate::client::Client;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// A round trip that takes longer than this share of the watchdog's period does not count as alive.
const PATIENCE: f64 = 0.5;

#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("the service manager passed {0} sockets, tether takes one: keep one ListenStream= in tether.socket")]
    TooMany(usize),
    #[error(
        "the socket passed by the service manager is unusable ({0}): ListenStream= in tether.socket must be a path"
    )]
    Unusable(std::io::Error),
}

/// The listening socket that systemd opened for us (`LISTEN_FDS`), if it did. A child process's environment is not
/// mistaken for ours: `LISTEN_PID` is checked.
pub fn inherited_listener() -> Result<Option<UnixListener>, InheritError> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_unix_listener(0).map_err(InheritError::Unusable),
        more => Err(InheritError::TooMany(more)),
    }
}

pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it. The time stamp is what newer systemd (`Type=notify-reload`) asks for.
pub fn reloading() {
    let stamp = NotifyState::monotonic_usec_now().ok();
    tell(&[Some(NotifyState::Reloading), stamp].into_iter().flatten().collect::<Vec<_>>());
}

pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The line that `systemctl status` shows.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Feeds the watchdog for as long as it is polled, and only after a real round trip: a request through the daemon's
/// own socket to `/healthz`, which in turn asks the ledger's thread and the model's. A daemon that hangs anywhere on
/// that way is restarted by the service manager. Returns at once if no watchdog is set.
pub async fn feed_watchdog(client: Client) {
    if let Some(period) = sd_notify::watchdog_enabled() {
        feed(period, &client, || tell(&[NotifyState::Watchdog])).await;
    }
}

async fn feed(period: Duration, client: &Client, mut fed: impl FnMut()) {
    let patience = period.mul_f64(PATIENCE);
    let mut tick = tokio::time::interval((period / 3).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match tokio::time::timeout(patience, client.healthy()).await {
            Ok(Ok(())) => fed(),
            Ok(Err(error)) => tracing::error!(%error, "not healthy; the watchdog is not fed"),
            Err(_) => tracing::error!(?patience, "no answer from our own socket; the watchdog is not fed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Feeds from a daemon whose health answers in this order (then well), until it was asked four times; how often
    /// the watchdog was fed.
    async fn fed_by(answers: &'static [StatusCode]) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("t.sock");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let health = move || async move {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            answers.get(number).copied().unwrap_or(StatusCode::OK)
        };
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/healthz", get(health))).await });
        let (client, mut fed) = (Client::new(&socket), 0);
        let four = async {
            while asked.load(Ordering::SeqCst) < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = feed(Duration::from_millis(30), &client, || fed += 1) => {}
            () = four => {}
        }
        fed
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_by_health_only() {
        const BAD: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(fed_by(&[BAD, BAD, BAD, BAD]).await, 0);
        assert!(fed_by(&[]).await >= 3);
    }
}
