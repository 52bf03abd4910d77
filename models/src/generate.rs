//! One answer as a pull-based machine: prefill a chunk, or decode a token, then return to the caller.

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::ModelError;
use crate::sampling::{Sampler, SamplingOptions};
use crate::text::TextStream;
use crate::worker::Cancel;
use std::time::{Duration, Instant};

/// Prompt tokens processed at a time; cancellation takes effect within one chunk.
pub const PREFILL_CHUNK_TOKENS: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    pub sampling: SamplingOptions,
    pub max_tokens: usize,
    pub stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or a stop string was met.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    pub finish: Finish,
    pub prompt_tokens: usize,
    /// Prompt tokens that were found in the cache and not computed again.
    pub cached_tokens: usize,
    /// Tokens of the answer; the one that ends the turn is not counted.
    pub completion_tokens: usize,
    pub queue_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
}

/// A cache and the tokens it holds, to be used by one answer after the other.
pub struct Sequence {
    cache: Cache,
    tokens: Vec<u32>,
    cancel: Cancel,
}

/// What one call of [`Generation::advance`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Advance {
    /// A chunk of the prompt was processed, and more is to come.
    Prefilled,
    /// A token was drawn. The text, whole characters only, may be empty.
    Text(String),
    /// The answer is complete; the text is what was still held back.
    Done(String, Generated),
}

/// One answer in the making.
pub struct Generation<'a> {
    engine: &'a Engine,
    sequence: &'a mut Sequence,
    sampler: Sampler,
    text: TextStream,
    /// The prompt, then the answer's tokens.
    tokens: Vec<u32>,
    max_tokens: usize,
    generated: Generated,
}

impl Sequence {
    pub fn new(engine: &Engine) -> Result<Sequence, ModelError> {
        Ok(Sequence { cache: engine.new_cache()?, tokens: Vec::new(), cancel: Cancel::default() })
    }

    /// From now on, passes over this sequence end with [`ModelError::Cancelled`] within a layer of `cancel`.
    pub fn until(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// The tokens whose keys and values are held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Keeps what the sequence has in common with `prompt`, but never all of it: the last token gives the logits.
    fn keep_common(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count();
        let kept = common.min(prompt.len().saturating_sub(1));
        self.cache.truncate(kept);
        self.tokens.truncate(kept);
        kept
    }

    fn extend(&mut self, engine: &Engine, tokens: &[u32]) -> Result<(), ModelError> {
        engine.extend_until(&mut self.cache, tokens, &self.cancel)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn extend_to_logits(&mut self, engine: &Engine, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let logits = engine.prefill_until(&mut self.cache, tokens, &self.cancel)?;
        self.tokens.extend_from_slice(tokens);
        Ok(logits)
    }
}

impl<'a> Generation<'a> {
    /// Begins an answer to `prompt`. What `sequence` holds of it already is not computed again; the rest is forgotten.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] if the prompt leaves no room for one token, [`ModelError::Parameter`] for an empty
    /// prompt or options that make no sense.
    pub fn new(
        engine: &'a Engine,
        sequence: &'a mut Sequence,
        prompt: Vec<u32>,
        options: &GenerateOptions,
    ) -> Result<Generation<'a>, ModelError> {
        let context_tokens = engine.info().context_tokens;
        if prompt.is_empty() {
            return Err(ModelError::Parameter { parameter: "prompt", problem: "it is empty".into() });
        }
        if options.max_tokens == 0 {
            return Err(ModelError::Parameter { parameter: "max_tokens", problem: "at least 1 is needed".into() });
        }
        if prompt.len() >= context_tokens {
            return Err(ModelError::ContextFull { prompt_tokens: prompt.len(), context_tokens });
        }
        let generated = Generated {
            finish: Finish::Length,
            prompt_tokens: prompt.len(),
            cached_tokens: sequence.keep_common(&prompt),
            completion_tokens: 0,
            queue_ms: 0.0,
            prefill_ms: 0.0,
            decode_ms: 0.0,
        };
        Ok(Generation {
            engine,
            sequence,
            sampler: Sampler::new(&options.sampling)?,
            text: TextStream::new(&options.stop)?,
            max_tokens: options.max_tokens.min(context_tokens - prompt.len()),
            tokens: prompt,
            generated,
        })
    }

    /// Processes one chunk of the prompt, or draws one token. After [`Advance::Done`] or an error it must not be called
    /// again.
    pub fn advance(&mut self) -> Result<Advance, ModelError> {
        let start = Instant::now();
        let rest = self.tokens.len() - self.sequence.tokens.len();
        let chunk = rest.min(PREFILL_CHUNK_TOKENS);
        let next = self.tokens[self.sequence.tokens.len()..][..chunk].to_vec();
        if rest > chunk {
            self.sequence.extend(self.engine, &next)?;
            self.add_time(start.elapsed());
            return Ok(Advance::Prefilled);
        }
        let mut logits = self.sequence.extend_to_logits(self.engine, &next)?;
        let token = self.sampler.sample(&mut logits, &self.tokens)?;
        self.add_time(start.elapsed());
        Ok(self.take(token))
    }

    /// Time up to the first token is prefill, the rest decoding.
    fn add_time(&mut self, time: Duration) {
        let sum = match self.generated.completion_tokens {
            0 => &mut self.generated.prefill_ms,
            _ => &mut self.generated.decode_ms,
        };
        *sum += time.as_secs_f64() * 1e3;
    }

    fn take(&mut self, token: u32) -> Advance {
        let tokenizer = self.engine.tokenizer();
        if tokenizer.is_end(token) {
            return self.done(Finish::Stop, String::new());
        }
        self.tokens.push(token);
        self.generated.completion_tokens += 1;
        let text = self.text.push(tokenizer.token_bytes(token));
        if self.text.is_stopped() {
            return self.done(Finish::Stop, text);
        }
        if self.generated.completion_tokens >= self.max_tokens {
            return self.done(Finish::Length, text);
        }
        Advance::Text(text)
    }

    fn done(&mut self, finish: Finish, mut text: String) -> Advance {
        text.push_str(&self.text.finish());
        Advance::Done(text, Generated { finish, ..self.generated.clone() })
    }
}
