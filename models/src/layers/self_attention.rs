//! The attention of one layer, with its projections.

use super::{Attention, Input, Linear, Positions, RmsNorm};
use crate::cache::LayerCache;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use candle_core::Device;

pub(crate) struct SelfAttention {
    dims: Dimensions,
    projections: Projections,
    /// Norms of each head's query and key, of the models that have them.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    attention: Attention,
    output: Linear,
    device: Device,
}

enum Projections {
    Separate {
        query: Linear,
        key: Linear,
        value: Linear,
    },
    /// One matrix, the rows of query, key and value in turn.
    Fused(Linear),
}

/// Queries, keys and values, a row for each token.
type Projected = (Vec<f32>, Vec<f32>, Vec<f32>);

impl SelfAttention {
    pub(crate) fn load(
        gguf: &Gguf,
        dims: &Dimensions,
        block: &str,
        attention: Attention,
    ) -> Result<SelfAttention, ModelError> {
        let name = |part: &str| format!("{block}.{part}");
        let (query, kv) = (dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim);
        let projections = match gguf.has(&name("attn_qkv.weight")) {
            true => Projections::Fused(Linear::load(gguf, &name("attn_qkv"), query + 2 * kv, dims.hidden)?),
            false => Projections::Separate {
                query: Linear::load(gguf, &name("attn_q"), query, dims.hidden)?,
                key: Linear::load(gguf, &name("attn_k"), kv, dims.hidden)?,
                value: Linear::load(gguf, &name("attn_v"), kv, dims.hidden)?,
            },
        };
        let output = Linear::load(gguf, &name("attn_output"), dims.hidden, query)?;
        let device = gguf.device().clone();
        Ok(SelfAttention { dims: dims.clone(), projections, head_norms: None, attention, output, device })
    }

    /// With the norms of each head's query and key (Qwen 3, Gemma 3).
    pub(crate) fn with_head_norms(self, gguf: &Gguf, block: &str) -> Result<SelfAttention, ModelError> {
        let (len, epsilon) = (self.dims.head_dim, self.dims.rms_epsilon);
        let norm = |part: &str| RmsNorm::load(gguf, &format!("{block}.{part}"), len, epsilon);
        let head_norms = Some((norm("attn_q_norm")?, norm("attn_k_norm")?));
        Ok(SelfAttention { head_norms, ..self })
    }

    /// `x`: `[tokens, hidden]`, at the positions from `start` on. Returns the same shape.
    pub(crate) fn forward(
        &self,
        cache: &mut LayerCache,
        start: usize,
        positions: &Positions<'_>,
        x: &Input,
    ) -> Result<Vec<f32>, ModelError> {
        let (mut queries, mut keys, values) = self.project(x)?;
        if let Some((query_norm, key_norm)) = &self.head_norms {
            query_norm.forward_in_place(&mut queries);
            key_norm.forward_in_place(&mut keys);
        }
        positions.rotate(&mut queries, self.dims.heads, self.dims.head_dim);
        positions.rotate(&mut keys, self.dims.kv_heads, self.dims.head_dim);
        let mixed = self.attention.forward(cache, start, &queries, &keys, &values);
        self.output.forward(&Input::new(mixed, self.output.columns(), &self.device)?)
    }

    fn project(&self, x: &Input) -> Result<Projected, ModelError> {
        let fused = match &self.projections {
            Projections::Separate { query, key, value } => {
                return Ok((query.forward(x)?, key.forward(x)?, value.forward(x)?));
            }
            Projections::Fused(linear) => linear.forward(x)?,
        };
        let (query, kv) = (self.dims.heads * self.dims.head_dim, self.dims.kv_heads * self.dims.head_dim);
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for row in fused.chunks_exact(query + 2 * kv) {
            queries.extend_from_slice(&row[..query]);
            keys.extend_from_slice(&row[query..query + kv]);
            values.extend_from_slice(&row[query + kv..]);
        }
        Ok((queries, keys, values))
    }
}
