//! The attention of one layer, with its projections: scaled dot products with a softmax (Vaswani et al., 2017), causal,
//! with grouped queries (Ainslie et al., 2023) and an optional sliding window.

use super::{Compute, Linear, Projection, RmsNorm, Rope, Scratch};
use crate::cache::LayerCache;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::kernels::Shape;

pub(crate) struct SelfAttention {
    shape: Shape,
    /// Query, key and value, side by side.
    projection: Projection,
    /// Norms of each head's query and key, of the models that have them.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    output: Projection,
    epsilon: f32,
}

impl SelfAttention {
    /// `window`: tokens that a position sees, itself included; `None`: all before it.
    pub(crate) fn load(
        gguf: &Gguf,
        dims: &Dimensions,
        block: &str,
        window: Option<usize>,
    ) -> Result<SelfAttention, ModelError> {
        let name = |part: &str| format!("{block}.{part}");
        let (query, kv) = (dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim);
        let linear = |part: &str, rows: usize| Linear::load(gguf, &name(part), rows, dims.hidden);
        let projection = match gguf.has(&name("attn_qkv.weight")) {
            true => vec![linear("attn_qkv", query + 2 * kv)?],
            false => vec![linear("attn_q", query)?, linear("attn_k", kv)?, linear("attn_v", kv)?],
        };
        Ok(SelfAttention {
            shape: Shape {
                heads: dims.heads,
                kv_heads: dims.kv_heads,
                head_dim: dims.head_dim,
                scale: 1.0 / (dims.head_dim as f32).sqrt(),
                window,
            },
            projection: Projection::new(projection),
            head_norms: None,
            output: Projection::new(vec![Linear::load(gguf, &name("attn_output"), dims.hidden, query)?]),
            epsilon: dims.rms_epsilon,
        })
    }

    /// With another factor on the scores than one over the root of the head's width.
    pub(crate) fn with_scale(mut self, scale: f32) -> SelfAttention {
        self.shape.scale = scale;
        self
    }

    /// With the norms of each head's query and key (Qwen 3, Gemma 3).
    pub(crate) fn with_head_norms(self, gguf: &Gguf, block: &str) -> Result<SelfAttention, ModelError> {
        let (len, epsilon) = (self.shape.head_dim, self.epsilon);
        let norm = |part: &str| RmsNorm::load(gguf, &format!("{block}.{part}"), len, epsilon);
        let head_norms = Some((norm("attn_q_norm")?, norm("attn_k_norm")?));
        Ok(SelfAttention { head_norms, ..self })
    }

    /// Attends from `scratch.input`, `[tokens, hidden]`, at the positions from `start` on, with the angles of
    /// `scratch.positions[rope.1]`. Adds the result to `scratch.x`, or with `apart` writes it to `scratch.update`.
    pub(crate) fn forward(
        &self,
        compute: &Compute<'_>,
        cache: &mut LayerCache,
        start: usize,
        rope: (&Rope, usize),
        scratch: &mut Scratch,
        apart: bool,
    ) -> Result<(), ModelError> {
        let Scratch { x, input, update, wide, inner, halves, positions, .. } = scratch;
        self.projection.forward(compute, input, wide, false)?;
        let (head_dim, stride) = (self.shape.head_dim, self.projection.rows());
        let (query, kv) = (self.shape.heads * head_dim, self.shape.kv_heads * head_dim);
        compute.pass.rows(wide, stride, |token, row| {
            let (queries, rest) = row.split_at_mut(query);
            if let Some((query_norm, key_norm)) = &self.head_norms {
                query_norm.forward_in_place(&compute.kernels, queries);
                key_norm.forward_in_place(&compute.kernels, &mut rest[..kv]);
            }
            rope.0.rotate(&positions[rope.1], token, queries, head_dim);
            rope.0.rotate(&positions[rope.1], token, &mut rest[..kv], head_dim);
        });
        for (token, row) in wide.chunks_exact(stride).enumerate() {
            let (key, value) = row[query..].split_at(kv);
            cache.write(&compute.kernels, start + token, key, value, halves);
        }
        let cache = &*cache;
        let page = |head: usize, page: usize| cache.page(head, page);
        compute.kernels.attend(&compute.pass, self.shape, (wide, stride), start, page, inner);
        match apart {
            true => self.output.forward(compute, inner, update, false),
            false => self.output.forward(compute, inner, x, true),
        }
    }
}
