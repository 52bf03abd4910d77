//! Keys and values of one token sequence, in pages that snapshots share.

mod bytes;

use std::sync::Arc;

/// What keys and values are kept as.
type Element = f32;

/// Tokens of one page. A snapshot costs at most one copied page a layer when the sequence goes on.
pub(crate) const PAGE_TOKENS: usize = 64;

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

/// Shape of both: `[kv_heads, PAGE_TOKENS, head_dim]`.
#[derive(Clone)]
struct Page {
    keys: Vec<Element>,
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
    /// Writes keys and values (each `[tokens, kv_heads, head_dim]`) at the positions from `start` on.
    pub(crate) fn write(&mut self, start: usize, keys: &[f32], values: &[f32]) {
        let row = self.kv_heads * self.head_dim;
        for (offset, (key, value)) in keys.chunks_exact(row).zip(values.chunks_exact(row)).enumerate() {
            self.write_token(start + offset, key, value);
        }
    }

    fn write_token(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
        while self.pages.len() <= page {
            let zeros = vec![0.0; self.kv_heads * PAGE_TOKENS * self.head_dim];
            self.pages.push(Arc::new(Page { keys: zeros.clone(), values: zeros }));
        }
        let page = Arc::make_mut(&mut self.pages[page]);
        for head in 0..self.kv_heads {
            let source = head * self.head_dim..(head + 1) * self.head_dim;
            let target = (head * PAGE_TOKENS + slot) * self.head_dim;
            page.keys[target..target + self.head_dim].copy_from_slice(&key[source.clone()]);
            page.values[target..target + self.head_dim].copy_from_slice(&value[source]);
        }
    }

    /// The rows of one head from position `from` up to `to`, page by page: `(keys, values)`, each `[n, head_dim]`.
    pub(crate) fn rows(&self, head: usize, from: usize, to: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        (from / PAGE_TOKENS..to.div_ceil(PAGE_TOKENS)).map(move |index| {
            let base = index * PAGE_TOKENS;
            let first = head * PAGE_TOKENS + from.max(base) - base;
            let last = head * PAGE_TOKENS + to.min(base + PAGE_TOKENS) - base;
            let range = first * self.head_dim..last * self.head_dim;
            let page = &self.pages[index];
            (&page.keys[range.clone()], &page.values[range])
        })
    }

    fn bytes(&self) -> usize {
        self.pages.len() * 2 * self.kv_heads * PAGE_TOKENS * self.head_dim * size_of::<Element>()
    }
}
