//! A UDP relay between one client and one server that behaves like a bad network: it drops, delays, loses by a seed,
//! and has a rate.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
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
/// Datagrams within the relay; beyond it they are lost.
const CAPACITY: usize = 4_096;

pub struct Relay {
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// Relays between whoever sends to [`Relay::address`] and `server`.
    pub async fn start(server: SocketAddr, seed: u64, faults: Faults) -> std::io::Result<Self> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        far.connect(server).await?;
        let address = near.local_addr()?;
        let faults = Arc::new(Mutex::new(faults));
        let task = tokio::spawn(run(near, far, faults.clone(), seed));
        Ok(Self { address, faults, _task: AbortOnDropHandle::new(task) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network's weather for the datagrams to come.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

/// One direction of the network: decides when a datagram arrives, if it does.
struct Path {
    faults: Arc<Mutex<Faults>>,
    rate: fn(&Faults) -> Option<u64>,
    random: ChaCha8Rng,
    /// When the last byte of what is queued will have left.
    free_at: Instant,
}

impl Path {
    fn arrival(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let faults = *self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.random.random_bool(faults.loss_ratio);
        let free_at = self.free_at.max(now);
        if faults.black_hole || lost || free_at - now > MAX_QUEUE {
            return None;
        }
        let transmission = match (self.rate)(&faults) {
            None => Duration::ZERO,
            Some(0) => return None,
            Some(rate) => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        self.free_at = free_at + transmission;
        Some(self.free_at + faults.delay)
    }
}

async fn run(near: Arc<UdpSocket>, far: Arc<UdpSocket>, faults: Arc<Mutex<Faults>>, seed: u64) {
    let client = Arc::new(Mutex::new(None));
    let path = |seed, rate| {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Path { faults: faults.clone(), rate, random, free_at: Instant::now() }
    };
    let (up, down) = (path(seed, |faults| faults.up_bytes_per_s), path(seed.wrapping_add(1), |f| f.down_bytes_per_s));
    tokio::join!(upstream(near.clone(), far.clone(), up, client.clone()), downstream(near, far, down, client),);
}

type Client = Arc<Mutex<Option<SocketAddr>>>;
type Queued = (Instant, Vec<u8>);

async fn upstream(near: Arc<UdpSocket>, far: Arc<UdpSocket>, mut path: Path, client: Client) {
    let (queue, mut queued) = mpsc::channel(CAPACITY);
    let send = async {
        while let Some(datagram) = arrived(&mut queued).await {
            let _ = far.send(&datagram).await;
        }
    };
    let receive = async {
        let mut buffer = vec![0; 65_536];
        // An ICMP error of an earlier datagram is no reason to stop.
        loop {
            let Ok((length, from)) = near.recv_from(&mut buffer).await else { continue };
            *client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            pass(&mut path, &buffer[..length], &queue);
        }
    };
    tokio::join!(send, receive);
}

async fn downstream(near: Arc<UdpSocket>, far: Arc<UdpSocket>, mut path: Path, client: Client) {
    let (queue, mut queued) = mpsc::channel(CAPACITY);
    let send = async {
        while let Some(datagram) = arrived(&mut queued).await {
            let to = *client.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(to) = to {
                let _ = near.send_to(&datagram, to).await;
            }
        }
    };
    let receive = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok(length) = far.recv(&mut buffer).await else { continue };
            pass(&mut path, &buffer[..length], &queue);
        }
    };
    tokio::join!(send, receive);
}

fn pass(path: &mut Path, datagram: &[u8], queue: &mpsc::Sender<Queued>) {
    if let Some(arrival) = path.arrival(Instant::now(), datagram.len()) {
        // A full queue loses it, as a router does.
        let _ = queue.try_send((arrival, datagram.to_vec()));
    }
}

/// The next datagram, at the time of its arrival.
async fn arrived(queued: &mut mpsc::Receiver<Queued>) -> Option<Vec<u8>> {
    let (arrival, datagram) = queued.recv().await?;
    sleep_until(arrival).await;
    Some(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_rate_and_a_rate_of_nothing_passes_nothing() {
        let faults = Faults { up_bytes_per_s: Some(1_000), down_bytes_per_s: Some(0), ..Faults::default() };
        let now = Instant::now();
        let path = |rate| Path {
            faults: Arc::new(Mutex::new(faults)),
            rate,
            random: ChaCha8Rng::seed_from_u64(1),
            free_at: now,
        };
        let mut up = path(|faults: &Faults| faults.up_bytes_per_s);
        assert_eq!(up.arrival(now, 250), Some(now + Duration::from_millis(250)));
        assert_eq!(up.arrival(now, 250), Some(now + Duration::from_millis(500)), "after the one before it");
        assert_eq!(up.arrival(now, 250), Some(now + Duration::from_millis(750)));
        assert_eq!(up.arrival(now, 250), None, "the queue is full");
        assert_eq!(path(|faults: &Faults| faults.down_bytes_per_s).arrival(now, 250), None);
    }
}
