//! Connections: accepted up to a limit, served by hyper, ended in order.

use super::Daemon;
use crate::http::{Peer, router};
use crate::socket::Socket;
use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1_024;
/// A local client needs no longer to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Running answers may end within this after a stop; systemd's own patience is 90 s.
const DRAIN: Duration = Duration::from_secs(20);
/// After an error of `accept`, such as no more file descriptors: not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the socket cannot be served: {0}")]
    Listener(#[from] io::Error),
}

impl Daemon {
    /// Serves until `shutdown`, then takes no new connections, lets the running answers end for up to 20 s, and ends
    /// the local model's thread.
    ///
    /// # Errors
    /// The listener is unusable.
    pub async fn serve(self: &Arc<Self>, socket: &Socket, shutdown: CancellationToken) -> Result<(), ServeError> {
        let listener = socket.to_tokio()?;
        let router = router(self.clone());
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("this semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (router, shutdown) = (router.clone(), shutdown.clone());
            connections.spawn(async move {
                connection(stream, router, shutdown).await;
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(left = connections.len(), "answers were still running after {} s", DRAIN.as_secs());
        }
        self.close_model().await;
        Ok(())
    }
}

async fn connection(stream: UnixStream, router: axum::Router, shutdown: CancellationToken) {
    let peer = Peer::of(&stream);
    tracing::debug!(client = %peer.name, "connected");
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
