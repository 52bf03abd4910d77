//! Phi 3 and Phi 4 mini (Abdin et al., 2024): fused projections, a sliding window in some, and "longrope" factors in
//! the long-context ones.

use crate::decoder::{Decoder, Layer};
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::layers::{Activation, GatedMlp, Pairing, RmsNorm, Rope, SelfAttention};

pub(super) fn load(gguf: &Gguf, dims: &Dimensions, context: usize) -> Result<Decoder, ModelError> {
    let rope_dimensions = gguf.rope_dimensions(dims.head_dim)?;
    let rope = Rope::new(rope_dimensions, gguf.rope_base(10_000.0)?, gguf.rope_linear_factor()?, Pairing::Halves);
    // One set of factors serves a whole sequence, so the length it may reach decides, as in llama.cpp.
    let factors = match context > gguf.rope_original_context(context)? {
        true => "rope_factors_long.weight",
        false => "rope_factors_short.weight",
    };
    let rope = rope.with_factors(gguf, factors)?.with_magnitude(gguf.rope_attention_factor()?);
    let window = gguf.sliding_window()?;
    Decoder::load(gguf, dims, vec![rope], |index| layer(gguf, dims, window, index))
}

fn layer(gguf: &Gguf, dims: &Dimensions, window: Option<usize>, index: usize) -> Result<Layer, ModelError> {
    let block = format!("blk.{index}");
    let norm = |name: &str| RmsNorm::load(gguf, &format!("{block}.{name}"), dims.hidden, dims.rms_epsilon);
    Ok(Layer {
        attention_norm: norm("attn_norm")?,
        attention: SelfAttention::load(gguf, dims, &block, window)?,
        post_attention_norm: None,
        mlp_norm: norm("ffn_norm")?,
        mlp: GatedMlp::load(gguf, dims, &block, Activation::Silu)?,
        post_mlp_norm: None,
        rope: 0,
    })
}
