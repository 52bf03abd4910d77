//! The encoders that can be compared: hashed n-grams, a sentence encoder, and both side by side.

use anyhow::Context;
use clap::ValueEnum;
use std::time::Instant;
use tether_models::SentenceEncoder;
use tether_models::registry::Registry;
use tether_models::sentence;
use tether_policies::mess::{Encoder, HashedEncoder};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncoderName {
    /// Hashed n-grams; needs nothing.
    Hashed,
    /// all-MiniLM-L6-v2; `tether models pull all-minilm-l6-v2` and `.. all-minilm-l6-v2.tokenizer`.
    Minilm,
    /// Both, one behind the other.
    Both,
}

impl EncoderName {
    pub const ALL: [EncoderName; 3] = [Self::Hashed, Self::Minilm, Self::Both];

    /// # Errors
    /// Weights that are not there, with the command that fetches them.
    pub fn open(self) -> anyhow::Result<Box<dyn Encoder>> {
        Ok(match self {
            Self::Hashed => Box::new(HashedEncoder),
            Self::Minilm => Box::new(MiniLm::open()?),
            Self::Both => Box::new(Both(MiniLm::open()?)),
        })
    }
}

struct MiniLm(SentenceEncoder);

impl MiniLm {
    fn open() -> anyhow::Result<Self> {
        let registry = Registry::from_env()?;
        let fetch = || {
            format!(
                "`tether models pull {}` and `tether models pull {}` fetch it",
                sentence::WEIGHTS,
                sentence::TOKENIZER
            )
        };
        Ok(Self(SentenceEncoder::from_registry(&registry).with_context(fetch)?))
    }
}

impl Encoder for MiniLm {
    fn name(&self) -> &str {
        sentence::WEIGHTS
    }

    fn width(&self) -> usize {
        self.0.width()
    }

    fn encode(&self, text: &str) -> Vec<f32> {
        self.0.embed(text).expect("the encoder takes every text")
    }
}

struct Both(MiniLm);

impl Encoder for Both {
    fn name(&self) -> &str {
        "hashed-1+all-minilm-l6-v2"
    }

    fn width(&self) -> usize {
        HashedEncoder.width() + self.0.width()
    }

    fn encode(&self, text: &str) -> Vec<f32> {
        let mut values = HashedEncoder.encode(text);
        values.extend(self.0.encode(text));
        values
    }
}

/// The median time to encode one of these texts, in ms, on this thread and whatever pool the encoder has.
pub fn median_ms(encoder: &dyn Encoder, texts: &[String]) -> f64 {
    let time = |text: &String| {
        let before = Instant::now();
        std::hint::black_box(encoder.encode(text));
        before.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = texts.iter().map(time).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}
