//! Images come on streams of their own, before or after their turn's request; the inbox brings the two together.

use super::frames::FrameReader;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use quinn::{RecvStream, VarInt};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_protocol::TurnId;
use tether_protocol::limits::MAX_IMAGES;
use tether_protocol::wire::{ErrorCode, Frame, ImageHeader, StreamKind, WireError, close};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Turns of one connection that are remembered after their end, so that an image that comes too late is turned away.
const MAX_ENDED: usize = 256;

/// An image whose turn and place are known, and what has been read of it.
#[derive(Debug)]
pub(super) struct ImageStream {
    index: u8,
    first: Vec<u8>,
    rest: RecvStream,
}

/// A turn that has been heard of. `arrivals` is here until the turn's request claims it.
struct Slot {
    sender: mpsc::Sender<ImageStream>,
    arrivals: Option<mpsc::Receiver<ImageStream>>,
}

#[derive(Default)]
struct State {
    slots: HashMap<TurnId, Slot>,
    ended: VecDeque<TurnId>,
    closed: bool,
}

/// The images of one connection on their way to its turns.
#[derive(Default)]
pub(super) struct ImageInbox(Mutex<State>);

/// A turn's place in the inbox; free again when dropped.
pub(super) struct Claim<'a> {
    inbox: &'a ImageInbox,
    turn_id: TurnId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.inbox.end(&self.turn_id);
    }
}

impl ImageInbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The arrivals of a turn. `None` if this connection has used the id before.
    pub(super) fn claim(&self, turn_id: &TurnId) -> Option<(Claim<'_>, mpsc::Receiver<ImageStream>)> {
        let mut state = self.state();
        if state.ended.contains(turn_id) {
            return None;
        }
        let arrivals = state.slot(turn_id).arrivals.take()?;
        Some((Claim { inbox: self, turn_id: turn_id.clone() }, arrivals))
    }

    fn sender(&self, turn_id: &TurnId) -> Option<mpsc::Sender<ImageStream>> {
        let mut state = self.state();
        if state.closed || state.ended.contains(turn_id) {
            return None;
        }
        Some(state.slot(turn_id).sender.clone())
    }

    fn end(&self, turn_id: &TurnId) {
        let mut state = self.state();
        state.slots.remove(turn_id);
        state.ended.push_back(turn_id.clone());
        if state.ended.len() > MAX_ENDED {
            state.ended.pop_front();
        }
    }

    /// Forgets a turn whose request never came.
    fn forget_unclaimed(&self, turn_id: &TurnId) {
        let mut state = self.state();
        if state.slots.get(turn_id).is_some_and(|slot| slot.arrivals.is_some()) {
            state.slots.remove(turn_id);
        }
    }

    /// The connection is over: waiting images are let go.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.slots.clear();
    }
}

impl State {
    fn slot(&mut self, turn_id: &TurnId) -> &mut Slot {
        self.slots.entry(turn_id.clone()).or_insert_with(|| {
            let (sender, arrivals) = mpsc::channel(MAX_IMAGES);
            Slot { sender, arrivals: Some(arrivals) }
        })
    }
}

/// Reads which turn an image belongs to and puts it into the inbox; then waits until that turn has taken its images,
/// or lets go of them after `limit` if its request never comes.
pub(super) async fn deliver(inbox: &ImageInbox, receive: RecvStream, limit: Duration) {
    let mut reader = FrameReader::new(receive, StreamKind::ImageToServer);
    let frame = timeout(limit, reader.next()).await;
    let (first, mut rest) = reader.into_rest();
    let Ok(Ok(Some(Frame::Image(start)))) = frame else {
        let _ = rest.stop(VarInt::from_u32(close::PROTOCOL));
        return;
    };
    let Some(sender) = inbox.sender(&start.turn_id) else {
        let _ = rest.stop(VarInt::from_u32(close::CANCELLED));
        return;
    };
    if let Err(refused) = sender.try_send(ImageStream { index: start.index, first, rest }) {
        let _ = refused.into_inner().rest.stop(VarInt::from_u32(close::LIMIT));
        return;
    }
    if timeout(limit, sender.closed()).await.is_err() {
        inbox.forget_unclaimed(&start.turn_id);
    }
}

/// All announced images of a turn.
///
/// # Errors
/// What to tell the client if they are late, doubled, or not of the announced size.
pub(super) async fn collect(
    headers: &[ImageHeader],
    mut arrivals: mpsc::Receiver<ImageStream>,
    limit: Duration,
) -> Result<Vec<Bytes>, WireError> {
    let bad = |message: String| WireError::new(ErrorCode::BadRequest, message);
    let gather = async {
        let mut images: Vec<Option<Bytes>> = vec![None; headers.len()];
        let mut begun = vec![false; headers.len()];
        let mut reading = FuturesUnordered::new();
        while images.iter().any(Option::is_none) {
            tokio::select! {
                Some(image) = arrivals.recv() => {
                    let index = usize::from(image.index);
                    let header = headers.get(index).ok_or_else(|| bad(format!("image {index} is not announced")))?;
                    if std::mem::replace(&mut begun[index], true) {
                        return Err(bad(format!("image {index} came twice")));
                    }
                    reading.push(async move { (index, read(header, image).await) });
                }
                Some((index, image)) = reading.next() => images[index] = Some(image?),
                else => return Err(bad("the connection ended before the images arrived".into())),
            }
        }
        Ok(images.into_iter().flatten().collect())
    };
    timeout(limit, gather).await.unwrap_or_else(|_| Err(bad(format!("the images did not arrive within {limit:?}"))))
}

async fn read(header: &ImageHeader, image: ImageStream) -> Result<Bytes, WireError> {
    let bad =
        |problem: String| WireError::new(ErrorCode::BadRequest, format!("image of view {}: {problem}", header.view));
    let (expected, mut bytes, mut rest) = (header.byte_count as usize, image.first, image.rest);
    while bytes.len() <= expected {
        // One byte more than announced is enough to know that it is too long.
        match rest.read_chunk(expected + 1 - bytes.len(), true).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
            Ok(None) if bytes.len() == expected => return Ok(bytes.into()),
            Ok(None) => return Err(bad(format!("{} bytes came, {expected} were announced", bytes.len()))),
            Err(problem) => return Err(bad(problem.to_string())),
        }
    }
    let _ = rest.stop(VarInt::from_u32(close::LIMIT));
    Err(bad(format!("more bytes came than the {expected} announced")))
}
