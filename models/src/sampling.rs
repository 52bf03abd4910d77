//! From logits to a token.
//!
//! In this order: repetition penalty, temperature, top-k, top-p, min-p, then one draw. Temperature comes before the
//! cuts, as in vLLM and transformers, so the same settings cut the same tokens here and there.

use crate::error::ModelError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// Tokens looked back at by the repetition penalty.
pub const REPETITION_WINDOW_TOKENS: usize = 256;

/// Candidates sorted at first where `top_p` asks for an order: nearly always enough, and much less than a vocabulary.
const FIRST_SORTED: usize = 256;

/// How the next token is drawn. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// 0: greedy.
    pub temperature: f32,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    /// 1: none.
    pub repetition_penalty: f32,
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplingOptions {
    /// # Errors
    /// [`ModelError::Parameter`] names the first option that is out of its range.
    pub fn check(&self) -> Result<(), ModelError> {
        let share = |value: Option<f32>| value.unwrap_or(1.0);
        let refuse = |parameter, problem: &str| Err(ModelError::Parameter { parameter, problem: problem.to_owned() });
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", "must be between 0 and 100");
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "must be at least 1");
        }
        if !(share(self.top_p) > 0.0 && share(self.top_p) <= 1.0) {
            return refuse("top_p", "must be above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&share(self.min_p)) {
            return refuse("min_p", "must be between 0 and 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0) {
            return refuse("repetition_penalty", "must be above 0 and at most 100");
        }
        Ok(())
    }
}

/// Draws tokens; the same options, logits and history give the same tokens on every machine with the same arithmetic.
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
}

/// A token that may be drawn, with its logit, later its weight.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    value: f32,
}

impl Sampler {
    /// # Errors
    /// As [`SamplingOptions::check`].
    pub fn new(options: &SamplingOptions) -> Result<Sampler, ModelError> {
        options.check()?;
        Ok(Sampler { options: options.clone(), random: ChaCha8Rng::seed_from_u64(options.seed) })
    }

    /// Draws the next token. `logits` has one entry per token of the vocabulary and is changed by the repetition
    /// penalty; `history` is what the sequence holds so far, the newest last. An entry that is not a number counts
    /// as impossible.
    ///
    /// # Errors
    /// [`ModelError::Logits`] if no entry is possible.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, ModelError> {
        self.penalise(logits, history);
        let best = greatest(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(best.id);
        }
        let mut candidates = self.weights(logits, best.value);
        if let Some(k) = self.options.top_k.filter(|&k| k < candidates.len()) {
            keep_greatest(&mut candidates, k);
        }
        if let Some(p) = self.options.top_p.filter(|&p| p < 1.0) {
            keep_top_p(&mut candidates, p);
        }
        if let Some(p) = self.options.min_p {
            // The best candidate weighs 1, so the least share is the threshold itself.
            candidates.retain(|candidate| candidate.value >= p);
        }
        Ok(self.draw(&candidates).unwrap_or(best.id))
    }

    fn penalise(&self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let mut recent = history[history.len().saturating_sub(REPETITION_WINDOW_TOKENS)..].to_vec();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// The possible tokens with weights relative to the best one's, which is 1. Weights that vanish are left out.
    fn weights(&self, logits: &[f32], greatest: f32) -> Vec<Candidate> {
        let weight = |logit: f32| ((finite(logit) - greatest) / self.options.temperature).exp();
        let all = logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan());
        all.map(|(id, &logit)| Candidate { id: id as u32, value: weight(logit) })
            .filter(|candidate| candidate.value > 0.0)
            .collect()
    }

    fn draw(&mut self, candidates: &[Candidate]) -> Option<u32> {
        let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.value)).sum();
        let mut left = self.random.random::<f64>() * total;
        for candidate in candidates {
            left -= f64::from(candidate.value);
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        candidates.last().map(|candidate| candidate.id)
    }
}

/// Infinite logits are held at the greatest and least number, so that differences stay numbers.
fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN / 2.0, f32::MAX / 2.0)
}

/// The greatest logit, the lowest id among equals.
fn greatest(logits: &[f32]) -> Result<Candidate, ModelError> {
    let mut best: Option<Candidate> = None;
    for (id, &logit) in logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY) {
        if best.is_none_or(|best| logit > best.value) {
            best = Some(Candidate { id: id as u32, value: logit });
        }
    }
    let best = best.map(|best| Candidate { value: finite(best.value), ..best });
    best.ok_or_else(|| ModelError::Logits(format!("of {} entries none is a number", logits.len())))
}

/// Greatest weight first, the lower id first among equals: a total order, so results do not depend on the sort.
fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.id.cmp(&b.id))
}

fn keep_greatest(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, descending);
        candidates.truncate(count);
        candidates.sort_unstable_by_key(|candidate| candidate.id);
    }
}

/// Keeps the fewest candidates, greatest first, whose weights reach the share `p` of the total.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f32) {
    let enough = f64::from(p) * candidates.iter().map(|candidate| f64::from(candidate.value)).sum::<f64>();
    let mut sorted = FIRST_SORTED.min(candidates.len());
    loop {
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted, descending);
        }
        candidates[..sorted].sort_unstable_by(descending);
        let mut sum = 0.0;
        let reached = candidates[..sorted].iter().position(|candidate| {
            sum += f64::from(candidate.value);
            sum >= enough
        });
        match reached {
            Some(index) => return candidates.truncate(index + 1),
            None if sorted == candidates.len() => return,
            None => sorted = (sorted * 8).min(candidates.len()),
        }
    }
}
