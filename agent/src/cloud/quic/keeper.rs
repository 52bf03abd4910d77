//! Keeps one connection: dials in the background, redials with growing pauses, and tells every turn at once when the
//! gateway was just found to be away.

use super::control::{Control, Gone};
use super::dial::Dialer;
use super::failure::Failure;
use super::meter::{Meter, PROBE_BYTES};
use super::probe::Pauses;
use super::shares::{Counters, Shares};
use crate::cloud::ByteCount;
use quinn::{Connection, Endpoint};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tether_policies::wire::{LEAST_MTU, Travelled, Wire};
use tether_protocol::Reading;
use tether_protocol::context::{Link, LinkState};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

/// A failure is told without a new attempt for this long: the next turns lose no time.
const FAILURE_MEMORY: Duration = Duration::from_secs(2);
/// Pauses between attempts that nobody asked for.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the path's statistics are read; one short wake-up.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A greeted connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) connection: Connection,
    pub(super) max_turn_bytes: u64,
    pub(super) control: Control,
    pub(super) shares: Mutex<Shares>,
    pub(super) meter: SharedMeter,
}

/// What was learned of the path; the turns' uploads teach it.
#[derive(Debug, Clone)]
pub(super) struct SharedMeter(Arc<Mutex<Meter>>);

impl Default for SharedMeter {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Meter::new(Instant::now()))))
    }
}

impl SharedMeter {
    pub(super) fn lock(&self) -> MutexGuard<'_, Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock()
    }

    /// The turns' shares of the connection's datagrams, and quinn's counters now.
    pub(super) fn shares(&self) -> (MutexGuard<'_, Shares>, Counters) {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: the counters of later divisions are never smaller.
        let stats = self.connection.stats();
        (shares, (stats.udp_tx.bytes, stats.udp_rx.bytes))
    }

    pub(super) fn divide(&self) {
        let (mut shares, counters) = self.shares();
        shares.divide(counters);
    }

    /// A turn's answer has come to its end: what it put on the network tells what the next one will.
    pub(super) fn answered(&self, bytes: &Arc<ByteCount>, tokens: u32) {
        let alone = {
            let (mut shares, counters) = self.shares();
            shares.divide(counters);
            shares.is_alone(bytes)
        };
        if let Some(upload_bytes) = bytes.uploaded_bytes().filter(|_| alone) {
            let (uplink_bytes, downlink_bytes) = bytes.travelled();
            let mtu = self.connection.stats().path.current_mtu;
            let stream_bytes = bytes.uplink_bytes();
            let turn = Travelled { stream_bytes, upload_bytes, uplink_bytes, downlink_bytes, tokens, mtu };
            self.meter().wire.learn(&turn);
        }
    }
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing has been tried, or the first attempt is under way.
    New,
    Up(Arc<Channel>),
    /// Stays so while attempts go on.
    Down {
        failure: Failure,
        at: Instant,
    },
}

struct Shared {
    dialer: Dialer,
    state: watch::Sender<State>,
    /// A turn wants the connection now rather than after the pause.
    wanted: Notify,
    /// Whether the link may be measured when nothing else is sent, and what that has cost, UDP payload of both ways.
    may_probe: AtomicBool,
    probe_bytes: AtomicU64,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

impl Keeper {
    pub(super) fn new(dialer: Dialer) -> Self {
        let shared = Shared {
            dialer,
            state: watch::Sender::new(State::New),
            wanted: Notify::new(),
            may_probe: AtomicBool::new(false),
            probe_bytes: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), task: OnceLock::new() }
    }

    /// Starts to connect, where there is a runtime to do so.
    pub(super) fn start(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.task.get_or_init(|| AbortOnDropHandle::new(runtime.spawn(keep(self.shared.clone()))));
        }
    }

    /// The connection, waiting for an attempt if that may help.
    ///
    /// # Errors
    /// Why the last attempt failed.
    pub(super) async fn channel(&self) -> Result<Arc<Channel>, Failure> {
        self.start();
        let mut states = self.shared.state.subscribe();
        let mut asked = false;
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(channel) if channel.connection.close_reason().is_none() => return Ok(channel),
                State::Up(_) | State::New => {}
                State::Down { failure, at } if asked || at.elapsed() < FAILURE_MEMORY => return Err(failure),
                State::Down { .. } => {
                    asked = true;
                    self.shared.wanted.notify_one();
                }
            }
            // The sender lives as long as `self`.
            let _ = states.changed().await;
        }
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn failure(&self) -> Option<Failure> {
        match &*self.shared.state.borrow() {
            State::Down { failure, .. } => Some(failure.clone()),
            State::New | State::Up(_) => None,
        }
    }

    pub(super) fn link(&self) -> Reading<Link> {
        let state = self.shared.state.borrow().clone();
        match state {
            State::New => Reading::unknown("no connection to the cloud yet"),
            State::Up(channel) => {
                let mut meter = channel.meter();
                meter.sample(Instant::now(), &channel.connection.stats());
                meter.reading(Instant::now())
            }
            State::Down { at, .. } => {
                Reading::known(Link::in_state(LinkState::Down), at.elapsed().as_millis() as u64, "quic")
            }
        }
    }

    pub(super) fn wire(&self) -> Wire {
        let state = self.shared.state.borrow().clone();
        let mtu = match state {
            State::Up(channel) => channel.connection.stats().path.current_mtu,
            State::New | State::Down { .. } => LEAST_MTU,
        };
        Wire::Quic { model: self.shared.dialer.meter.lock().wire, mtu }
    }

    /// Whether the link may be measured, with [`PROBE_BYTES`], after it was silent.
    pub(super) fn allow_probes(&self, allowed: bool) {
        self.shared.may_probe.store(allowed, Ordering::Relaxed);
    }

    /// Sends [`PROBE_BYTES`] and learns from them.
    pub(super) async fn measure(&self, channel: &Channel) -> Result<(), Gone> {
        probe(&self.shared, channel).await
    }

    /// What probes of the rate have sent so far.
    pub(super) fn probe_bytes(&self) -> u64 {
        self.shared.probe_bytes.load(Ordering::Relaxed)
    }
}

/// Dials, holds, redials, for ever.
async fn keep(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    let mut endpoint = None;
    let mut told = None;
    loop {
        match attempt(&shared, &mut endpoint).await {
            Ok(why) => {
                tracing::info!("cloud connection ended: {why}");
                (pause, told) = (FIRST_PAUSE, None);
                // Lost, not refused: the next attempt starts at once, and turns meanwhile wait for it.
                shared.state.send_replace(State::New);
                continue;
            }
            Err(failure) => {
                // Loudly once for each kind of trouble; it is tried again every half minute.
                let kind = Some(std::mem::discriminant(&failure));
                let error = failure.clone().at(shared.dialer.address());
                if std::mem::replace(&mut told, kind) == kind {
                    tracing::debug!("cloud not connected: {error}");
                } else {
                    tracing::warn!(fix = error.fix(), "cloud not connected, it is tried again: {error}");
                }
                shared.dialer.meter.lock().failed();
                shared.state.send_replace(State::Down { failure, at: Instant::now() });
            }
        }
        let _ = timeout(jittered(pause), shared.wanted.notified()).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection from dialing to its end; tells why it ended.
async fn attempt(shared: &Shared, endpoint: &mut Option<Endpoint>) -> Result<quinn::ConnectionError, Failure> {
    let socket = match endpoint {
        Some(socket) => socket,
        None => endpoint.insert(Dialer::endpoint()?),
    };
    let (channel, control) = shared.dialer.dial(socket).await?;
    let connection = channel.connection.clone();
    channel.meter().connected(Instant::now());
    shared.state.send_replace(State::Up(channel.clone()));
    let _control = AbortOnDropHandle::new(tokio::spawn(control.run(connection.clone())));
    let mut samples = interval(SAMPLE_INTERVAL);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sampling = async {
        let mut pauses = Pauses::new(Instant::now());
        loop {
            samples.tick().await;
            let now = Instant::now();
            let silence = {
                let mut meter = channel.meter();
                meter.sample(now, &connection.stats());
                (!meter.is_busy()).then(|| (meter.rate_age(now), meter.state()))
            };
            if let Some((age, state)) = silence
                && shared.may_probe.load(Ordering::Relaxed)
                && pauses.is_due(now, age, state)
            {
                // If the path is dead the connection is closed, and this ends with it.
                let _ = probe(shared, &channel).await;
            }
        }
    };
    Ok(tokio::select! {
        why = connection.closed() => why,
        why = sampling => why,
    })
}

/// Sends a little, so that the rate is known again before a turn needs it.
async fn probe(shared: &Shared, channel: &Channel) -> Result<(), Gone> {
    let sent = |channel: &Channel| channel.connection.stats().udp_tx.bytes;
    let before = sent(channel);
    let took = channel.control.measure(PROBE_BYTES).await;
    shared.probe_bytes.fetch_add(sent(channel).saturating_sub(before), Ordering::Relaxed);
    let (mut meter, stats) = (channel.meter(), channel.connection.stats());
    // A turn that began meanwhile measures better.
    if !meter.is_busy() {
        meter.transferred(Instant::now(), PROBE_BYTES, took?, stats.path.min_rtt);
    }
    Ok(())
}

/// A fifth more or less, so that a fleet does not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 401;
    pause.mul_f64(0.8 + random as f64 / 1_000.0)
}
