//! A cache and the tokens it holds.

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::ModelError;
use crate::worker::Cancel;

/// A cache and the tokens it holds, to be used by one answer after the other.
pub struct Sequence {
    cache: Cache,
    tokens: Vec<u32>,
    cancel: Cancel,
}

impl Sequence {
    pub fn new(engine: &Engine) -> Result<Sequence, ModelError> {
        Ok(Sequence::of(engine.new_cache()?, Vec::new()))
    }

    /// `tokens` are those whose keys and values `cache` holds.
    pub(crate) fn of(cache: Cache, tokens: Vec<u32>) -> Sequence {
        debug_assert_eq!(cache.len(), tokens.len(), "a cache and its tokens go together");
        Sequence { cache, tokens, cancel: Cancel::default() }
    }

    /// From now on, passes over this sequence end with [`ModelError::Cancelled`] within a layer of `cancel`.
    pub fn until(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// The tokens whose keys and values are held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many tokens at the front are those of `prompt`.
    pub fn common(&self, prompt: &[u32]) -> usize {
        self.tokens.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count()
    }

    /// A second sequence with the first `len` tokens. The two share what they have in common until one writes to it.
    #[must_use]
    pub fn fork(&self, len: usize) -> Sequence {
        let mut fork = Sequence::of(self.cache.clone(), self.tokens.clone());
        fork.truncate(len);
        fork
    }

    /// Forgets everything after the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
        self.tokens.truncate(len);
    }

    /// Keeps what the sequence has in common with `prompt`, but never all of it: the last token gives the logits.
    pub(crate) fn keep_common(&mut self, prompt: &[u32]) -> usize {
        let kept = self.common(prompt).min(prompt.len().saturating_sub(1));
        self.truncate(kept);
        kept
    }

    pub(crate) fn extend(&mut self, engine: &Engine, tokens: &[u32]) -> Result<(), ModelError> {
        engine.extend_until(&mut self.cache, tokens, &self.cancel)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Writes the logits after the last token, `[vocab]`.
    pub(crate) fn extend_to_logits(
        &mut self,
        engine: &Engine,
        tokens: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        engine.prefill_into(&mut self.cache, tokens, &self.cancel, logits)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Returns the logits after each token, `[tokens, vocab]`.
    pub(crate) fn extend_to_all_logits(&mut self, engine: &Engine, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let logits = engine.prefill_all(&mut self.cache, tokens, &self.cancel)?;
        self.tokens.extend_from_slice(tokens);
        Ok(logits)
    }
}
