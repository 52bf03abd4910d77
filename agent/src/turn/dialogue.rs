//! The dialogue of a turn: what the session remembers, then what the request brings.

use crate::daemon::{Daemon, Live};
use crate::dialogue::DialogueMessage;
use crate::prompt::add_system_prompt;
use crate::store::{Memory, NewMessage};
use std::sync::Arc;
use tether_protocol::TurnRecord;
use tether_protocol::api::{ApiError, AttachedImage, ChatTurn, CheckedMessage};
use tether_protocol::wire::Role;
use tokio::sync::OwnedMutexGuard;

pub(super) struct Dialogue {
    /// System prompt, memory, new messages.
    pub messages: Vec<DialogueMessage>,
    /// What the request brought, to be remembered.
    pub new_messages: Vec<NewMessage>,
    /// Settled turns of this session, oldest first.
    pub past: Vec<TurnRecord>,
    /// Images of the newest turn, not yet decoded.
    pub attached: Vec<AttachedImage>,
    /// Images of earlier messages: a dialogue's memory is text.
    pub dropped_images: u32,
    /// Turns of one session are served one after the other; held until this turn is settled.
    pub turn_of_session: Option<OwnedMutexGuard<()>>,
}

impl Dialogue {
    /// Waits until the session's earlier turns are settled, then reads what it remembers.
    ///
    /// # Errors
    /// 409 if too many turns of the session wait already, 503 if the database cannot be read.
    pub(super) async fn recall(daemon: &Arc<Daemon>, live: &Live, request: &ChatTurn) -> Result<Self, ApiError> {
        let (turn_of_session, memory) = match &request.session {
            None => (None, Memory::default()),
            Some(session) => {
                let held = daemon.sessions().enter(session).await?;
                let limits = live.settings.sessions;
                let memory = daemon.store().memory(session.clone(), limits, crate::daemon::unix_ms()).await;
                let memory = memory.map_err(|error| {
                    daemon.report("sessions", &error.to_string());
                    ApiError::server(503, "session_unavailable", error.to_string())
                })?;
                if memory.messages.is_empty() {
                    // New, or forgotten by age or number: then what was computed of it goes, too.
                    daemon.forget_computed(session.clone()).await;
                }
                (Some(held), memory)
            }
        };
        daemon.clear_problem("sessions");
        Ok(Self::compose(memory, request, live.settings.system_prompt(), turn_of_session))
    }

    fn compose(
        memory: Memory,
        request: &ChatTurn,
        system_prompt: &str,
        turn_of_session: Option<OwnedMutexGuard<()>>,
    ) -> Self {
        let remembered = memory.messages.into_iter().map(|NewMessage { role, text, local_only }| DialogueMessage {
            role,
            text,
            local_only,
        });
        let mut messages: Vec<DialogueMessage> = remembered.chain(request.messages.iter().map(message)).collect();
        add_system_prompt(&mut messages, system_prompt);
        let (attached, dropped_images) = images(&request.messages);
        let new_messages = request.messages.iter().map(|CheckedMessage { role, text, .. }| NewMessage {
            role: *role,
            text: text.clone(),
            local_only: false,
        });
        Self {
            messages,
            new_messages: new_messages.collect(),
            past: memory.past,
            attached,
            dropped_images,
            turn_of_session,
        }
    }

    pub(super) fn newest_text(&self) -> &str {
        self.messages.last().map_or("", |message| message.text.as_str())
    }

    /// Bytes of text that a cloud turn would carry.
    pub(super) fn travelling_bytes(&self) -> u64 {
        self.messages.iter().filter(|message| !message.local_only).map(|message| message.text.len() as u64).sum()
    }
}

/// Its images are not here: each takes the place of a view.
fn message(message: &CheckedMessage) -> DialogueMessage {
    DialogueMessage { role: message.role, text: message.text.clone(), local_only: false }
}

/// The images of the newest turn, which is everything after the last answer; the others are counted.
fn images(messages: &[CheckedMessage]) -> (Vec<AttachedImage>, u32) {
    let newest = messages.iter().rposition(|message| message.role == Role::Assistant).map_or(0, |last| last + 1);
    let count = |messages: &[CheckedMessage]| messages.iter().map(|message| message.images.len()).sum::<usize>();
    let attached = messages[newest..].iter().flat_map(|message| message.images.iter().cloned()).collect();
    (attached, u32::try_from(count(&messages[..newest])).unwrap_or(u32::MAX))
}
