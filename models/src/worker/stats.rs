//! Moving rates, for predictions.

use crate::generate::Generated;
use crate::slots::{DiskStats, SlotStats};
use std::sync::{Mutex, PoisonError};

/// What an older answer counts for after each newer one: about ten answers are remembered.
const MEMORY: f64 = 0.9;

/// Measured rates and the queue, for predictions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WorkerStats {
    /// Jobs waiting, the one being served included.
    pub queue: usize,
    pub prefill_tokens_per_s: Option<f64>,
    pub decode_tokens_per_s: Option<f64>,
    /// Prompt tokens of all answers so far, and those of them that needed no computing.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Tokens guessed from what was said before, and those of them that the model then said.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    pub slots: SlotStats,
    pub disk: DiskStats,
}

#[derive(Default)]
pub(super) struct Rates(Mutex<Sums>);

#[derive(Clone, Copy, Default)]
struct Sums {
    prefill: Rate,
    decode: Rate,
    prompt_tokens: u64,
    cached_tokens: u64,
    drafted_tokens: u64,
    accepted_tokens: u64,
}

#[derive(Clone, Copy, Default)]
struct Rate {
    tokens: f64,
    seconds: f64,
}

impl Rates {
    pub(super) fn record(&self, generated: &Generated) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.prefill.add(generated.prompt_tokens - generated.cached_tokens, generated.prefill_ms);
        // The first token comes out of the prefill.
        sums.decode.add(generated.completion_tokens.saturating_sub(1), generated.decode_ms);
        sums.prompt_tokens += generated.prompt_tokens as u64;
        sums.cached_tokens += generated.cached_tokens as u64;
        sums.drafted_tokens += generated.drafted_tokens as u64;
        sums.accepted_tokens += generated.accepted_tokens as u64;
    }

    pub(super) fn stats(&self, queue: usize, (slots, disk): (SlotStats, DiskStats)) -> WorkerStats {
        let sums = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerStats {
            queue,
            prefill_tokens_per_s: sums.prefill.tokens_per_s(),
            decode_tokens_per_s: sums.decode.tokens_per_s(),
            prompt_tokens: sums.prompt_tokens,
            cached_tokens: sums.cached_tokens,
            drafted_tokens: sums.drafted_tokens,
            accepted_tokens: sums.accepted_tokens,
            slots,
            disk,
        }
    }
}

impl Rate {
    fn add(&mut self, tokens: usize, time_ms: f64) {
        if tokens > 0 && time_ms > 0.0 {
            self.tokens = self.tokens * MEMORY + tokens as f64;
            self.seconds = self.seconds * MEMORY + time_ms / 1e3;
        }
    }

    fn tokens_per_s(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.tokens / self.seconds)
    }
}
