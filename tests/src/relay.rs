//! A UDP relay between one client and one server that behaves like a bad network: it drops, delays, loses by a seed,
//! and has a rate.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// What the network does to each datagram.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Nothing passes.
    pub black_hole: bool,
    /// Share of the datagrams that are lost, 0..1.
    pub loss_ratio: f64,
    /// One way.
    pub delay: Duration,
    /// Towards the server and back; `None`: no limit. Datagrams that would wait longer than [`MAX_QUEUE`] are lost, which
    /// at a rate of 0 are all.
    pub up_bytes_per_s: Option<u64>,
    pub down_bytes_per_s: Option<u64>,
}

/// The longest a datagram waits for a slow network: what a home router's buffer holds.
pub const MAX_QUEUE: Duration = Duration::from_millis(500);
/// Datagrams in one direction's queue; beyond it they are lost.
const CAPACITY: usize = 4_096;

pub struct Relay {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// Relays between whoever sends to [`Relay::address`] and `server`.
    pub async fn start(server: SocketAddr, seed: u64, faults: Faults) -> std::io::Result<Self> {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
        far.connect(server).await?;
        let address = near.local_addr()?;
        let ends = Ends { near, far, client: Mutex::new(None) };
        let (faults, weather) = watch::channel(faults);
        let task = tokio::spawn(run(ends, weather, seed));
        Ok(Self { address, faults, _task: AbortOnDropHandle::new(task) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network's weather, also for what waits in its queue.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }
}

/// One direction of the network: a queue that is served at the rate of the moment, and what is on its way after it.
struct Path {
    faults: Faults,
    rate: fn(&Faults) -> Option<u64>,
    random: ChaCha8Rng,
    /// Bytes that have been served until `served_at`, and that will have been when the queue is empty.
    served: f64,
    served_at: Instant,
    served_in_the_end: f64,
    waiting: VecDeque<Waiting>,
    /// With the time of their arrival.
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
}

struct Waiting {
    /// It leaves when so many bytes have been served.
    served: f64,
    delay: Duration,
    datagram: Vec<u8>,
}

impl Path {
    fn new(now: Instant, seed: u64, faults: Faults, rate: fn(&Faults) -> Option<u64>) -> Self {
        Self {
            faults,
            rate,
            random: ChaCha8Rng::seed_from_u64(seed),
            served: 0.0,
            served_at: now,
            served_in_the_end: 0.0,
            waiting: VecDeque::new(),
            on_the_way: VecDeque::new(),
        }
    }

    /// When so many bytes will have been served if the weather stays; `None`: never.
    fn served_when(&self, bytes: f64) -> Option<Instant> {
        let left = (bytes - self.served).max(0.0);
        match (self.rate)(&self.faults) {
            Some(rate) if left > 0.0 => Some(self.served_at + Duration::try_from_secs_f64(left / rate as f64).ok()?),
            _ => Some(self.served_at),
        }
    }

    /// Serves until `now`; from then on the weather is `faults`.
    fn serve(&mut self, now: Instant, faults: Faults) {
        while let Some(at) = self.waiting.front().and_then(|next| self.served_when(next.served))
            && at <= now
            && let Some(Waiting { delay, datagram, .. }) = self.waiting.pop_front()
        {
            self.on_the_way.push_back((at + delay, datagram));
        }
        let passed_s = (now - self.served_at).as_secs_f64();
        let could = (self.rate)(&self.faults).map_or(f64::INFINITY, |rate| self.served + rate as f64 * passed_s);
        // A link that had nothing to do saves nothing up.
        self.served = could.min(self.served_in_the_end);
        (self.served_at, self.faults) = (now, faults);
    }

    /// A datagram comes, if it is not lost.
    fn admit(&mut self, datagram: &[u8]) {
        let Faults { black_hole, loss_ratio, delay, .. } = self.faults;
        let is_lost = self.random.random_bool(loss_ratio);
        let is_full = match (self.rate)(&self.faults) {
            None => false,
            Some(0) => true,
            Some(rate) => (self.served_in_the_end - self.served) / rate as f64 > MAX_QUEUE.as_secs_f64(),
        };
        if !(black_hole || is_lost || is_full || self.waiting.len() >= CAPACITY) {
            self.served_in_the_end += datagram.len() as f64;
            self.waiting.push_back(Waiting { served: self.served_in_the_end, delay, datagram: datagram.to_vec() });
        }
    }

    /// The next that has arrived by `now`. None overtakes another.
    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (at, _) = self.on_the_way.front()?;
        if *at > now {
            return None;
        }
        self.on_the_way.pop_front().map(|(_, datagram)| datagram)
    }

    /// When there is something to do.
    fn wake(&self) -> Option<Instant> {
        let leaves = self.waiting.front().and_then(|next| self.served_when(next.served));
        let arrives = self.on_the_way.front().map(|(at, _)| *at);
        leaves.into_iter().chain(arrives).min()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Towards {
    Server,
    Client,
}

struct Ends {
    near: UdpSocket,
    far: UdpSocket,
    client: Mutex<Option<SocketAddr>>,
}

impl Ends {
    fn client(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, towards: Towards, buffer: &mut [u8]) -> std::io::Result<usize> {
        match towards {
            Towards::Client => self.far.recv(buffer).await,
            Towards::Server => {
                let (length, from) = self.near.recv_from(buffer).await?;
                *self.client() = Some(from);
                Ok(length)
            }
        }
    }

    /// An ICMP error of an earlier datagram is no reason to stop.
    async fn send(&self, towards: Towards, datagram: &[u8]) {
        let client = *self.client();
        let _ = match (towards, client) {
            (Towards::Server, _) => self.far.send(datagram).await,
            (Towards::Client, Some(client)) => self.near.send_to(datagram, client).await,
            (Towards::Client, None) => return,
        };
    }
}

async fn run(ends: Ends, weather: watch::Receiver<Faults>, seed: u64) {
    let (now, faults) = (Instant::now(), *weather.borrow());
    let up = Path::new(now, seed, faults, |faults| faults.up_bytes_per_s);
    let down = Path::new(now, seed.wrapping_add(1), faults, |faults| faults.down_bytes_per_s);
    tokio::join!(
        direction(&ends, Towards::Server, up, weather.clone()),
        direction(&ends, Towards::Client, down, weather),
    );
}

async fn direction(ends: &Ends, towards: Towards, mut path: Path, mut weather: watch::Receiver<Faults>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let wake = path.wake();
        let received = tokio::select! {
            received = ends.receive(towards, &mut buffer) => received.ok(),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => None,
            _ = weather.changed() => None,
        };
        let now = Instant::now();
        path.serve(now, *weather.borrow_and_update());
        if let Some(length) = received {
            path.admit(&buffer[..length]);
        }
        while let Some(datagram) = path.arrived(now) {
            ends.send(towards, &datagram).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1);

    fn path(now: Instant, faults: Faults, rate: fn(&Faults) -> Option<u64>) -> Path {
        Path::new(now, 1, faults, rate)
    }

    /// Milliseconds after `start` at which datagrams arrive if the weather stays.
    fn arrivals(path: &mut Path, start: Instant) -> Vec<u128> {
        let mut found = Vec::new();
        while let Some(wake) = path.wake() {
            path.serve(wake, path.faults);
            while path.arrived(wake).is_some() {
                found.push((wake - start).as_millis());
            }
        }
        found
    }

    #[test]
    fn each_direction_has_its_rate_and_a_rate_of_nothing_passes_nothing() {
        let faults = Faults { up_bytes_per_s: Some(1_000), down_bytes_per_s: Some(0), ..Faults::default() };
        let now = Instant::now();
        let mut up = path(now, faults, |faults| faults.up_bytes_per_s);
        (0..4).for_each(|_| up.admit(&[0; 250]));
        assert_eq!(
            arrivals(&mut up, now),
            [250, 500, 750],
            "one after the other, and the queue is full for the fourth"
        );
        let mut down = path(now, faults, |faults| faults.down_bytes_per_s);
        down.admit(&[0; 250]);
        assert_eq!(down.wake(), None);
        let mut free = path(now, Faults { delay: Duration::from_millis(7), ..Faults::default() }, |f| f.up_bytes_per_s);
        (0..4).for_each(|_| free.admit(&[0; 250]));
        assert_eq!(arrivals(&mut free, now), [7; 4]);
    }

    #[test]
    fn what_waits_is_served_at_the_rate_that_the_link_has_then() {
        let weather = |up_bytes_per_s| Faults { up_bytes_per_s: Some(up_bytes_per_s), ..Faults::default() };
        let start = Instant::now();
        // A bad cell: this would take 100 s.
        let mut path = path(start, weather(10), |faults| faults.up_bytes_per_s);
        path.admit(&[0; 1_000]);
        path.serve(start + START, weather(0));
        assert_eq!(path.wake(), None, "the link is away");
        path.serve(start + 2 * START, weather(1_000));
        path.admit(&[0; 500]);
        assert_eq!(arrivals(&mut path, start), [2_990], "the second found the queue full");
    }
}
