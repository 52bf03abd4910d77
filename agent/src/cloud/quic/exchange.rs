//! One turn on its streams: the request and the images go up while the events come down.

use super::frames::{FrameError, FrameReader};
use super::keeper::Channel;
use super::refused;
use crate::cloud::{ByteCount, CloudError, CloudTurn};
use bytes::Bytes;
use futures::future::try_join_all;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_protocol::TurnId;
use tether_protocol::wire::{ErrorCode, Frame, ImageStart, StreamKind, TurnEvent, TurnRequest, WireError, close};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

/// A turn's bidirectional stream.
pub(super) type Streams = (SendStream, RecvStream);

/// One write to a stream; small, so that bytes are counted about when they leave.
const WRITE_BYTES: usize = 16 * 1024;
/// How stale a turn's count of its datagrams may be while it runs: a guard looks about as often.
const DIVIDE_INTERVAL: Duration = Duration::from_millis(50);
/// The same while a limited turn sends: what is lost is sent again without a write that could be refused.
const WATCH_INTERVAL: Duration = Duration::from_millis(1);

/// A turn whose stream is open.
pub(super) struct Exchange {
    channel: Arc<Channel>,
    turn_id: TurnId,
    request: Vec<u8>,
    images: Vec<Bytes>,
    deadline: Instant,
    up: Upload,
    down: FrameReader,
    bytes: Arc<ByteCount>,
}

impl Exchange {
    /// # Errors
    /// If the request breaks a limit of the wire or of this gateway, or its images are not as announced.
    pub(super) fn new(
        channel: &Arc<Channel>,
        turn: CloudTurn,
        (send, receive): Streams,
        bytes: Arc<ByteCount>,
    ) -> Result<Self, CloudError> {
        let up = Upload { stream: send, bytes: bytes.clone(), complete: false };
        let CloudTurn { mut request, images, deadline, .. } = turn;
        check_images(&request, &images)?;
        let size = request.text_bytes() as u64 + request.image_bytes();
        if size > channel.max_turn_bytes {
            let limit = channel.max_turn_bytes;
            return Err(refused(format!("the turn has {size} bytes, the gateway takes at most {limit}")));
        }
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = u32::try_from(left).unwrap_or(u32::MAX).min(tether_protocol::limits::MAX_DEADLINE_MS as u32);
        request.deadline_ms = Some(request.deadline_ms.map_or(left, |given| given.min(left)));
        let turn_id = request.turn_id.clone();
        let request = Frame::Turn(Box::new(request)).encode().map_err(|error| refused(error.to_string()))?;
        let down = FrameReader::new(receive, StreamKind::TurnToClient, bytes.clone());
        Ok(Self { channel: channel.clone(), turn_id, request, images, deadline, up, down, bytes })
    }

    /// Runs until the last event, the deadline, until the turn has sent all that it may, or until nobody listens to
    /// `events` any more; in the latter three the gateway is told to stop.
    pub(super) async fn run(self, events: mpsc::Sender<TurnEvent>) {
        let Self { channel, turn_id, request, images, deadline, up, mut down, bytes } = self;
        let _watch = channel.control.watch();
        let _share = Share::begin(&channel, &bytes);
        let upload = async {
            let measured = Measured::begin(&channel, &bytes);
            // Together, not one after the other: the streams' priorities order them on the wire.
            let uploads = upload_images(&channel.connection, &turn_id, &images, &bytes);
            let arrived = tokio::try_join!(up.send(&request), uploads)?;
            measured.end(arrived.0 && arrived.1);
            Ok(())
        };
        let finished = tokio::select! {
            biased;
            () = events.closed() => false,
            () = sleep_until(deadline.into()) => {
                let late = WireError::new(ErrorCode::DeadlineExceeded, "the turn's deadline passed");
                // A full queue has no reader, so there is nobody to tell.
                let _ = events.try_send(TurnEvent::Error(late));
                false
            }
            () = transfer(upload, download(&mut down, &events, &channel, &bytes)) => true,
            () = divide(&channel, &bytes) => false,
        };
        if !finished {
            let _ = down.stream.stop(VarInt::from_u32(close::CANCELLED));
        }
        // Here `up` and the images' streams are dropped, and reset where they are not complete.
    }
}

/// A turn's part in the connection's datagrams, for as long as it is held.
struct Share<'a> {
    channel: &'a Channel,
    bytes: &'a Arc<ByteCount>,
}

impl<'a> Share<'a> {
    fn begin(channel: &'a Channel, bytes: &'a Arc<ByteCount>) -> Self {
        let (mut shares, counters) = channel.shares();
        shares.begin(counters, bytes.clone());
        Self { channel, bytes }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let (mut shares, counters) = self.channel.shares();
        shares.end(counters, self.bytes);
    }
}

/// An upload whose time and bytes teach the link's rate; dropped before its end, it was broken off.
struct Measured<'a> {
    channel: &'a Channel,
    bytes: &'a ByteCount,
    begun: Instant,
    acknowledged: bool,
}

impl<'a> Measured<'a> {
    fn begin(channel: &'a Channel, bytes: &'a ByteCount) -> Self {
        let begun = Instant::now();
        channel.meter().upload_begins(begun, &channel.connection.stats());
        Self { channel, bytes, begun, acknowledged: false }
    }

    fn end(mut self, acknowledged: bool) {
        self.acknowledged = acknowledged;
        if acknowledged {
            self.channel.divide();
            self.bytes.set_upload(self.begun.elapsed());
        }
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let stats = self.channel.connection.stats();
        self.channel.meter().upload_ends(Instant::now(), &stats, self.acknowledged);
    }
}

/// Keeps the shares of the turn up to date while it runs; ends when it must send no more.
async fn divide(channel: &Channel, bytes: &ByteCount) {
    while !bytes.is_cut() {
        let sending = bytes.is_limited() && bytes.upload_ms().is_none();
        sleep(if sending { WATCH_INTERVAL } else { DIVIDE_INTERVAL }).await;
        channel.divide();
    }
}

/// Ends with the download: an answer may come, or a refusal, before all images are up. A failed upload alone ends
/// nothing either, because what the gateway says about it is still to be read.
async fn transfer<U>(upload: impl Future<Output = Result<U, NotSent>>, download: impl Future<Output = ()>) {
    tokio::pin!(download);
    tokio::select! {
        // A short answer comes in the packet that acknowledges the last byte, which is still to be noted.
        biased;
        uploaded = upload => {
            if let Err(problem) = uploaded {
                tracing::debug!("turn not sent to its end: {problem}");
            }
        }
        () = &mut download => return,
    }
    download.await;
}

/// Passes events on until the last one. A broken connection ends without one.
async fn download(down: &mut FrameReader, events: &mpsc::Sender<TurnEvent>, channel: &Channel, bytes: &Arc<ByteCount>) {
    loop {
        let event = match down.next().await {
            Ok(Some(Frame::Event(event))) => event,
            Err(problem @ (FrameError::Codec(_) | FrameError::Cut)) => {
                TurnEvent::Error(WireError::new(ErrorCode::Internal, problem.to_string()))
            }
            Ok(_) => return,
            Err(FrameError::Read(problem)) => {
                tracing::warn!("the cloud's answer broke off: {problem}");
                return;
            }
        };
        // Whoever reads the last one asks for the turn's bytes.
        let last = match &event {
            TurnEvent::Done(done) => {
                channel.answered(bytes, done.usage.completion_tokens);
                true
            }
            TurnEvent::Error(_) => {
                channel.divide();
                true
            }
            _ => false,
        };
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

fn check_images(request: &TurnRequest, images: &[Bytes]) -> Result<(), CloudError> {
    let announced = request.images.iter().map(|header| header.byte_count as usize);
    if announced.eq(images.iter().map(Bytes::len)) {
        Ok(())
    } else {
        Err(refused("the images are not of the announced number and sizes".into()))
    }
}

/// What the streams of this turn carry beside its pictures.
pub(super) fn text_bytes(turn: &CloudTurn) -> u64 {
    let starts = (0..turn.images.len()).map(|index| image_start(&turn.request.turn_id, index).len());
    (turn.request.frame_bytes() + starts.sum::<usize>()) as u64
}

/// What a picture's stream begins with.
fn image_start(turn_id: &TurnId, index: usize) -> Vec<u8> {
    let start = Frame::Image(ImageStart { turn_id: turn_id.clone(), index: index as u8 });
    // The id comes from a checked request and the index is below MAX_IMAGES.
    start.encode().unwrap_or_default()
}

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("it may send no more")]
    Limit,
}

/// Each on a stream of its own, the first announced first, all after the text.
async fn upload_images(
    connection: &Connection,
    turn_id: &TurnId,
    images: &[Bytes],
    bytes: &Arc<ByteCount>,
) -> Result<bool, NotSent> {
    let uploads = images.iter().enumerate().map(|(index, image)| async move {
        let stream = connection.open_uni().await?;
        // Fails only on a stream that is closed already, and then so does the write.
        let _ = stream.set_priority(-1 - index as i32);
        let header = image_start(turn_id, index);
        Upload { stream, bytes: bytes.clone(), complete: false }.send_all([&header[..], &image[..]]).await
    });
    try_join_all(uploads).await.map(|arrived| arrived.into_iter().all(|arrived| arrived))
}

/// A stream that is reset unless it was sent to its end: dropping quinn's own would pass half a message off as whole.
struct Upload {
    stream: SendStream,
    bytes: Arc<ByteCount>,
    complete: bool,
}

impl Upload {
    async fn send(self, message: &[u8]) -> Result<bool, NotSent> {
        self.send_all([message]).await
    }

    /// Returns when all of it was acknowledged (true), or the gateway wanted no more of it.
    async fn send_all<const N: usize>(mut self, pieces: [&[u8]; N]) -> Result<bool, NotSent> {
        for chunk in pieces.iter().flat_map(|piece| piece.chunks(WRITE_BYTES)) {
            if !self.bytes.take_uplink(chunk.len() as u64) {
                return Err(NotSent::Limit);
            }
            self.stream.write_all(chunk).await?;
        }
        self.complete = self.stream.finish().is_ok();
        Ok(matches!(self.stream.stopped().await, Ok(None)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.stream.reset(VarInt::from_u32(close::CANCELLED));
        }
    }
}
