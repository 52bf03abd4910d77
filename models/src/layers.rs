//! The layers that the architectures share. Activations are rows of f32, `[tokens, width]`, flat.

mod attention;
mod embedding;
mod linear;
mod mlp;
mod rope;

pub(crate) use attention::SelfAttention;
pub(crate) use embedding::{Embedding, Output, load as load_ends};
pub(crate) use linear::{Linear, Projection};
pub(crate) use mlp::GatedMlp;
pub(crate) use rope::{Pairing, Positions, Rope};

pub(crate) use crate::kernels::Activation;

use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::kernels::{Input, Kernels, Pass};

/// What a pass computes with.
pub(crate) struct Compute<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) pass: Pass<'a>,
}

/// Memory of a pass, used again by the next.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The residual stream, `[tokens, hidden]`.
    pub(crate) x: Vec<f32>,
    /// A layer's input, normed.
    pub(crate) input: Input,
    /// What a sub-layer adds, where it is normed first.
    pub(crate) update: Vec<f32>,
    /// Queries, keys and values side by side; or gates and ups.
    pub(crate) wide: Vec<f32>,
    /// What the last projection of a sub-layer takes.
    pub(crate) inner: Input,
    /// One position's keys or values.
    pub(crate) halves: Vec<u16>,
    /// A row of the file.
    pub(crate) bytes: Vec<u8>,
    pub(crate) positions: Vec<Positions>,
}

/// Root mean square norm over rows of the weight's length.
pub(crate) struct RmsNorm {
    weight: Vec<f32>,
    epsilon: f32,
}

impl RmsNorm {
    pub(crate) fn load(gguf: &Gguf, name: &str, len: usize, epsilon: f32) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm { weight: gguf.vector(&format!("{name}.weight"), len)?, epsilon })
    }

    pub(crate) fn len(&self) -> usize {
        self.weight.len()
    }

    /// Norms rows and makes them ready for projections.
    pub(crate) fn forward(&self, compute: &Compute<'_>, rows: &[f32], to: &mut Input) {
        compute.kernels.norm(&compute.pass, rows, &self.weight, self.epsilon, to);
    }

    /// Norms each of the rows in place.
    pub(crate) fn forward_in_place(&self, kernels: &Kernels, rows: &mut [f32]) {
        rows.chunks_exact_mut(self.weight.len()).for_each(|row| kernels.norm_row(row, &self.weight, self.epsilon));
    }
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
