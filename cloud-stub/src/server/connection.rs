//! One connection: greeting, control stream, and the streams of its turns.

use super::frames::{FrameError, FrameReader, write};
use super::handler::{Peer, TurnHandler};
use super::images::{self, ImageInbox};
use super::{Shared, turn};
use quinn::{Connection, Incoming, SendStream, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tether_protocol::limits::{MAX_IMAGES, MAX_UNANSWERED_RATINGS};
use tether_protocol::wire::{ErrorCode, Feedback, Frame, Hello, StreamKind, TurnEvent, Welcome, WireError, close};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// In flight on one connection, all streams together.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Images under way at once: those of eight turns. More wait for their stream.
const MAX_IMAGE_STREAMS: u32 = 8 * MAX_IMAGES as u32;
/// Ratings of one client that wait for the handler at once: twice what a client may have on its way, because it may send
/// the next one before the task that answered the last has ended.
const MAX_PENDING_FEEDBACK: usize = 2 * MAX_UNANSWERED_RATINGS;
/// How long a refused client may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the streams of one connection share.
pub(super) struct Session<H> {
    pub(super) shared: Arc<Shared<H>>,
    pub(super) peer: Peer,
    pub(super) inbox: ImageInbox,
}

/// A client that was let in.
struct Greeted {
    connection: Connection,
    name: String,
    send: SendStream,
    control: FrameReader,
    _room: OwnedSemaphorePermit,
}

pub(super) async fn serve<H: TurnHandler>(shared: Arc<Shared<H>>, incoming: Incoming, stranger: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let greeted = timeout(shared.limits.hello_timeout, greet(&shared, incoming)).await;
    drop(stranger);
    match greeted {
        Ok(Ok(greeted)) => {
            tracing::info!(client = %greeted.name, %address, "client connected");
            let why = converse(shared, greeted).await;
            tracing::info!(%address, "client disconnected: {why}");
        }
        Ok(Err(problem)) => tracing::warn!(%address, "client refused: {problem}"),
        Err(_) => tracing::warn!(%address, "client refused: no greeting in time"),
    }
}

#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error("handshake: {0}")]
    Handshake(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the first frame is not a greeting")]
    NoHello,
    #[error(transparent)]
    Refused(#[from] WireError),
}

async fn greet<H>(shared: &Shared<H>, incoming: Incoming) -> Result<Greeted, GreetError> {
    let connection = incoming.accept()?.await?;
    let (mut send, receive) = connection.accept_bi().await?;
    let mut control = FrameReader::new(receive, StreamKind::ControlToServer);
    match identify(shared, &connection, &mut control).await {
        Ok((name, room)) => {
            let welcome = Welcome {
                software: concat!("tether-cloud/", env!("CARGO_PKG_VERSION")).into(),
                client: name.clone(),
                max_turn_bytes: shared.limits.max_turn_bytes,
            };
            widen(&connection, shared.limits.max_turns);
            write(&mut send, &Frame::Welcome(welcome)).await?;
            Ok(Greeted { connection, name, send, control, _room: room })
        }
        Err(problem) => {
            refuse(&connection, send, &problem).await;
            Err(problem)
        }
    }
}

async fn identify<H>(
    shared: &Shared<H>,
    connection: &Connection,
    control: &mut FrameReader,
) -> Result<(String, OwnedSemaphorePermit), GreetError> {
    let hello: Hello = match control.next().await? {
        Some(Frame::Hello(hello)) => hello,
        _ => return Err(GreetError::NoHello),
    };
    let name = shared.credentials.identify(&hello, connection)?;
    let full = || WireError {
        code: ErrorCode::Overloaded,
        message: "the gateway has no room for another connection".into(),
        retry_after_ms: Some(1_000),
    };
    let room = shared.connections.clone().try_acquire_owned().map_err(|_| full())?;
    Ok((name, room))
}

/// Lifts the limits that hold for strangers.
fn widen(connection: &Connection, max_turns: u32) {
    // One more: the control stream.
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(max_turns.saturating_add(1)));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(MAX_IMAGE_STREAMS));
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
}

/// Says why on the control stream, waits until that has arrived, and closes.
async fn refuse(connection: &Connection, mut send: SendStream, problem: &GreetError) {
    let (error, code) = match problem {
        GreetError::Refused(error) if error.code == ErrorCode::Unauthorized => (error.clone(), close::UNAUTHORIZED),
        GreetError::Refused(error) => (error.clone(), close::LIMIT),
        other => (WireError::new(ErrorCode::BadRequest, other.to_string()), close::PROTOCOL),
    };
    let told = async {
        write(&mut send, &Frame::Event(TurnEvent::Error(error.clone()))).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    let _ = timeout(REFUSAL_TIMEOUT, told).await;
    connection.close(VarInt::from_u32(code), error.message.as_bytes());
}

/// Serves a client until the connection ends; tells why it did.
async fn converse<H: TurnHandler>(shared: Arc<Shared<H>>, greeted: Greeted) -> String {
    let Greeted { connection, name, send, control, _room } = greeted;
    let peer = Peer { name, address: connection.remote_address() };
    let session = Arc::new(Session { shared, peer, inbox: ImageInbox::default() });
    let ended = tokio::select! {
        why = run_control(&session, send, control) => {
            let code = if why.is_ok() { close::OK } else { close::PROTOCOL };
            let why = why.map_or_else(|problem| problem.to_string(), |()| "goodbye".into());
            connection.close(VarInt::from_u32(code), why.as_bytes());
            why
        }
        why = accept_turns(&session, &connection) => why.to_string(),
        why = accept_images(&session, &connection) => why.to_string(),
    };
    session.inbox.close();
    ended
}

async fn accept_turns<H: TurnHandler>(session: &Arc<Session<H>>, connection: &Connection) -> quinn::ConnectionError {
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => {
                session.shared.turns.spawn(turn::serve(session.clone(), send, receive));
            }
            Err(ended) => return ended,
        }
    }
}

async fn accept_images<H: TurnHandler>(session: &Arc<Session<H>>, connection: &Connection) -> quinn::ConnectionError {
    loop {
        match connection.accept_uni().await {
            Ok(receive) => {
                let session = session.clone();
                let limit = session.shared.limits.image_timeout;
                tokio::spawn(async move { images::deliver(&session.inbox, receive, limit).await });
            }
            Err(ended) => return ended,
        }
    }
}

/// Answers probes and takes ratings until the client closes the control stream.
async fn run_control<H: TurnHandler>(
    session: &Arc<Session<H>>,
    mut send: SendStream,
    mut control: FrameReader,
) -> Result<(), FrameError> {
    let (replies, mut ready) = mpsc::channel(MAX_PENDING_FEEDBACK);
    let room = Arc::new(Semaphore::new(MAX_PENDING_FEEDBACK));
    // Above the turns: a probe tells of the path, not of the queue behind it.
    let _ = send.set_priority(1);
    loop {
        let frame = tokio::select! {
            frame = control.next() => frame?,
            Some(reply) = ready.recv() => {
                write(&mut send, &reply).await?;
                continue;
            }
        };
        match frame {
            Some(Frame::Ping(count)) => write(&mut send, &Frame::Pong(count)).await?,
            Some(Frame::Padding(_)) => {}
            Some(Frame::Feedback(feedback)) => match room.clone().try_acquire_owned() {
                Ok(permit) => {
                    tokio::spawn(take_feedback(session.clone(), feedback, replies.clone(), permit));
                }
                // Beyond any honest rate: the client may try again, nothing waits here.
                Err(_) => tracing::warn!(client = %session.peer.name, "rating dropped: too many at once"),
            },
            Some(_) => return Err(FrameError::Greeted),
            None => return Ok(()),
        }
    }
}

async fn take_feedback<H: TurnHandler>(
    session: Arc<Session<H>>,
    feedback: Feedback,
    replies: mpsc::Sender<Frame>,
    _permit: OwnedSemaphorePermit,
) {
    let turn_id = feedback.turn_id.clone();
    if let Some(reply) = session.shared.handler.feedback(session.peer.clone(), feedback).await {
        // A client that is gone does not need its reply.
        let _ = replies.send(Frame::FeedbackReply(turn_id, reply)).await;
    }
}
