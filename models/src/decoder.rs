//! A decoder-only transformer: what the architectures, one file each in `arch/`, are assembled from.

use crate::cache::LayerCache;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::layers::{Compute, Embedding, GatedMlp, Output, RmsNorm, Rope, Scratch, SelfAttention, add, load_ends};
use crate::worker::Cancel;
use rayon::prelude::*;

pub(crate) struct Decoder {
    pub(crate) embedding: Embedding,
    /// Factor on the embeddings; 1 for most.
    pub(crate) embedding_scale: f32,
    /// The rotary embeddings; each layer uses one of them.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output: Output,
    pub(crate) hidden: usize,
}

/// `x += post_norm(attention(norm(x)))`, then the same with the feed-forward layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: RmsNorm,
    pub(crate) attention: SelfAttention,
    pub(crate) post_attention_norm: Option<RmsNorm>,
    pub(crate) mlp_norm: RmsNorm,
    pub(crate) mlp: GatedMlp,
    pub(crate) post_mlp_norm: Option<RmsNorm>,
    /// Index into [`Decoder::ropes`].
    pub(crate) rope: usize,
}

impl Decoder {
    /// Loads the parts outside the layers, and the layers side by side: reading is fast and re-quantising is not.
    pub(crate) fn load(
        gguf: &Gguf,
        dims: &Dimensions,
        ropes: Vec<Rope>,
        layer: impl Fn(usize) -> Result<Layer, ModelError> + Send + Sync,
    ) -> Result<Decoder, ModelError> {
        let norm = RmsNorm::load(gguf, "output_norm", dims.hidden, dims.rms_epsilon)?;
        let (ends, layers) = rayon::join(
            || load_ends(gguf, dims.vocab, norm),
            || (0..dims.layers).into_par_iter().map(layer).collect::<Result<_, _>>(),
        );
        let (embedding, output) = ends?;
        Ok(Decoder { embedding, embedding_scale: 1.0, ropes, layers: layers?, output, hidden: dims.hidden })
    }

    /// Runs `tokens` (at least one) at the positions from `start` on, and writes their keys and values to `cache`, one
    /// entry a layer. Leaves the last layer's output, `[tokens, hidden]`, in `scratch.x`, or stops before the next layer
    /// once cancelled.
    pub(crate) fn forward(
        &self,
        compute: &Compute<'_>,
        cache: &mut [LayerCache],
        start: usize,
        tokens: &[u32],
        cancel: &Cancel,
        scratch: &mut Scratch,
    ) -> Result<(), ModelError> {
        scratch.positions.resize_with(self.ropes.len(), Default::default);
        for (rope, positions) in self.ropes.iter().zip(&mut scratch.positions) {
            rope.fill(start, tokens.len(), positions);
        }
        self.embedding.forward(tokens, self.hidden, scratch)?;
        if self.embedding_scale != 1.0 {
            scratch.x.iter_mut().for_each(|value| *value *= self.embedding_scale);
        }
        for (layer, cache) in self.layers.iter().zip(cache) {
            if cancel.is_cancelled() {
                return Err(ModelError::Cancelled);
            }
            layer.forward(compute, cache, start, (&self.ropes[layer.rope], layer.rope), scratch)?;
        }
        Ok(())
    }

    /// Writes the logits after the last `count` tokens of `scratch.x`, which `forward` left, `[count, vocab]`.
    pub(crate) fn logits(
        &self,
        compute: &Compute<'_>,
        scratch: &mut Scratch,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        self.output.forward(compute, scratch, count, logits)
    }
}

impl Layer {
    /// Changes `scratch.x`, `[tokens, hidden]`, in place.
    fn forward(
        &self,
        compute: &Compute<'_>,
        cache: &mut LayerCache,
        start: usize,
        rope: (&Rope, usize),
        scratch: &mut Scratch,
    ) -> Result<(), ModelError> {
        self.attention_norm.forward(compute, &scratch.x, &mut scratch.input);
        let apart = self.post_attention_norm.is_some();
        self.attention.forward(compute, cache, start, rope, scratch, apart)?;
        add_normed(compute, self.post_attention_norm.as_ref(), scratch);
        self.mlp_norm.forward(compute, &scratch.x, &mut scratch.input);
        self.mlp.forward(compute, scratch, self.post_mlp_norm.is_some())?;
        add_normed(compute, self.post_mlp_norm.as_ref(), scratch);
        Ok(())
    }
}

/// Adds what a sub-layer left in `scratch.update`, normed, if it has a norm; without one it was added already.
fn add_normed(compute: &Compute<'_>, norm: Option<&RmsNorm>, scratch: &mut Scratch) {
    let Some(norm) = norm else { return };
    let Scratch { x, update, .. } = scratch;
    compute.pass.rows(update, norm.len(), |_, row| norm.forward_in_place(&compute.kernels, row));
    add(x, update);
}
