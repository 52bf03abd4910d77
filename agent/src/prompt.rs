//! How a dialogue, its sensors and its views are written into a prompt: one form for the local model, one for the
//! cloud. `docs/PROMPTS.md` specifies both; golden tests hold them.

use crate::dialogue::{DialogueMessage, TurnInputs};
use tether_models::ChatMessage;
use tether_protocol::wire::Message;

/// The prompt for the local model: text only. Views it cannot see are named, so that it can say so.
pub fn local_messages(dialogue: &[DialogueMessage], inputs: &TurnInputs) -> Vec<ChatMessage> {
    let _ = (dialogue, inputs);
    Vec::new()
}

/// The prompt for the cloud: `Part::Image(i)` stands for `inputs.frames[i]`. Messages marked `local_only` are left
/// out by the caller.
pub fn cloud_messages(dialogue: &[DialogueMessage], inputs: &TurnInputs) -> Vec<Message> {
    let _ = (dialogue, inputs);
    Vec::new()
}
