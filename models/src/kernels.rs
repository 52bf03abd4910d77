//! The arithmetic of a forward pass: weights repacked at load, integer dot products, attention over f16 pages, and the
//! threads that share the work.
//!
//! What is here is safe to call. `unsafe` is confined to this folder: to instructions chosen at run time, and to
//! threads that write different parts of one buffer. All instruction sets give the same bits, tested on random shapes.
#![expect(unsafe_code, reason = "calls into the table of an instruction set that was found, and divides buffers")]

pub(crate) mod arena;
mod attention;
mod input;
mod math;
mod matmul;
mod matrix;
pub(crate) mod pack;
mod pool;
mod simd;
mod table;

pub(crate) use attention::{PAGE_TOKENS, PageHead, value_width};
pub(crate) use input::Input;
pub(crate) use math::Activation;
pub(crate) use matrix::{BLOCK_COLUMNS, GROUP_ROWS, Matrix};
pub(crate) use pool::{Pass, Pool};
pub use table::InstructionSet;

use matmul::{GateAndUp, Output};
use pool::SendPointer;
use std::cell::RefCell;
use std::sync::Arc;
use table::{Seen, Table};

/// Tokens whose attention one thread computes together.
const ATTENTION_TOKENS: usize = 8;

thread_local! {
    /// Grows to the longest sequence and stays.
    static SCRATCH: RefCell<attention::Scratch> = RefCell::default();
}

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    table: &'static Table,
}

/// A part of a product's rows.
pub(crate) struct Part {
    pub(crate) matrix: Arc<Matrix>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A gated layer's two matrices, by their first rows, multiples of 16.
pub(crate) struct Gate<'a> {
    pub(crate) gate: (&'a Matrix, usize),
    pub(crate) up: (&'a Matrix, usize),
    pub(crate) activation: Activation,
}

/// The shape of an attention over one head's keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    pub(crate) window: Option<usize>,
}

impl Kernels {
    /// `None` if this processor does not have the instructions.
    pub(crate) fn of(set: InstructionSet) -> Option<Kernels> {
        set.table().map(|table| Kernels { table })
    }

    /// Makes `rows`, `[tokens, weight.len()]`, ready for products, after a norm.
    pub(crate) fn norm(&self, pass: &Pass<'_>, rows: &[f32], weight: &[f32], epsilon: f32, to: &mut Input) {
        let width = weight.len();
        to.resize(rows.len() / width, width);
        let target = to.rows_mut();
        pass.run(rows.len() / width, |tokens| {
            for token in tokens {
                // SAFETY: the table's instructions were found; each row is taken once.
                unsafe {
                    let mut row = target.row(token);
                    let from = &rows[token * width..(token + 1) * width];
                    (self.table.rms_norm)(from, weight, epsilon, row.floats);
                    (self.table.quantise)(&mut row);
                }
            }
        });
    }

    /// Makes rows ready for products that `write` writes, each given its index and its place.
    pub(crate) fn rows(
        &self,
        pass: &Pass<'_>,
        tokens: usize,
        width: usize,
        to: &mut Input,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        to.resize(tokens, width);
        let target = to.rows_mut();
        pass.run(tokens, |tokens| {
            for token in tokens {
                // SAFETY: the table's instructions were found; each row is taken once.
                unsafe {
                    let mut row = target.row(token);
                    write(token, row.floats);
                    (self.table.quantise)(&mut row);
                }
            }
        });
    }

    /// Norms a row in place.
    pub(crate) fn norm_row(&self, row: &mut [f32], weight: &[f32], epsilon: f32) {
        let mut from = [0.0; 1024];
        if let Some(from) = from.get_mut(..row.len()) {
            from.copy_from_slice(row);
            // SAFETY: the table's instructions were found.
            return unsafe { (self.table.rms_norm)(from, weight, epsilon, row) };
        }
        let from = row.to_vec();
        // SAFETY: as above.
        unsafe { (self.table.rms_norm)(&from, weight, epsilon, row) }
    }

    /// `gate = activation(gate) * up`.
    pub(crate) fn gate_row(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        // SAFETY: the table's instructions were found.
        unsafe { (self.table.gate)(activation, gate, up) }
    }

    /// Rounds `from` to f16, to the nearest that is finite.
    pub(crate) fn round_to_f16(&self, from: &[f32], to: &mut [u16]) {
        assert_eq!(from.len(), to.len());
        // SAFETY: the table's instructions were found.
        unsafe { (self.table.to_f16)(from, to) }
    }

    /// `input` times the rows of all parts, one after the other: `output` is `[tokens, rows of all parts]`, to which the
    /// products are added or which they replace.
    pub(crate) fn multiply(&self, pass: &Pass<'_>, parts: &[Part], input: &Input, output: &mut [f32], add: bool) {
        let stride: usize = parts.iter().map(|part| part.matrix.rows).sum();
        assert_eq!(output.len(), input.tokens * stride);
        for part in parts {
            assert_eq!(part.matrix.columns, input.columns);
            assert!(part.bias.as_ref().is_none_or(|bias| bias.len() == part.matrix.rows));
        }
        let start = SendPointer(output.as_mut_ptr());
        let groups = parts.iter().map(|part| part.matrix.groups()).sum();
        pass.run(groups, |range| {
            let (mut first, mut row) = (0, 0);
            for part in parts {
                let groups = part.matrix.groups();
                let inside = |group: usize| group.clamp(first, first + groups) - first;
                let mine = inside(range.start)..inside(range.end);
                if !mine.is_empty() {
                    // SAFETY: the table's instructions were found; each group is taken once, and the asserts above
                    // keep it inside `input` and `output`.
                    unsafe {
                        let output = Output { start: SendPointer(start.at(row)), stride, add };
                        (self.table.multiply)(&part.matrix, mine, input, part.bias.as_deref(), output);
                    }
                }
                first += groups;
                row += part.matrix.rows;
            }
        });
    }

    /// `activation(gate(input)) * up(input)`, of the first `width` rows (a multiple of 32) of each, made ready for the
    /// next product.
    pub(crate) fn gated(&self, pass: &Pass<'_>, gate: &Gate<'_>, width: usize, input: &Input, to: &mut Input) {
        for (matrix, first) in [gate.gate, gate.up] {
            assert_eq!(matrix.columns, input.columns);
            assert!(first.is_multiple_of(GROUP_ROWS) && first + width <= matrix.rows);
        }
        assert!(width.is_multiple_of(BLOCK_COLUMNS));
        to.resize(input.tokens, width);
        let target = to.rows_mut();
        let group = |(matrix, first): (_, usize)| (matrix, first / GROUP_ROWS);
        let (first, second) = (group(gate.gate), group(gate.up));
        pass.run(width / BLOCK_COLUMNS, |blocks| {
            let pair = GateAndUp { gate: first, up: second, activation: gate.activation };
            // SAFETY: the table's instructions were found; each block is taken once, and the asserts above keep it
            // inside the matrices and the rows.
            unsafe { (self.table.gated)(pair, blocks, input, target) }
        });
    }

    /// Attends with the queries of consecutive tokens, the first `[heads, head_dim]` of each row of `rows`, `stride` long.
    /// `page` gives a page of a key-value head; the tokens' own positions, from `start` on, are written.
    /// Leaves `[tokens, heads * head_dim]`, made ready for products.
    pub(crate) fn attend<'a>(
        &self,
        pass: &Pass<'_>,
        shape: Shape,
        (rows, stride): (&[f32], usize),
        start: usize,
        page: impl Fn(usize, usize) -> PageHead<'a> + Sync,
        to: &mut Input,
    ) {
        let (tokens, group) = (rows.len() / stride, shape.heads / shape.kv_heads);
        let (head_dim, width) = (shape.head_dim, value_width(shape.head_dim));
        to.resize(tokens, shape.heads * head_dim);
        let floats = SendPointer(to.floats.as_mut_ptr());
        let (tiles, row_len) = (tokens.div_ceil(ATTENTION_TOKENS), to.columns);
        pass.run(tiles * shape.kv_heads, |items| {
            for item in items {
                // The last tokens see most; they come first, so that the threads end together.
                let (tile, head) = (tiles - 1 - item / shape.kv_heads, item % shape.kv_heads);
                let first = tile * ATTENTION_TOKENS;
                let count = ATTENTION_TOKENS.min(tokens - first);
                SCRATCH.with_borrow_mut(|scratch| {
                    scratch.queries.clear();
                    for token in first..first + count {
                        let queries = &rows[token * stride + head * group * head_dim..][..group * head_dim];
                        scratch.queries.extend(queries.iter().map(|value| value * shape.scale));
                    }
                    let own = start + first;
                    // Pages that even the first token no longer sees are left out.
                    let hidden = shape.window.map_or(0, |window| (own + 1).saturating_sub(window) / PAGE_TOKENS);
                    let pages = (own + count).div_ceil(PAGE_TOKENS) - hidden;
                    let seen = Seen { position: own - hidden * PAGE_TOKENS, group, window: shape.window };
                    let page = |index: usize| {
                        let page = page(head, hidden + index);
                        assert!(page.keys.len() == head_dim * PAGE_TOKENS && page.values.len() == width * PAGE_TOKENS);
                        page
                    };
                    // SAFETY: the table's instructions were found, and the pages have the size that they should.
                    unsafe { (self.table.attend)(scratch, head_dim, pages, &page, seen) };
                    for (query, mixed) in scratch.mixed.chunks_exact(width).enumerate() {
                        let (token, head) = (first + query / group, head * group + query % group);
                        // SAFETY: each head of each token is computed once.
                        let to = unsafe {
                            std::slice::from_raw_parts_mut(floats.at(token * row_len + head * head_dim), head_dim)
                        };
                        to.copy_from_slice(&mixed[..head_dim]);
                    }
                });
            }
        });
        self.requantise(pass, to);
    }

    /// Quantises rows whose floats are written.
    fn requantise(&self, pass: &Pass<'_>, input: &mut Input) {
        let (tokens, target) = (input.tokens, input.rows_mut());
        pass.run(tokens, |tokens| {
            for token in tokens {
                // SAFETY: the table's instructions were found; each row is taken once.
                unsafe { (self.table.quantise)(&mut target.row(token)) };
            }
        });
    }
}

#[cfg(test)]
mod tests;
