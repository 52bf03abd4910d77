//! The control stream: probes while turns wait, so that a dead path is noticed in about two seconds; ratings.

use super::frames::{FrameError, FrameReader};
use quinn::{Connection, SendStream, VarInt};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tether_protocol::TurnId;
use tether_protocol::limits::MAX_UNANSWERED_RATINGS;
use tether_protocol::wire::{Feedback, FeedbackReply, Frame, TurnEvent, close};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Four probes fit into the silence that is tolerated, so that one or two may be lost.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Silence after which a path counts as dead while a turn waits. Beyond the worst round trips of mobile links.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(2);
/// Ratings and frames that wait to be sent.
const MAX_PENDING: usize = 64;
/// Of one frame of padding: several make a probe of the link's rate.
const PADDING_BYTES: u64 = 4_096;
/// Pings of a rate probe count from here, those of liveness from 1.
const FIRST_RATE_PROBE: u32 = 1 << 31;

/// The connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

type Rating = (Feedback, oneshot::Sender<FeedbackReply>);
/// Bytes to send, and how long they took there and their reply back.
type RateProbe = (u64, oneshot::Sender<Duration>);

/// The turns' side of the control stream.
#[derive(Debug)]
pub(super) struct Control {
    waiting: Arc<Waiting>,
    ratings: mpsc::Sender<Rating>,
    /// A permit for each rating that may be on its way.
    room: Semaphore,
    rate_probes: mpsc::Sender<RateProbe>,
}

/// How many turns wait for the gateway.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    first: Notify,
}

/// Held by a turn as long as it waits for the gateway.
#[derive(Debug)]
pub(super) struct WaitingGuard(Arc<Waiting>);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Control {
    pub(super) fn new(send: SendStream, reader: FrameReader) -> (Self, ControlStream) {
        let waiting = Arc::new(Waiting::default());
        let (ratings, requests) = mpsc::channel(MAX_PENDING);
        let (rate_probes, measures) = mpsc::channel(1);
        let stream = ControlStream { send, reader, requests, measures, waiting: waiting.clone() };
        (Self { waiting, ratings, room: Semaphore::new(MAX_UNANSWERED_RATINGS), rate_probes }, stream)
    }

    /// Turns the probes on until the guard is dropped.
    pub(super) fn watch(&self) -> WaitingGuard {
        if self.waiting.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.waiting.first.notify_one();
        }
        WaitingGuard(self.waiting.clone())
    }

    pub(super) async fn feedback(&self, feedback: Feedback) -> Result<FeedbackReply, Gone> {
        // Given back with the reply, or when the caller gives up.
        let _room = self.room.acquire().await.map_err(|_| Gone)?;
        let (sender, reply) = oneshot::channel();
        self.ratings.send((feedback, sender)).await.map_err(|_| Gone)?;
        reply.await.map_err(|_| Gone)
    }

    /// How long about `bytes` take to the gateway and its reply back. Meanwhile a dead path is noticed, as in a turn.
    pub(super) async fn measure(&self, bytes: u64) -> Result<Duration, Gone> {
        let _watched = self.watch();
        let (sender, took) = oneshot::channel();
        self.rate_probes.send((bytes, sender)).await.map_err(|_| Gone)?;
        took.await.map_err(|_| Gone)
    }
}

/// The connection's side; runs as long as the connection lives.
pub(super) struct ControlStream {
    send: SendStream,
    reader: FrameReader,
    requests: mpsc::Receiver<Rating>,
    measures: mpsc::Receiver<RateProbe>,
    waiting: Arc<Waiting>,
}

impl ControlStream {
    /// Returns when the connection has ended, having ended it itself if the path is dead.
    pub(super) async fn run(self, connection: Connection) {
        let Self { send, mut reader, mut requests, mut measures, waiting } = self;
        let (frames, queue) = mpsc::channel(MAX_PENDING);
        let mut replies: HashMap<TurnId, oneshot::Sender<FeedbackReply>> = HashMap::new();
        let ended = tokio::select! {
            result = read(&mut reader, &mut requests, &mut measures, &frames, &mut replies) => result,
            () = write(send, queue) => Err(FrameError::Cut),
            () = probe(&connection, &waiting, &frames) => {
                tracing::warn!("the cloud has been silent for {MAX_SILENCE:?}: connection dropped");
                connection.close(VarInt::from_u32(close::TIMEOUT), b"silent");
                return;
            }
        };
        match ended {
            Ok(()) => connection.close(VarInt::from_u32(close::OK), b"goodbye"),
            Err(problem) => connection.close(VarInt::from_u32(close::PROTOCOL), problem.to_string().as_bytes()),
        }
    }
}

/// Takes replies in and ratings out.
async fn read(
    reader: &mut FrameReader,
    requests: &mut mpsc::Receiver<Rating>,
    measures: &mut mpsc::Receiver<RateProbe>,
    frames: &mpsc::Sender<Frame>,
    replies: &mut HashMap<TurnId, oneshot::Sender<FeedbackReply>>,
) -> Result<(), FrameError> {
    let mut rate_probe: Option<(Instant, oneshot::Sender<Duration>)> = None;
    let mut number = FIRST_RATE_PROBE;
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(Frame::FeedbackReply(turn_id, reply)) => {
                    if let Some(sender) = replies.remove(&turn_id) {
                        // Whoever rated may have given up waiting.
                        let _ = sender.send(reply);
                    }
                }
                Some(Frame::Pong(count)) if count == number => {
                    if let Some((begun, took)) = rate_probe.take() {
                        // Fails only when the connection is given up.
                        let _ = took.send(begun.elapsed());
                    }
                }
                Some(Frame::Event(TurnEvent::Error(error))) => {
                    tracing::warn!("the cloud ends the connection: {error}");
                    return Ok(());
                }
                Some(_) => {}
                None => return Ok(()),
            },
            Some((feedback, sender)) = requests.recv() => {
                replies.retain(|_, waiting| !waiting.is_closed());
                replies.insert(feedback.turn_id.clone(), sender);
                // Fails only when the writer has ended, and then so does the connection.
                let _ = frames.send(Frame::Feedback(feedback)).await;
            }
            Some((bytes, took)) = measures.recv() => {
                number = number.checked_add(1).unwrap_or(FIRST_RATE_PROBE);
                rate_probe = Some((Instant::now(), took));
                for _ in 0..bytes.div_ceil(PADDING_BYTES) {
                    let _ = frames.send(Frame::Padding(PADDING_BYTES as u16)).await;
                }
                let _ = frames.send(Frame::Ping(number)).await;
            }
        }
    }
}

/// Writes what the others queue; apart from them, so that a full window never stops the probe's clock.
async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        match frame.encode() {
            Ok(bytes) => {
                if send.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // Only a rating outside 0..1 can be refused here; dropping it leaves its caller without a reply.
            Err(problem) => tracing::warn!("not sent: {problem}"),
        }
    }
}

/// Returns when the path is dead.
async fn probe(connection: &Connection, waiting: &Waiting, frames: &mpsc::Sender<Frame>) {
    let mut count = 0u32;
    loop {
        if waiting.count.load(Ordering::Relaxed) == 0 {
            waiting.first.notified().await;
            continue;
        }
        let mut heard = Liveness::new(Instant::now(), connection.stats().udp_rx.datagrams);
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while waiting.count.load(Ordering::Relaxed) > 0 {
            ticks.tick().await;
            if heard.is_dead(Instant::now(), connection.stats().udp_rx.datagrams) {
                return;
            }
            count = count.wrapping_add(1);
            // A full queue has probes in it already.
            let _ = frames.try_send(Frame::Ping(count));
        }
    }
}

/// When something last came from the gateway. Any packet counts, acknowledgements too, so a busy gateway is not taken
/// for a dead one.
struct Liveness {
    datagrams: u64,
    heard: Instant,
}

impl Liveness {
    fn new(now: Instant, datagrams: u64) -> Self {
        Self { datagrams, heard: now }
    }

    fn is_dead(&mut self, now: Instant, datagrams: u64) -> bool {
        if datagrams != self.datagrams {
            *self = Self::new(now, datagrams);
        }
        now.duration_since(self.heard) >= MAX_SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_packet() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut heard = Liveness::new(start, 10);
        assert!(!heard.is_dead(at(1_999), 10));
        assert!(!heard.is_dead(at(1_999), 11));
        assert!(!heard.is_dead(at(3_998), 11));
        assert!(heard.is_dead(at(3_999), 11));
    }
}
