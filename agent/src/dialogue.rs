//! The messages of one dialogue, as every stage after the request sees them.

use std::sync::Arc;
pub use tether_protocol::wire::Role;

use crate::views::Frame;

/// One message, checked: its text. A dialogue's memory holds no images; those of the newest turn each take the place
/// of a view in [`TurnInputs`].
#[derive(Debug, Clone)]
pub struct DialogueMessage {
    pub role: Role,
    pub text: String,
    /// Made or answered under `local_only`: must never travel.
    pub local_only: bool,
}

/// What the newest turn adds to the dialogue's text: the views and sensors that the decision lets each side see.
#[derive(Debug, Clone, Default)]
pub struct TurnInputs {
    /// Frames that travel (cloud) or are named (local), in the order of the configured views.
    pub frames: Vec<Arc<Frame>>,
    /// Sensors as `(name, JSON text, age in ms)`, sorted by name.
    pub sensors: Vec<(String, String, u64)>,
}
