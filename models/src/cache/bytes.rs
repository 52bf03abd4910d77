//! A cache as bytes, for files, and the pages that it holds, so that shared ones are counted once.

use super::{Cache, Element, LayerCache, PAGE_TOKENS, Page, value_width};
use std::io::{Read, Result, Write};
use std::sync::Arc;

const ELEMENT_BYTES: usize = size_of::<Element>();

impl Cache {
    /// The address and the bytes of each page. Caches that share a page give the same address.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.layers.iter().flat_map(|layer| {
            let bytes = layer.page_bytes();
            layer.pages.iter().map(move |page| (Arc::as_ptr(page).addr(), bytes))
        })
    }

    /// What must be equal for bytes of one cache to be another's: layers, heads, width, tokens and bytes of a page.
    pub(crate) fn shape(&self) -> [u32; 5] {
        let (heads, width) = self.layers.first().map_or((0, 0), |layer| (layer.kv_heads, layer.head_dim));
        let page_bytes = self.layers.first().map_or(0, LayerCache::page_bytes);
        [self.layers.len(), heads, width, PAGE_TOKENS, page_bytes].map(|number| number as u32)
    }

    /// Bytes that [`write`](Self::write) writes for `len` tokens.
    pub(crate) fn file_bytes(&self, len: usize) -> u64 {
        let pages = len.div_ceil(PAGE_TOKENS) as u64;
        self.layers.iter().map(|layer| pages * layer.page_bytes() as u64).sum()
    }

    /// Writes the pages of the tokens held, little-endian.
    pub(crate) fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut buffer = Vec::new();
        for layer in &self.layers {
            for page in &layer.pages[..self.len.div_ceil(PAGE_TOKENS)] {
                for elements in [&page.keys, &page.values] {
                    buffer.clear();
                    buffer.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
                    to.write_all(&buffer)?;
                }
            }
        }
        Ok(())
    }

    /// Replaces what is held by `len` tokens that [`write`](Self::write) wrote from a cache of the same shape.
    pub(crate) fn read(&mut self, len: usize, from: &mut impl Read) -> Result<()> {
        self.truncate(0);
        for layer in &mut self.layers {
            for _ in 0..len.div_ceil(PAGE_TOKENS) {
                let [keys, values] = layer.page_elements();
                let page = Page { keys: read_elements(keys, from)?, values: read_elements(values, from)? };
                layer.pages.push(Arc::new(page));
            }
        }
        self.len = len;
        Ok(())
    }
}

impl LayerCache {
    /// Of a page's keys, and of its values.
    fn page_elements(&self) -> [usize; 2] {
        [self.head_dim, value_width(self.head_dim)].map(|row| self.kv_heads * PAGE_TOKENS * row)
    }

    fn page_bytes(&self) -> usize {
        self.page_elements().iter().sum::<usize>() * ELEMENT_BYTES
    }
}

fn read_elements(count: usize, from: &mut impl Read) -> Result<Vec<Element>> {
    let mut buffer = vec![0; count * ELEMENT_BYTES];
    from.read_exact(&mut buffer)?;
    let (elements, _) = buffer.as_chunks::<ELEMENT_BYTES>();
    Ok(elements.iter().map(|bytes| Element::from_le_bytes(*bytes)).collect())
}
