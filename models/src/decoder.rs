//! A decoder-only transformer: what the architectures, one file each in `arch/`, are assembled from.

use crate::cache::LayerCache;
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::layers::{Embedding, GatedMlp, Input, Output, Positions, RmsNorm, Rope, SelfAttention, add};
use crate::worker::Cancel;
use candle_core::Device;
use rayon::prelude::*;

pub(crate) struct Decoder {
    pub(crate) embedding: Embedding,
    /// Factor on the embeddings; 1 for most.
    pub(crate) embedding_scale: f32,
    /// The rotary embeddings; each layer uses one of them.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output: Output,
    pub(crate) device: Device,
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
        let embedding = Embedding::load(gguf, dims.vocab, dims.hidden)?;
        let norm = RmsNorm::load(gguf, "output_norm", dims.hidden, dims.rms_epsilon)?;
        Ok(Decoder {
            output: Output::load(gguf, &embedding, dims.vocab, norm)?,
            embedding,
            embedding_scale: 1.0,
            ropes,
            layers: (0..dims.layers).into_par_iter().map(layer).collect::<Result<_, _>>()?,
            device: gguf.device().clone(),
        })
    }

    /// Runs `tokens` (at least one) at the positions from `start` on, and writes their keys and values to `cache`, one
    /// entry a layer. Returns the last layer's output, `[tokens, hidden]`, or stops before the next layer once cancelled.
    pub(crate) fn forward(
        &self,
        cache: &mut [LayerCache],
        start: usize,
        tokens: &[u32],
        cancel: &Cancel,
    ) -> Result<Vec<f32>, ModelError> {
        let positions: Vec<_> = self.ropes.iter().map(|rope| rope.positions(start, tokens.len())).collect();
        let mut x = self.embedding.forward(tokens)?;
        x.iter_mut().for_each(|value| *value *= self.embedding_scale);
        for (layer, cache) in self.layers.iter().zip(cache) {
            if cancel.is_cancelled() {
                return Err(ModelError::Cancelled);
            }
            layer.forward(cache, start, &positions[layer.rope], &mut x, &self.device)?;
        }
        Ok(x)
    }

    /// The logits after the last token of `x`, `[vocab]`. `x` is what `forward` returned.
    pub(crate) fn logits(&self, x: &[f32]) -> Result<Vec<f32>, ModelError> {
        self.output.forward(x)
    }
}

impl Layer {
    /// Changes `x`, `[tokens, hidden]`, in place.
    fn forward(
        &self,
        cache: &mut LayerCache,
        start: usize,
        positions: &Positions<'_>,
        x: &mut [f32],
        device: &Device,
    ) -> Result<(), ModelError> {
        let input = |norm: &RmsNorm, x: &[f32]| Input::new(norm.forward(x), norm.len(), device);
        let mut attended = self.attention.forward(cache, start, positions, &input(&self.attention_norm, x)?)?;
        if let Some(norm) = &self.post_attention_norm {
            norm.forward_in_place(&mut attended);
        }
        add(x, &attended);
        let mut fed = self.mlp.forward(&input(&self.mlp_norm, x)?)?;
        if let Some(norm) = &self.post_mlp_norm {
            norm.forward_in_place(&mut fed);
        }
        add(x, &fed);
        Ok(())
    }
}
