//! LLaMA (Touvron et al., 2023), Llama 2 and 3, SmolLM2, Mistral 7B.

use crate::decoder::{Decoder, Layer};
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::layers::{Activation, GatedMlp, Pairing, RmsNorm, Rope, SelfAttention};

pub(super) fn load(gguf: &Gguf, dims: &Dimensions, _context: usize) -> Result<Decoder, ModelError> {
    gguf.refuse_experts()?;
    let rope_dimensions = gguf.rope_dimensions(dims.head_dim)?;
    let rope = Rope::new(rope_dimensions, gguf.rope_base(10_000.0)?, gguf.rope_linear_factor()?, Pairing::Adjacent);
    // Llama 3.1 and later stretch the low frequencies.
    let rope = rope.with_factors(gguf, "rope_freqs.weight")?;
    Decoder::load(gguf, dims, vec![rope], |index| layer(gguf, dims, index))
}

fn layer(gguf: &Gguf, dims: &Dimensions, index: usize) -> Result<Layer, ModelError> {
    let block = format!("blk.{index}");
    let norm = |name: &str| RmsNorm::load(gguf, &format!("{block}.{name}"), dims.hidden, dims.rms_epsilon);
    Ok(Layer {
        attention_norm: norm("attn_norm")?,
        attention: SelfAttention::load(gguf, dims, &block, None)?,
        post_attention_norm: None,
        mlp_norm: norm("ffn_norm")?,
        mlp: GatedMlp::load(gguf, dims, &block, Activation::Silu)?,
        post_mlp_norm: None,
        rope: 0,
    })
}
