//! Small values that unit tests share.

use crate::backend::Ask;
use crate::backend::scripted::Script;
use std::time::Duration;
use tether_protocol::TurnId;
use tether_protocol::wire::{Message, Part, Role, Sampling, TurnRequest};

/// A turn of one user message.
pub(crate) fn request(text: &str) -> TurnRequest {
    TurnRequest {
        turn_id: TurnId::new("turn-1").unwrap(),
        model: None,
        deadline_ms: None,
        sampling: Sampling::default(),
        messages: vec![Message { role: Role::User, parts: vec![Part::Text(text.to_owned())] }],
        images: Vec::new(),
    }
}

pub(crate) fn ask(text: &str, max_tokens: u32) -> Ask {
    let sampling = Sampling { max_tokens: Some(max_tokens), ..Sampling::default() };
    Ask { request: TurnRequest { sampling, ..request(text) }, images: Vec::new(), client: 0 }
}

/// Says `answer` at once.
pub(crate) fn script(answer: &str) -> Script {
    Script {
        answer: answer.to_owned(),
        answer_tokens: None,
        first_token: Duration::ZERO,
        token: Duration::ZERO,
        seed: 0,
        faults: Vec::new(),
        failed_probes: 0,
    }
}
