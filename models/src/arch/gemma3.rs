//! Gemma 3 (Gemma Team, 2025): five layers with a sliding window to one without, norms before and after, and
//! embeddings scaled up. The file's norm weights already hold the 1 that the paper adds.

use crate::decoder::{Decoder, Layer};
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::layers::{Activation, GatedMlp, Pairing, RmsNorm, Rope, SelfAttention};

/// Every sixth layer sees everything.
const GLOBAL_PERIOD: usize = 6;
/// Rotary base of the layers with a window; the file names the other.
const LOCAL_ROPE_BASE: f32 = 10_000.0;
/// Layers of the 27B model, which alone scales its queries by the width and not by the head.
const LAYERS_27B: usize = 62;

/// Indices of the two rotary embeddings.
const LOCAL: usize = 0;
const GLOBAL: usize = 1;

pub(super) fn load(gguf: &Gguf, dims: &Dimensions, _context: usize) -> Result<Decoder, ModelError> {
    let local = Rope::new(dims.head_dim, LOCAL_ROPE_BASE, 1.0, Pairing::Halves);
    let global = Rope::new(dims.head_dim, gguf.rope_base(1_000_000.0)?, gguf.rope_linear_factor()?, Pairing::Halves);
    let window = gguf.sliding_window()?;
    let decoder = Decoder::load(gguf, dims, vec![local, global], |index| layer(gguf, dims, window, index))?;
    Ok(Decoder { embedding_scale: (dims.hidden as f32).sqrt(), ..decoder })
}

fn layer(gguf: &Gguf, dims: &Dimensions, window: Option<usize>, index: usize) -> Result<Layer, ModelError> {
    let block = format!("blk.{index}");
    let norm = |name: &str| RmsNorm::load(gguf, &format!("{block}.{name}"), dims.hidden, dims.rms_epsilon);
    let is_global = (index + 1).is_multiple_of(GLOBAL_PERIOD);
    let attention = SelfAttention::load(gguf, dims, &block, window.filter(|_| !is_global))?;
    let attention = match dims.layers {
        LAYERS_27B => attention.with_scale(1.0 / ((dims.hidden / dims.heads) as f32).sqrt()),
        _ => attention,
    };
    Ok(Layer {
        attention_norm: norm("attn_norm")?,
        attention: attention.with_head_norms(gguf, &block)?,
        post_attention_norm: Some(norm("post_attention_norm")?),
        mlp_norm: norm("ffn_norm")?,
        mlp: GatedMlp::load(gguf, dims, &block, Activation::GeluTanh)?,
        post_mlp_norm: Some(norm("post_ffw_norm")?),
        rope: if is_global { GLOBAL } else { LOCAL },
    })
}
