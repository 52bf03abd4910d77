//! Causal attention over the pages of a cache, with grouped queries and an optional sliding window.

use crate::cache::LayerCache;
use crate::gguf::Dimensions;
use candle_core::utils::barrier_pool;
use std::sync::Mutex;

/// Multiplications below which waking other threads costs more than it saves.
const PARALLEL_MULTIPLICATIONS: usize = 200_000;
/// Independent sums of a dot product, so that the compiler can use vector registers.
const LANES: usize = 16;

/// The shape of one layer's attention.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f32,
    /// Tokens that a position sees, itself included; `None`: all before it.
    window: Option<usize>,
}

impl Attention {
    pub(crate) fn new(dims: &Dimensions, window: Option<usize>) -> Attention {
        let scale = 1.0 / (dims.head_dim as f32).sqrt();
        Attention { heads: dims.heads, kv_heads: dims.kv_heads, head_dim: dims.head_dim, scale, window }
    }

    pub(crate) fn with_scale(self, scale: f32) -> Attention {
        Attention { scale, ..self }
    }

    /// Writes `keys` and `values` (`[tokens, kv_heads, head_dim]`) to the cache at `start`, then attends with `queries`
    /// (`[tokens, heads, head_dim]`). Returns `[tokens, heads, head_dim]`.
    pub(crate) fn forward(
        &self,
        cache: &mut LayerCache,
        start: usize,
        queries: &[f32],
        keys: &[f32],
        values: &[f32],
    ) -> Vec<f32> {
        cache.write(start, keys, values);
        let tokens = queries.len() / (self.heads * self.head_dim);
        let mut output = vec![0.0; queries.len()];
        let group = self.heads / self.kv_heads * self.head_dim;
        // One item is one key-value head of one token: its queries read the same keys.
        let item = |index: usize, target: &mut [f32]| {
            let queries = &queries[index * group..(index + 1) * group];
            self.attend(cache, index % self.kv_heads, start + index / self.kv_heads, queries, target);
        };
        if queries.len() * (start + tokens) < PARALLEL_MULTIPLICATIONS {
            output.chunks_exact_mut(group).enumerate().for_each(|(index, target)| item(index, target));
            return output;
        }
        let targets: Vec<_> = output.chunks_exact_mut(group).map(Mutex::new).collect();
        barrier_pool().execute_chunked(targets.len(), |range| {
            for index in range {
                // Each item is locked once, by the thread that computes it; the lock only tells the compiler so.
                if let Ok(mut target) = targets[index].lock() {
                    item(index, &mut target);
                }
            }
        });
        output
    }

    /// The queries of one key-value head at `position`: `queries` and `output` are `[group, head_dim]`.
    fn attend(&self, cache: &LayerCache, head: usize, position: usize, queries: &[f32], output: &mut [f32]) {
        let to = position + 1;
        let from = self.window.map_or(0, |window| to.saturating_sub(window));
        let mut weights = Vec::with_capacity(to - from);
        for (query, output) in queries.chunks_exact(self.head_dim).zip(output.chunks_exact_mut(self.head_dim)) {
            weights.clear();
            for (keys, _) in cache.rows(head, from, to) {
                weights.extend(keys.chunks_exact(self.head_dim).map(|key| dot(query, key) * self.scale));
            }
            softmax(&mut weights);
            let mut weights = weights.iter();
            for (_, values) in cache.rows(head, from, to) {
                for (value, weight) in values.chunks_exact(self.head_dim).zip(&mut weights) {
                    output.iter_mut().zip(value).for_each(|(output, value)| *output += weight * value);
                }
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn softmax(values: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    values.iter_mut().for_each(|value| *value /= sum);
}
