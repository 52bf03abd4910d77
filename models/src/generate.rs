//! One answer as a pull-based machine: prefill a chunk, or decode a token, then return to the caller.

use crate::engine::Engine;
use crate::error::ModelError;
use crate::sampling::{Sampler, SamplingOptions};
use crate::sequence::Sequence;
use crate::speculation::Speculation;
use crate::text::TextStream;
use std::time::{Duration, Instant};

/// Prompt tokens processed at a time: each layer's weights are read once for all of them. Cancellation takes effect within
/// a layer, which takes as long for 128 tokens as all layers do for five.
pub const PREFILL_CHUNK_TOKENS: usize = 128;

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
    /// Tokens guessed from what was said before, and those of them that the model then said.
    pub drafted_tokens: usize,
    pub accepted_tokens: usize,
    pub queue_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
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
    speculation: Option<Speculation>,
    /// Tokens that were computed ahead of being drawn.
    ahead: Option<Ahead>,
    /// Of the newest token, in memory that is used again.
    logits: Vec<f32>,
    generated: Generated,
}

/// A pass over the newest token and a guess at what follows it. The sequence holds all of them.
struct Ahead {
    draft: Vec<u32>,
    /// After the newest token and after each one of the draft: `[draft + 1, vocab]`.
    logits: Vec<f32>,
    /// Tokens of the draft that were drawn, too, so far.
    drawn: usize,
    time: Duration,
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
            drafted_tokens: 0,
            accepted_tokens: 0,
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
            speculation: None,
            ahead: None,
            logits: Vec::new(),
            generated,
        })
    }

    /// Guesses tokens from what was said before, computes them ahead in one pass, and keeps those that are then drawn.
    /// The answer is the same, and often sooner complete.
    #[must_use]
    pub fn with_speculation(self) -> Self {
        Self { speculation: Some(Speculation::default()), ..self }
    }

    /// Processes one chunk of the prompt, or draws one token. After [`Advance::Done`] or an error it must not be called
    /// again.
    pub fn advance(&mut self) -> Result<Advance, ModelError> {
        let start = Instant::now();
        if self.ahead.is_none() {
            let rest = self.tokens.len() - self.sequence.tokens().len();
            if rest > PREFILL_CHUNK_TOKENS {
                let next = &self.tokens[self.sequence.tokens().len()..][..PREFILL_CHUNK_TOKENS];
                self.sequence.extend(self.engine, next)?;
                self.add_time(start.elapsed());
                return Ok(Advance::Prefilled);
            }
            if self.generated.completion_tokens > 0 {
                self.look_ahead()?;
            }
        }
        let token = match &mut self.ahead {
            Some(ahead) => {
                let vocab = ahead.logits.len() / (ahead.draft.len() + 1);
                self.sampler.sample(&mut ahead.logits[ahead.drawn * vocab..][..vocab], &self.tokens)?
            }
            None => {
                let next = &self.tokens[self.sequence.tokens().len()..];
                self.sequence.extend_to_logits(self.engine, next, &mut self.logits)?;
                self.sampler.sample(&mut self.logits, &self.tokens)?
            }
        };
        self.add_time(start.elapsed());
        self.compare(token, start.elapsed());
        Ok(self.take(token))
    }

    /// Computes the newest token with a guess at what follows, if there is a guess worth it.
    fn look_ahead(&mut self) -> Result<(), ModelError> {
        let Some(speculation) = &self.speculation else { return Ok(()) };
        // The last token that may be drawn needs none after it.
        let room = (self.max_tokens - self.generated.completion_tokens).saturating_sub(1);
        let draft = speculation.draft(&self.tokens, room);
        if draft.is_empty() {
            return Ok(());
        }
        let pass: Vec<u32> = self.tokens.last().copied().into_iter().chain(draft.iter().copied()).collect();
        let logits = self.sequence.extend_to_all_logits(self.engine, &pass)?;
        self.generated.drafted_tokens += draft.len();
        self.ahead = Some(Ahead { draft, logits, drawn: 0, time: Duration::ZERO });
        Ok(())
    }

    /// `token` was drawn in `time`: if it is the guessed one, what was computed ahead goes on.
    fn compare(&mut self, token: u32, time: Duration) {
        let Some(ahead) = &mut self.ahead else {
            let decoding = self.generated.completion_tokens > 0;
            self.speculation.iter_mut().filter(|_| decoding).for_each(|speculation| speculation.drew(time));
            return;
        };
        ahead.time += time;
        if ahead.draft.get(ahead.drawn) == Some(&token) {
            ahead.drawn += 1;
            self.generated.accepted_tokens += 1;
        } else {
            self.forget_ahead();
        }
    }

    /// Ends what was computed ahead: the sequence then holds what was drawn, and nothing else.
    fn forget_ahead(&mut self) {
        let Some(ahead) = self.ahead.take() else { return };
        let wrong = ahead.draft.len() - ahead.drawn;
        self.sequence.truncate(self.sequence.tokens().len() - wrong);
        self.speculation.iter_mut().for_each(|it| it.ended(ahead.draft.len(), ahead.drawn, ahead.time));
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
        self.forget_ahead();
        text.push_str(&self.text.finish());
        Advance::Done(text, Generated { finish, ..self.generated.clone() })
    }
}
