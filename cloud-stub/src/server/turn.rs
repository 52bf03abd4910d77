//! One turn: its request in, its images beside it, its events out.

use super::connection::Session;
use super::frames::{FrameError, FrameReader, write};
use super::handler::{EventSender, Images, IncomingTurn, TurnHandler};
use super::images::{self, Claim, ImageStream};
use quinn::{RecvStream, SendStream, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tether_protocol::limits::MAX_DEADLINE_MS;
use tether_protocol::wire::{ErrorCode, Frame, StreamKind, TurnEvent, TurnRequest, WireError, close, text_frames};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Events that wait for the network: a slow client slows the model down after this many tokens.
const EVENT_QUEUE: usize = 64;
/// How long the last bytes of an answer may take to be acknowledged before the turn counts as over.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no more events are sent.
enum End {
    /// The event is written; of a whole turn, its `Done` or `Error`.
    Complete,
    /// The handler's last event was not legal; the client has been told.
    Broken,
    /// The client does not want the rest, or is gone.
    Cancelled,
}

/// Serves one bidirectional stream from request to last event.
pub(super) async fn serve<H: TurnHandler>(session: Arc<Session<H>>, mut send: SendStream, receive: RecvStream) {
    let end = match read_request(&session, receive).await {
        Ok(Some(request)) => answer(&session, request, &mut send).await,
        Ok(None) => End::Cancelled,
        Err(error) => write_event(&session, &mut send, TurnEvent::Error(error)).await,
    };
    match end {
        End::Complete | End::Broken => {
            let _ = send.finish();
            let _ = timeout(FINISH_TIMEOUT, send.stopped()).await;
        }
        End::Cancelled => {
            let _ = send.reset(VarInt::from_u32(close::CANCELLED));
        }
    }
}

/// `None`: the client reset the stream.
async fn read_request<H>(session: &Session<H>, receive: RecvStream) -> Result<Option<TurnRequest>, WireError> {
    let bad = |problem: String| WireError::new(ErrorCode::BadRequest, problem);
    let mut reader = FrameReader::new(receive, StreamKind::TurnToServer);
    let request = async {
        let request = match reader.next().await {
            Ok(Some(Frame::Turn(request))) => *request,
            Ok(_) => return Err(bad("the stream ended before a turn's request".into())),
            Err(FrameError::Read(_)) => return Ok(None),
            Err(problem) => return Err(bad(problem.to_string())),
        };
        match reader.next().await {
            Ok(None) => Ok(Some(request)),
            Ok(Some(_)) => Err(bad("a second request on one stream".into())),
            Err(FrameError::Read(_)) => Ok(None),
            Err(problem) => Err(bad(problem.to_string())),
        }
    };
    let limit = session.shared.limits.image_timeout;
    timeout(limit, request).await.unwrap_or_else(|_| Err(bad(format!("the request did not arrive within {limit:?}"))))
}

/// What a turn holds while it runs.
struct Admitted<'a> {
    _claim: Claim<'a>,
    arrivals: mpsc::Receiver<ImageStream>,
    _memory: OwnedSemaphorePermit,
}

fn admit<'a, H>(session: &'a Session<H>, request: &TurnRequest) -> Result<Admitted<'a>, WireError> {
    let shared = &session.shared;
    // Claimed first, so that the images of a turn that is refused below are turned away, too.
    let (claim, arrivals) = session
        .inbox
        .claim(&request.turn_id)
        .ok_or_else(|| WireError::new(ErrorCode::BadRequest, format!("turn id {} was used before", request.turn_id)))?;
    if shared.shutdown.is_cancelled() {
        return Err(WireError::new(ErrorCode::Draining, "the gateway is stopping"));
    }
    let (bytes, limit) = (request.text_bytes() as u64 + request.image_bytes(), shared.limits.max_turn_bytes);
    if bytes > limit {
        let message = format!("the turn has {bytes} bytes, this gateway takes at most {limit}");
        return Err(WireError::new(ErrorCode::BadRequest, message));
    }
    let full = || WireError {
        code: ErrorCode::Overloaded,
        message: "the gateway holds as many images as it can".into(),
        retry_after_ms: Some(500),
    };
    let kib = u32::try_from(request.image_bytes().div_ceil(1024)).map_err(|_| full())?;
    let memory = shared.held_kib.clone().try_acquire_many_owned(kib).map_err(|_| full())?;
    Ok(Admitted { _claim: claim, arrivals, _memory: memory })
}

async fn answer<H: TurnHandler>(session: &Arc<Session<H>>, request: TurnRequest, send: &mut SendStream) -> End {
    let admitted = match admit(session, &request) {
        Ok(admitted) => admitted,
        Err(error) => return write_event(session, send, TurnEvent::Error(error)).await,
    };
    let Admitted { _claim, arrivals, _memory } = admitted;
    let deadline = Instant::now()
        + Duration::from_millis(request.deadline_ms.map_or(MAX_DEADLINE_MS, |ms| u64::from(ms).min(MAX_DEADLINE_MS)));
    let (images, _collecting) = collect_images(session, &request, arrivals);
    let (events, received) = EventSender::channel(EVENT_QUEUE);
    let turn = IncomingTurn { request, images, events };
    let (shared, peer) = (session.shared.clone(), session.peer.clone());
    // Not aborted when the turn ends: the handler sees its events closed and puts its things in order.
    session.shared.turns.spawn(async move { shared.handler.handle(peer, turn).await });
    pump(session, send, received, deadline).await
}

/// Collects in the background, so that a handler may queue meanwhile; stops when the turn ends.
fn collect_images<H>(
    session: &Session<H>,
    request: &TurnRequest,
    arrivals: mpsc::Receiver<ImageStream>,
) -> (Images, Option<AbortOnDropHandle<()>>) {
    if request.images.is_empty() {
        return (Images::ready(Vec::new()), None);
    }
    let (done, images) = Images::awaited();
    let (headers, limit) = (request.images.clone(), session.shared.limits.image_timeout);
    let collecting = tokio::spawn(async move {
        // The handler may not want them.
        let _ = done.send(images::collect(&headers, arrivals, limit).await);
    });
    (images, Some(AbortOnDropHandle::new(collecting)))
}

/// Moves events from the handler to the stream until the last one, the deadline, or a cancellation. Returning drops
/// `received`, which is how the handler hears of it.
async fn pump<H>(
    session: &Session<H>,
    send: &mut SendStream,
    mut received: mpsc::Receiver<TurnEvent>,
    deadline: Instant,
) -> End {
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stopped => return End::Cancelled,
            event = received.recv() => event.unwrap_or_else(broken_off),
            () = sleep_until(deadline) => late(),
        };
        let last = matches!(event, TurnEvent::Done(_) | TurnEvent::Error(_));
        let end = write_event(session, send, event).await;
        if last || !matches!(end, End::Complete) {
            return end;
        }
    }
}

fn late() -> TurnEvent {
    TurnEvent::Error(WireError::new(ErrorCode::DeadlineExceeded, "the turn's deadline passed at the gateway"))
}

fn broken_off() -> TurnEvent {
    TurnEvent::Error(WireError::new(ErrorCode::Internal, "the gateway broke the answer off; its log tells why"))
}

/// A client that does not read for as long as an idle connection may last counts as gone.
async fn write_event<H>(session: &Session<H>, send: &mut SendStream, event: TurnEvent) -> End {
    match timeout(session.shared.limits.idle_timeout, write_frames(send, event)).await {
        Ok(Ok(())) => End::Complete,
        // The handler made an event that the wire does not carry.
        Ok(Err(FrameError::Codec(problem))) => {
            tracing::error!(client = %session.peer.name, "answer broken off: {problem}");
            let _ = write_frames(send, broken_off()).await;
            End::Broken
        }
        Ok(Err(problem)) => {
            tracing::debug!(client = %session.peer.name, "answer not sent: {problem}");
            End::Cancelled
        }
        Err(_) => End::Cancelled,
    }
}

async fn write_frames(send: &mut SendStream, event: TurnEvent) -> Result<(), FrameError> {
    let TurnEvent::Text(text) = &event else {
        return write(send, &Frame::Event(event)).await;
    };
    for piece in text_frames(text) {
        write(send, &Frame::Event(TurnEvent::Text(piece.to_owned()))).await?;
    }
    Ok(())
}
