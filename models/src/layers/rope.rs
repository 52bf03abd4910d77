//! Rotary position embedding (Su et al., 2021).

use crate::error::ModelError;
use crate::gguf::Gguf;

/// Which two numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// `(2i, 2i + 1)`: llama, whose GGUF weights are permuted for it.
    Adjacent,
    /// `(i, i + n/2)`: all the others.
    Halves,
}

/// The frequencies of one kind of layer.
pub(crate) struct Rope {
    frequencies: Vec<f32>,
    pairing: Pairing,
    /// Factor on cosine and sine; 1 but for "longrope".
    magnitude: f32,
}

/// Cosines and sines of consecutive positions, `[tokens, n/2]` each; shared by the layers of a pass.
#[derive(Default)]
pub(crate) struct Positions {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// `dimensions` of each head are turned, with the frequencies `base^(-2i/dimensions) / factor`.
    pub(crate) fn new(dimensions: usize, base: f32, factor: f32, pairing: Pairing) -> Rope {
        let frequency = |i: usize| 1.0 / base.powf((2 * i) as f32 / dimensions as f32) / factor;
        Rope { frequencies: (0..dimensions / 2).map(frequency).collect(), pairing, magnitude: 1.0 }
    }

    /// Divides each frequency by the file's factor for it, if the file has the tensor `name`.
    pub(crate) fn with_factors(mut self, gguf: &Gguf, name: &str) -> Result<Rope, ModelError> {
        let Some(factors) = gguf.optional_vector(name, self.frequencies.len())? else { return Ok(self) };
        if factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            return Err(gguf.error(format!("tensor {name} holds a factor that is not positive")));
        }
        self.frequencies.iter_mut().zip(factors).for_each(|(frequency, factor)| *frequency /= factor);
        Ok(self)
    }

    pub(crate) fn with_magnitude(self, magnitude: f32) -> Rope {
        Rope { magnitude, ..self }
    }

    /// The angles of `tokens` positions from `start` on.
    pub(crate) fn fill(&self, start: usize, tokens: usize, positions: &mut Positions) {
        positions.cos.clear();
        positions.sin.clear();
        for position in start..start + tokens {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                positions.cos.push(cos * self.magnitude);
                positions.sin.push(sin * self.magnitude);
            }
        }
    }

    /// Turns `heads`, `[heads, head_dim]`, of the pass's token `token`. Numbers past the rotary dimensions stay.
    pub(crate) fn rotate(&self, positions: &Positions, token: usize, heads: &mut [f32], head_dim: usize) {
        let half = self.frequencies.len();
        let (cos, sin) = (&positions.cos[token * half..][..half], &positions.sin[token * half..][..half]);
        for head in heads.chunks_exact_mut(head_dim) {
            match self.pairing {
                Pairing::Adjacent => rotate_adjacent(&mut head[..2 * half], cos, sin),
                Pairing::Halves => rotate_halves(&mut head[..2 * half], cos, sin),
            }
        }
    }
}

fn rotate_adjacent(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
    }
}

fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}
