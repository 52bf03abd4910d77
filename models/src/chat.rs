//! From messages to tokens: the chat template of the GGUF metadata, rendered with minijinja.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// What to do with a dialogue that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnContextFull {
    #[default]
    Error,
    DropOldest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub tokens: Vec<u32>,
    /// Messages left out from the front, so that an answer can say so.
    pub dropped_messages: usize,
}
