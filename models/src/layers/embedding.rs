//! From tokens to the first hidden rows, and from the last ones to logits.

use super::{Compute, Linear, Projection, RmsNorm, Scratch};
use crate::error::ModelError;
use crate::gguf::{Gguf, RowReader, Weight};
use crate::kernels::Matrix;
use crate::kernels::pack::unpack_row;
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// The token embedding.
pub(crate) enum Embedding {
    /// The output head's matrix, of models that tie the two.
    Tied(Arc<Matrix>),
    /// Rows stay in the file until they are needed.
    File(RowReader),
    Candle(Arc<QTensor>, Device),
}

/// From the last hidden rows to logits.
pub(crate) struct Output {
    norm: RmsNorm,
    head: Projection,
}

/// Reads the embedding and the head, which is `output.weight`, else the embedding.
pub(crate) fn load(gguf: &Gguf, vocab: usize, norm: RmsNorm) -> Result<(Embedding, Output), ModelError> {
    const NAME: &str = "token_embd.weight";
    let (hidden, device) = (norm.len(), gguf.device());
    let own_head = gguf.has("output.weight");
    let rows = if own_head { gguf.rows(NAME, vocab, hidden)? } else { None };
    let (embedding, head) = match rows {
        Some(rows) => (Embedding::File(rows), None),
        None => match gguf.matrix(NAME, vocab, hidden)? {
            Weight::Packed(matrix) => (Embedding::Tied(matrix.clone()), Some(Weight::Packed(matrix))),
            Weight::Candle(weight) => (Embedding::Candle(weight.clone(), device.clone()), Some(Weight::Candle(weight))),
        },
    };
    let head = match head.filter(|_| !own_head) {
        Some(weight) => Linear::new(weight, None, vocab, device)?,
        None => Linear::load(gguf, "output", vocab, hidden)?,
    };
    Ok((embedding, Output { norm, head: Projection::new(vec![head]) }))
}

impl Embedding {
    /// Writes `[tokens, hidden]` to `scratch.x`.
    pub(crate) fn forward(&self, tokens: &[u32], hidden: usize, scratch: &mut Scratch) -> Result<(), ModelError> {
        let Scratch { x, bytes, .. } = scratch;
        x.resize(tokens.len() * hidden, 0.0);
        let rows = x.chunks_exact_mut(hidden).zip(tokens);
        match self {
            Embedding::Tied(matrix) => rows.for_each(|(row, &token)| unpack_row(matrix, token as usize, row)),
            Embedding::File(reader) => {
                reader.expect_unchanged()?;
                for (row, &token) in rows {
                    reader.row(token as usize, bytes, row)?;
                }
            }
            Embedding::Candle(weight, device) => {
                let ids = Tensor::new(tokens, device)?;
                *x = weight.embedding(&ids)?.flatten_all()?.to_vec1()?;
            }
        }
        Ok(())
    }
}

impl Output {
    /// Writes the logits after the last `count` tokens of `scratch.x` to `logits`, `[count, vocab]`.
    pub(crate) fn forward(
        &self,
        compute: &Compute<'_>,
        scratch: &mut Scratch,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let last = &scratch.x[scratch.x.len() - count * self.norm.len()..];
        self.norm.forward(compute, last, &mut scratch.input);
        self.head.forward(compute, &scratch.input, logits, false)
    }
}
