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

/// Cosines and sines of consecutive positions, `[tokens, n/2]` each.
pub(crate) struct Positions<'a> {
    rope: &'a Rope,
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

    /// The angles of `tokens` positions from `start` on; shared by all layers of one pass.
    pub(crate) fn positions(&self, start: usize, tokens: usize) -> Positions<'_> {
        let angles =
            (start..start + tokens).flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f));
        let (sin, cos) =
            angles.map(f32::sin_cos).map(|(sin, cos)| (sin * self.magnitude, cos * self.magnitude)).unzip();
        Positions { rope: self, cos, sin }
    }
}

impl Positions<'_> {
    /// Turns `x`, `[tokens, heads, head_dim]`. Numbers past the rotary dimensions stay.
    pub(crate) fn rotate(&self, x: &mut [f32], heads: usize, head_dim: usize) {
        let half = self.rope.frequencies.len();
        let angles = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
        for (token, (cos, sin)) in x.chunks_exact_mut(heads * head_dim).zip(angles) {
            for head in token.chunks_exact_mut(head_dim) {
                match self.rope.pairing {
                    Pairing::Adjacent => rotate_adjacent(&mut head[..2 * half], cos, sin),
                    Pairing::Halves => rotate_halves(&mut head[..2 * half], cos, sin),
                }
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
