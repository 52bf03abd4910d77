//! The seam to what answers: a turn goes in, events come out.

use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use tether_protocol::wire::{ErrorCode, Feedback, FeedbackReply, TurnEvent, TurnRequest, WireError};
use tokio::sync::{mpsc, oneshot};

/// Who sent a turn: an authenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's name: of its token, or of its certificate.
    pub name: String,
    pub address: SocketAddr,
}

/// One turn as it comes off the wire. The request is checked; its images may still be under way.
#[derive(Debug)]
pub struct IncomingTurn {
    pub request: TurnRequest,
    pub images: Images,
    pub events: EventSender,
}

/// The images of a turn while they arrive.
#[derive(Debug)]
pub struct Images(oneshot::Receiver<Result<Vec<Bytes>, WireError>>);

impl Images {
    /// All images, in the order of `request.images`, each of exactly the announced size.
    ///
    /// # Errors
    /// What to answer the client: images late, short or too long, or the turn is over.
    pub async fn collect(self) -> Result<Vec<Bytes>, WireError> {
        self.0.await.unwrap_or_else(|_| Err(turn_is_over()))
    }

    pub(super) fn awaited() -> (oneshot::Sender<Result<Vec<Bytes>, WireError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Images that are already here; for tests of handlers.
    pub fn ready(images: Vec<Bytes>) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is alive right here, so this cannot fail.
        let _ = sender.send(Ok(images));
        Self(receiver)
    }
}

fn turn_is_over() -> WireError {
    WireError::new(ErrorCode::BadRequest, "the turn ended before its images arrived")
}

/// The client cancelled the turn, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client cancelled the turn")]
pub struct Cancelled;

/// Where a handler puts the events of its answer: `Accepted`, any number of `Text`, then `Done`; or `Error`. Bounded,
/// so a slow client slows its handler down. Dropping it before `Done` or `Error` tells the client `Internal`.
#[derive(Debug, Clone)]
pub struct EventSender(mpsc::Sender<TurnEvent>);

impl EventSender {
    /// A sender and its receiving end; for tests of handlers.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<TurnEvent>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Waits for room.
    ///
    /// # Errors
    /// [`Cancelled`]: stop working on this turn.
    pub async fn send(&self, event: TurnEvent) -> Result<(), Cancelled> {
        self.0.send(event).await.map_err(|_| Cancelled)
    }

    /// For a model's own thread.
    ///
    /// # Errors
    /// [`Cancelled`]: stop working on this turn.
    ///
    /// # Panics
    /// On an async thread.
    pub fn blocking_send(&self, event: TurnEvent) -> Result<(), Cancelled> {
        self.0.blocking_send(event).map_err(|_| Cancelled)
    }

    /// Returns once the client has cancelled, is gone, or its deadline has passed.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// What stands behind the listener. Each call runs on a task of its own; a panic there fails only its turn.
pub trait TurnHandler: Send + Sync + 'static {
    /// Answers one turn through `turn.events`; returns early when they are closed.
    fn handle(&self, peer: Peer, turn: IncomingTurn) -> impl Future<Output = ()> + Send;

    /// Takes a rating of an earlier turn; `None` leaves the client without a reply, because none would be true.
    fn feedback(&self, peer: Peer, feedback: Feedback) -> impl Future<Output = Option<FeedbackReply>> + Send {
        let _ = (peer, feedback);
        std::future::ready(Some(FeedbackReply::Unsupported))
    }
}
