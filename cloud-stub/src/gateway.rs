//! What stands behind the listener: takes a turn, chooses a backend, and streams its answer back.

mod reply;
mod turn;

use crate::config::Settings;
use crate::metrics::Metrics;
use crate::routing::RoutingStatus;
use crate::server::{IncomingTurn, Peer, TurnHandler};
use crate::vision::MotionMemory;
use crate::zoo::Zoo;
use crate::zoo::choose::{Chooser, TurnKey};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tether_protocol::wire::{Feedback, FeedbackReply};
use tokio::sync::Semaphore;

/// Images decoded at once: one holds up to 200 MB at the pixel limit.
const MAX_DECODERS: usize = 2;

/// The gateway without its sockets.
pub struct Gateway {
    zoo: RwLock<Arc<Zoo>>,
    chooser: Box<dyn Chooser>,
    /// The only state that outlives a turn; see [`crate::vision`].
    frames: Mutex<MotionMemory>,
    decoders: Semaphore,
    turn_limit: Duration,
    draining: AtomicBool,
    pub started: Instant,
    pub metrics: Metrics,
}

impl Gateway {
    /// Builds the zoo; blocks while models load.
    ///
    /// # Errors
    /// Names the backend that cannot be built.
    pub fn new(settings: &Settings, chooser: Box<dyn Chooser>) -> anyhow::Result<Self> {
        Ok(Self {
            zoo: RwLock::new(Arc::new(Zoo::build(&settings.zoo, None)?)),
            chooser,
            frames: Mutex::default(),
            decoders: Semaphore::new(MAX_DECODERS),
            turn_limit: settings.turn_limit,
            draining: AtomicBool::new(false),
            started: Instant::now(),
            metrics: Metrics::default(),
        })
    }

    pub fn zoo(&self) -> Arc<Zoo> {
        Arc::clone(&self.zoo.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the zoo; backends whose settings did not change go on, turns under way end where they are. Blocks
    /// while models load. On an error the old zoo stays.
    ///
    /// # Errors
    /// Names the backend that cannot be built.
    pub fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        let zoo = Zoo::build(&settings.zoo, Some(&self.zoo()))?;
        self.chooser.reload(settings)?;
        *self.zoo.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zoo);
        Ok(())
    }

    /// What the chooser has learned, if it learns.
    pub fn routing(&self) -> Option<RoutingStatus> {
        self.chooser.status()
    }

    /// Tells load balancers to send no more.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether at least one backend would answer.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.zoo().members().iter().any(|member| member.is_healthy())
    }
}

impl TurnHandler for Gateway {
    async fn handle(&self, peer: Peer, turn: IncomingTurn) {
        turn::handle(self, &peer, turn).await;
    }

    async fn feedback(&self, peer: Peer, feedback: Feedback) -> Option<FeedbackReply> {
        let key = TurnKey { tenant: &peer.name, turn_id: &feedback.turn_id };
        let reply = self.chooser.rate(&key, feedback.rating.into()).await;
        tracing::debug!(turn_id = %feedback.turn_id, client = peer.name, ?reply, "rating");
        reply
    }
}

#[cfg(test)]
mod tests;
