//! The layers that the architectures share. Activations are rows of f32, `[tokens, width]`, flat; candle multiplies.

mod attention;
mod mlp;
mod rope;
mod self_attention;

pub(crate) use attention::Attention;
pub(crate) use mlp::{Activation, GatedMlp};
pub(crate) use rope::{Pairing, Positions, Rope};
pub(crate) use self_attention::SelfAttention;

use crate::error::ModelError;
use crate::gguf::Gguf;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use std::sync::Arc;

/// `y = x W^T + b`; the bias only if the file has one.
pub(crate) struct Linear {
    weight: QMatMul,
    bias: Option<Vec<f32>>,
    rows: usize,
    columns: usize,
}

impl Linear {
    /// Reads `{name}.weight` of shape `[rows, columns]`, and `{name}.bias` of `[rows]` if present.
    pub(crate) fn load(gguf: &Gguf, name: &str, rows: usize, columns: usize) -> Result<Linear, ModelError> {
        let weight = QMatMul::from_qtensor(gguf.matrix(&format!("{name}.weight"), rows, columns)?)?;
        let bias = gguf.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { weight, bias, rows, columns })
    }

    /// `x`: `[tokens, columns]`. Returns `[tokens, rows]`.
    pub(crate) fn forward(&self, x: &Input) -> Result<Vec<f32>, ModelError> {
        let mut y = self.weight.forward(&x.0)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(self.rows).for_each(|row| add(row, bias));
        }
        Ok(y)
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}

/// Rows made ready for matrix products; several can share one.
pub(crate) struct Input(Tensor);

impl Input {
    pub(crate) fn new(rows: Vec<f32>, width: usize, device: &Device) -> Result<Input, ModelError> {
        Ok(Input(Tensor::from_vec(rows, ((), width), device)?))
    }
}

/// The token embedding; also the output head of models that tie the two.
pub(crate) struct Embedding {
    weight: Arc<QTensor>,
    device: Device,
}

impl Embedding {
    pub(crate) fn load(gguf: &Gguf, vocab: usize, hidden: usize) -> Result<Embedding, ModelError> {
        let weight = Arc::new(gguf.matrix("token_embd.weight", vocab, hidden)?);
        Ok(Embedding { weight, device: gguf.device().clone() })
    }

    /// Returns `[tokens, hidden]`.
    pub(crate) fn forward(&self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let ids = Tensor::new(tokens, &self.device)?;
        Ok(self.weight.embedding(&ids)?.flatten_all()?.to_vec1()?)
    }
}

/// From the last hidden row to logits.
pub(crate) struct Output {
    norm: RmsNorm,
    head: Linear,
    device: Device,
}

impl Output {
    /// Uses `output.weight`, else the embedding.
    pub(crate) fn load(gguf: &Gguf, embedding: &Embedding, vocab: usize, norm: RmsNorm) -> Result<Output, ModelError> {
        let hidden = norm.len();
        let head = match gguf.has("output.weight") {
            true => Linear::load(gguf, "output", vocab, hidden)?,
            false => {
                let weight = QMatMul::from_arc(embedding.weight.clone())?;
                Linear { weight, bias: None, rows: vocab, columns: hidden }
            }
        };
        Ok(Output { norm, head, device: gguf.device().clone() })
    }

    /// `x`: `[tokens, hidden]`. Returns the logits after the last token, `[vocab]`.
    pub(crate) fn forward(&self, x: &[f32]) -> Result<Vec<f32>, ModelError> {
        let last = &x[x.len() - self.head.columns..];
        self.head.forward(&Input::new(self.norm.forward(last), self.head.columns, &self.device)?)
    }
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

    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        self.forward_in_place(&mut y);
        y
    }

    pub(crate) fn forward_in_place(&self, x: &mut [f32]) {
        for row in x.chunks_exact_mut(self.weight.len()) {
            let mean_square = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
            let scale = 1.0 / (mean_square + self.epsilon).sqrt();
            row.iter_mut().zip(&self.weight).for_each(|(value, weight)| *value *= scale * weight);
        }
    }
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
