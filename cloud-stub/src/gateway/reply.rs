//! The events of one answer, in their legal order.

use crate::server::{Cancelled, EventSender};
use std::time::Instant;
use tether_protocol::wire::{Accepted, Done, TurnEvent, WireError};

/// `Accepted` is held back until the first token, so that it names the model that answers and not one that failed.
pub(super) struct Reply {
    events: EventSender,
    accepted: Option<Accepted>,
    pub(super) first_text: Option<Instant>,
    pub(super) text_bytes: u64,
}

impl Reply {
    pub(super) fn new(events: EventSender) -> Self {
        Self { events, accepted: None, first_text: None, text_bytes: 0 }
    }

    /// Who will answer, unless it fails before its first token.
    pub(super) fn will_be(&mut self, accepted: Accepted) {
        self.accepted = Some(accepted);
    }

    /// Once text has gone out, no other backend can answer.
    pub(super) fn has_begun(&self) -> bool {
        self.first_text.is_some()
    }

    pub(super) async fn text(&mut self, text: String) -> Result<(), Cancelled> {
        self.accept().await?;
        self.first_text.get_or_insert_with(Instant::now);
        self.text_bytes += text.len() as u64;
        self.events.send(TurnEvent::Text(text)).await
    }

    pub(super) async fn done(&mut self, done: Done) -> Result<(), Cancelled> {
        self.accept().await?;
        self.events.send(TurnEvent::Done(done)).await
    }

    pub(super) async fn error(&self, error: WireError) -> Result<(), Cancelled> {
        self.events.send(TurnEvent::Error(error)).await
    }

    async fn accept(&mut self) -> Result<(), Cancelled> {
        match self.accepted.take() {
            Some(accepted) => self.events.send(TurnEvent::Accepted(accepted)).await,
            None => Ok(()),
        }
    }
}
