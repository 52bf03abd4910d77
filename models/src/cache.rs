//! Keys and values of one token sequence, in pages that snapshots share.

mod bytes;

use crate::kernels::{Kernels, PAGE_TOKENS, PageHead, value_width};
use std::sync::Arc;

/// What keys and values are held as: the bits of an f16.
pub(crate) type Element = u16;

/// The keys and values of one token sequence. Memory grows by pages as tokens come.
#[derive(Clone)]
pub struct Cache {
    layers: Vec<LayerCache>,
    len: usize,
}

/// A cheap copy of a cache's state, to return to: it shares the pages.
#[derive(Clone)]
pub struct Snapshot(Cache);

/// One layer's pages.
#[derive(Clone)]
pub(crate) struct LayerCache {
    kv_heads: usize,
    head_dim: usize,
    pages: Vec<Arc<Page>>,
}

/// So many tokens that a snapshot costs at most one copied page a layer when the sequence goes on.
#[derive(Clone)]
struct Page {
    /// `[kv_heads, head_dim, PAGE_TOKENS]`.
    keys: Vec<Element>,
    /// `[kv_heads, PAGE_TOKENS, value_width(head_dim)]`.
    values: Vec<Element>,
}

impl Cache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Cache {
        Cache { layers: vec![LayerCache { kv_heads, head_dim, pages: Vec::new() }; layers], len: 0 }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the pages, those shared with snapshots included.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// Forgets everything after the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            layer.pages.truncate(self.len.div_ceil(PAGE_TOKENS));
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.clone())
    }

    /// Returns to the state of `snapshot`, which must come from a cache of the same engine.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        *self = snapshot.0.clone();
    }

    /// Whether the cache was made for this many layers of this shape.
    pub(crate) fn fits(&self, layers: usize, kv_heads: usize, head_dim: usize) -> bool {
        let same = |layer: &LayerCache| layer.kv_heads == kv_heads && layer.head_dim == head_dim;
        self.layers.len() == layers && self.layers.iter().all(same)
    }

    pub(crate) fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Makes the tokens that all layers have written part of the sequence. Until then a failed pass leaves no trace.
    pub(crate) fn commit(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl LayerCache {
    /// Writes keys and values (each `[kv_heads, head_dim]`) of one position; `halves` is memory to be used again.
    pub(crate) fn write(
        &mut self,
        kernels: &Kernels,
        position: usize,
        key: &[f32],
        value: &[f32],
        halves: &mut Vec<Element>,
    ) {
        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
        let width = value_width(self.head_dim);
        while self.pages.len() <= page {
            let zeros = |row: usize| vec![0; self.kv_heads * row * PAGE_TOKENS];
            self.pages.push(Arc::new(Page { keys: zeros(self.head_dim), values: zeros(width) }));
        }
        let page = Arc::make_mut(&mut self.pages[page]);
        halves.resize(self.kv_heads * self.head_dim, 0);
        kernels.round_to_f16(key, halves);
        // A head's dimensions follow each other at a page's distance, and so do its heads.
        for (target, key) in page.keys[slot..].iter_mut().step_by(PAGE_TOKENS).zip(&*halves) {
            *target = *key;
        }
        kernels.round_to_f16(value, halves);
        let heads = page.values.chunks_exact_mut(PAGE_TOKENS * width);
        for (head, value) in heads.zip(halves.chunks_exact(self.head_dim)) {
            head[slot * width..][..self.head_dim].copy_from_slice(value);
        }
    }

    /// One key-value head's part of a page.
    pub(crate) fn page(&self, head: usize, page: usize) -> PageHead<'_> {
        let (key_len, value_len) = (self.head_dim * PAGE_TOKENS, value_width(self.head_dim) * PAGE_TOKENS);
        let page = &self.pages[page];
        PageHead {
            keys: &page.keys[head * key_len..(head + 1) * key_len],
            values: &page.values[head * value_len..(head + 1) * value_len],
        }
    }

    fn bytes(&self) -> usize {
        let row = self.head_dim + value_width(self.head_dim);
        self.pages.len() * self.kv_heads * PAGE_TOKENS * row * size_of::<Element>()
    }
}
