//! The dialogue of a turn: what the session remembers, then what the request brings.

use crate::daemon::{Daemon, Live};
use crate::dialogue::DialogueMessage;
use crate::prompt::add_system_prompt;
use crate::store::{Memory, NewMessage};
use crate::views::{ViewConfig, ViewKind};
use std::sync::Arc;
use tether_protocol::api::{ApiError, AttachedImage, ChatTurn, CheckedMessage};
use tether_protocol::wire::Role;
use tether_protocol::{TurnRecord, ViewName};
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
    /// Why the whole request is private, where one of those images is of a camera that never leaves the device.
    pub private_images: Option<String>,
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
                let memory = daemon.store().memory(session.clone(), limits, daemon.now_ms()).await;
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
        Ok(Self::compose(memory, request, live, turn_of_session))
    }

    fn compose(memory: Memory, request: &ChatTurn, live: &Live, turn_of_session: Option<OwnedMutexGuard<()>>) -> Self {
        let remembered = memory.messages.into_iter().map(|NewMessage { role, text, local_only }| DialogueMessage {
            role,
            text,
            local_only,
        });
        let mut messages: Vec<DialogueMessage> = remembered.chain(request.messages.iter().map(message)).collect();
        add_system_prompt(&mut messages, live.settings.system_prompt());
        let (earlier, newest) = request.messages.split_at(newest_turn(&request.messages));
        let dropped_images: usize = earlier.iter().map(|message| message.images.len()).sum();
        let new_messages = request.messages.iter().map(|CheckedMessage { role, text, .. }| NewMessage {
            role: *role,
            text: text.clone(),
            local_only: false,
        });
        Self {
            messages,
            new_messages: new_messages.collect(),
            past: memory.past,
            attached: newest.iter().flat_map(|message| message.images.iter().cloned()).collect(),
            dropped_images: u32::try_from(dropped_images).unwrap_or(u32::MAX),
            private_images: private_images(earlier, &live.settings.views.0),
            turn_of_session,
        }
    }

    pub(super) fn newest_text(&self) -> &str {
        self.messages.last().map_or("", |message| message.text.as_str())
    }

    /// Whether a prompt of the whole dialogue holds what must never travel, so that its answer must not either.
    pub(super) fn any_private(&self) -> bool {
        self.messages.iter().any(|message| message.local_only)
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

/// Where the newest turn begins: after the last answer.
fn newest_turn(messages: &[CheckedMessage]) -> usize {
    messages.iter().rposition(|message| message.role == Role::Assistant).map_or(0, |last| last + 1)
}

/// Why earlier messages are private by their images. An image without a name stood for a camera that may travel only
/// if its turn left one for it; such a turn was answered on the device, and what was said of it since may tell of it.
fn private_images(earlier: &[CheckedMessage], views: &[ViewConfig]) -> Option<String> {
    let cameras = views.iter().filter(|view| view.kind == ViewKind::Camera);
    let (private_cameras, open_cameras): (Vec<_>, Vec<_>) = cameras.partition(|view| view.local_only);
    if private_cameras.is_empty() {
        return None;
    }
    for turn in earlier.split(|message| message.role == Role::Assistant) {
        let images: Vec<&AttachedImage> = turn.iter().flat_map(|message| &message.images).collect();
        let named = images.iter().filter_map(|image| image.view.as_ref());
        let private = |name: &&ViewName| private_cameras.iter().any(|view| view.name == **name);
        if let Some(name) = named.into_iter().find(private) {
            return Some(format!("an earlier message shows the view {name}, which is local_only"));
        }
        if images.len() > open_cameras.len() {
            return Some("an earlier message shows more images than there are cameras that are not local_only".into());
        }
    }
    None
}
