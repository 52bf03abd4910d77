//! Small values that unit tests share.

use crate::backend::Ask;
use crate::backend::scripted::{Fault, FaultKind, Script};
use crate::config::{BackendSettings, Kind, Settings};
use crate::price::Prices;
use std::path::Path;
use std::time::Duration;
use tether_protocol::TurnId;
use tether_protocol::wire::{Message, Part, Role, Sampling, TurnRequest, Vision};

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

/// A scripted backend for every kind of turn: four at once, none waiting.
pub(crate) fn backend(name: &str, script: Script) -> BackendSettings {
    BackendSettings {
        name: name.to_owned(),
        vision: Vision::Measured,
        context_tokens: None,
        prices: Prices::default(),
        concurrency: 4,
        queue: 0,
        max_tokens: 1_000,
        default_max_tokens: 100,
        first_token_timeout: Duration::from_secs(60),
        token_timeout: Duration::from_secs(60),
        kind: Kind::Scripted(script),
    }
}

pub(crate) fn settings(zoo: Vec<BackendSettings>) -> Settings {
    let text = "cert = \"c\"\nkey = \"k\"\n[[zoo]]\nname = \"x\"\nkind = \"scripted\"";
    Settings { zoo, ..Settings::parse(text, Path::new("gateway.toml")).unwrap() }
}

pub(crate) fn fault(kind: FaultKind) -> Vec<Fault> {
    vec![Fault { kind, probability: 1.0, first_turns: None }]
}
