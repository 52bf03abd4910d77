//! A backend that follows a script: what it says, how slowly, and how it fails. For tests and for load; a fault is
//! drawn from a seed, so a run repeats.

use super::{Answer, Ask, BackendError, Piece, Pieces};
use futures::StreamExt;
use futures::stream;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::{ErrorCode, Role, TurnRequest};

/// What a scripted backend does.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// May hold `{user}` (the newest user message), `{images}` and `{messages}` (how many came).
    pub answer: String,
    /// The answer is repeated until it has this many tokens; `None`: said once.
    pub answer_tokens: Option<u32>,
    pub first_token: Duration,
    pub token: Duration,
    pub seed: u64,
    /// The first one that strikes is taken.
    pub faults: Vec<Fault>,
    /// Probes that fail before one succeeds, after each time it is taken out.
    pub failed_probes: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// In 0..=1, drawn for each turn.
    pub probability: f64,
    /// Strikes only the first so many turns; `None`: all.
    pub first_turns: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Fails at once with this code.
    Error(ErrorCode),
    /// Never says anything.
    Hang,
    /// Breaks off after so many tokens.
    Cut { after_tokens: usize },
}

#[derive(Debug)]
pub struct ScriptedBackend {
    script: Script,
    turns: AtomicU64,
    probes_to_fail: AtomicU32,
}

impl ScriptedBackend {
    pub fn new(script: Script) -> Self {
        let probes_to_fail = AtomicU32::new(script.failed_probes);
        Self { script, turns: AtomicU64::new(0), probes_to_fail }
    }

    pub fn answer(&self, ask: &Ask) -> Result<Pieces, BackendError> {
        let fault = self.next_fault();
        if let Some(FaultKind::Error(code)) = fault {
            return Err(error(code));
        }
        if fault == Some(FaultKind::Hang) {
            return Ok(stream::pending().boxed());
        }
        let mut tokens = tokens(&self.script, &ask.request);
        let limit = ask.max_tokens() as usize;
        let finish_reason = if tokens.len() > limit { FinishReason::Length } else { FinishReason::Stop };
        tokens.truncate(limit);
        let usage =
            Usage { prompt_tokens: word_count(&ask.request), completion_tokens: tokens.len().try_into().unwrap_or(0) };
        let mut pieces: Vec<_> = tokens.into_iter().map(|token| Ok(Piece::Text(token))).collect();
        pieces.push(Ok(Piece::End(Answer { finish_reason, usage, usage_estimated: false, dropped_messages: 0 })));
        if let Some(FaultKind::Cut { after_tokens }) = fault {
            pieces.truncate(after_tokens);
            pieces.push(Err(BackendError::Failed(format!("scripted: broke off after {after_tokens} tokens"))));
        }
        Ok(self.timed(pieces))
    }

    pub fn probe(&self) -> Result<(), BackendError> {
        let left = self.probes_to_fail.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(BackendError::Failed("scripted: the probe fails".into())),
            Err(_) => {
                self.probes_to_fail.store(self.script.failed_probes, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn next_fault(&self) -> Option<FaultKind> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let mut random = ChaCha8Rng::seed_from_u64(self.script.seed);
        random.set_stream(turn);
        let strikes = |fault: &&Fault| {
            let drawn = random.random::<f64>() < fault.probability;
            drawn && fault.first_turns.is_none_or(|first| turn < first)
        };
        self.script.faults.iter().find(strikes).map(|fault| fault.kind)
    }

    fn timed(&self, pieces: Vec<Result<Piece, BackendError>>) -> Pieces {
        let (first, later) = (self.script.first_token, self.script.token);
        let delayed = stream::iter(pieces.into_iter().enumerate()).then(move |(index, piece)| async move {
            let wait = match (index, &piece) {
                (0, _) => first,
                (_, Ok(Piece::Text(_))) => later,
                _ => Duration::ZERO,
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            piece
        });
        delayed.boxed()
    }
}

fn error(code: ErrorCode) -> BackendError {
    let message = format!("scripted: fails with {code:?}");
    match code {
        ErrorCode::BackendFailed | ErrorCode::Internal => BackendError::Failed(message),
        ErrorCode::Overloaded => BackendError::Busy { message, retry_after_ms: Some(2_000) },
        code => BackendError::refused(code, message),
    }
}

/// One token a word, with the space behind it.
fn tokens(script: &Script, request: &TurnRequest) -> Vec<String> {
    let text = script
        .answer
        .replace("{images}", &request.images.len().to_string())
        .replace("{messages}", &request.messages.len().to_string())
        .replace("{user}", &newest_user_text(request));
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let count = script.answer_tokens.map_or(words.len(), |tokens| tokens as usize);
    words.iter().cycle().take(if words.is_empty() { 0 } else { count }).map(|&word| word.to_owned()).collect()
}

fn word_count(request: &TurnRequest) -> u32 {
    let words = request.messages.iter().map(|message| super::flat_text(message).split_whitespace().count());
    words.sum::<usize>().try_into().unwrap_or(u32::MAX)
}

fn newest_user_text(request: &TurnRequest) -> String {
    request.messages.iter().rev().find(|message| message.role == Role::User).map(super::flat_text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ask, script};
    use futures::FutureExt;

    fn drain(pieces: Pieces) -> Vec<Result<Piece, BackendError>> {
        pieces.collect().now_or_never().expect("a script without delays does not wait")
    }

    fn said(pieces: &[Result<Piece, BackendError>]) -> String {
        let text = |piece: &Result<Piece, BackendError>| match piece {
            Ok(Piece::Text(text)) => text.clone(),
            _ => String::new(),
        };
        pieces.iter().map(text).collect()
    }

    #[test]
    fn the_template_is_filled_in_and_max_tokens_cuts() {
        let backend = ScriptedBackend::new(script("You said: {user} ({messages} messages, {images} images)"));
        let pieces = drain(backend.answer(&ask("hello there", 100)).unwrap());
        assert_eq!(said(&pieces), "You said: hello there (1 messages, 0 images)");
        let Some(Ok(Piece::End(end))) = pieces.last() else { panic!("{pieces:?}") };
        assert_eq!(end.usage, Usage { prompt_tokens: 2, completion_tokens: 8 });
        let pieces = drain(backend.answer(&ask("hello there", 3)).unwrap());
        assert_eq!(said(&pieces), "You said: hello ");
        let Some(Ok(Piece::End(end))) = pieces.last() else { panic!("{pieces:?}") };
        assert_eq!((end.finish_reason, end.usage.completion_tokens), (FinishReason::Length, 3));
    }

    #[test]
    fn a_cut_comes_after_its_tokens() {
        let fault = Fault { kind: FaultKind::Cut { after_tokens: 2 }, probability: 1.0, first_turns: Some(1) };
        let backend = ScriptedBackend::new(Script { faults: vec![fault], ..script("a b c d") });
        let pieces = drain(backend.answer(&ask("x", 9)).unwrap());
        assert_eq!(said(&pieces), "a b ");
        assert!(matches!(pieces.last(), Some(Err(BackendError::Failed(_)))));
        assert_eq!(said(&drain(backend.answer(&ask("x", 9)).unwrap())), "a b c d", "only the first turn");
    }

    #[test]
    fn faults_repeat_with_their_seed() {
        let strikes = |seed: u64| -> Vec<bool> {
            let fault = Fault { kind: FaultKind::Error(ErrorCode::Internal), probability: 0.3, first_turns: None };
            let backend = ScriptedBackend::new(Script { faults: vec![fault], seed, ..script("a") });
            (0..200).map(|_| backend.answer(&ask("x", 9)).is_err()).collect()
        };
        assert_eq!(strikes(1), strikes(1));
        assert_ne!(strikes(1), strikes(2));
        let struck = strikes(1).iter().filter(|&&struck| struck).count();
        assert!((40..80).contains(&struck), "{struck} of 200 at 0.3");
    }

    #[test]
    fn probes_fail_as_often_as_told() {
        let backend = ScriptedBackend::new(Script { failed_probes: 2, ..script("a") });
        let outcomes: Vec<bool> = (0..6).map(|_| backend.probe().is_ok()).collect();
        assert_eq!(outcomes, [false, false, true, false, false, true]);
    }
}
