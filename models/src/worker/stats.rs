//! Moving rates, for predictions.

use crate::generate::Generated;
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
}

#[derive(Default)]
pub(super) struct Rates(Mutex<[Rate; 2]>);

#[derive(Clone, Copy, Default)]
struct Rate {
    tokens: f64,
    seconds: f64,
}

impl Rates {
    pub(super) fn record(&self, generated: &Generated) {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates[0].add(generated.prompt_tokens - generated.cached_tokens, generated.prefill_ms);
        // The first token comes out of the prefill.
        rates[1].add(generated.completion_tokens.saturating_sub(1), generated.decode_ms);
    }

    pub(super) fn stats(&self, queue: usize) -> WorkerStats {
        let rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [prefill_tokens_per_s, decode_tokens_per_s] = rates.map(Rate::tokens_per_s);
        WorkerStats { queue, prefill_tokens_per_s, decode_tokens_per_s }
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
