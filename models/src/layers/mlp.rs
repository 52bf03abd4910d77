//! The gated feed-forward layer (Shazeer, 2020).

use super::{Activation, Compute, Linear, Projection, Scratch};
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use crate::kernels::{BLOCK_COLUMNS, GROUP_ROWS, Gate, Part};

/// `down(activation(gate(x)) * up(x))`.
pub(crate) struct GatedMlp {
    gate_and_up: GateAndUp,
    down: Projection,
    width: usize,
    activation: Activation,
}

enum GateAndUp {
    /// Our kernels do both products and the gate at once.
    Separate(Part, Part),
    /// The same of one matrix, the gate's rows first.
    Fused(Part),
    /// Gates and ups side by side, by whatever multiplies them.
    Apart(Projection),
}

impl GatedMlp {
    pub(crate) fn load(
        gguf: &Gguf,
        dims: &Dimensions,
        block: &str,
        activation: Activation,
    ) -> Result<GatedMlp, ModelError> {
        let name = |part: &str| format!("{block}.{part}");
        let (hidden, width) = (dims.hidden, dims.feed_forward);
        let linears = match gguf.has(&name("ffn_gate.weight")) {
            true => vec![
                Linear::load(gguf, &name("ffn_gate"), width, hidden)?,
                Linear::load(gguf, &name("ffn_up"), width, hidden)?,
            ],
            false => vec![Linear::load(gguf, &name("ffn_up"), 2 * width, hidden)?],
        };
        let down = Projection::new(vec![Linear::load(gguf, &name("ffn_down"), hidden, width)?]);
        Ok(GatedMlp { gate_and_up: GateAndUp::new(linears, width), down, width, activation })
    }

    /// Feeds `scratch.input`, `[tokens, hidden]`, forward. Adds the result to `scratch.x`, or with `apart` writes it to
    /// `scratch.update`.
    pub(crate) fn forward(&self, compute: &Compute<'_>, scratch: &mut Scratch, apart: bool) -> Result<(), ModelError> {
        let Scratch { x, input, update, wide, inner, .. } = scratch;
        let (width, activation) = (self.width, self.activation);
        match &self.gate_and_up {
            GateAndUp::Separate(gate, up) => {
                let pair = Gate { gate: (&gate.matrix, 0), up: (&up.matrix, 0), activation };
                compute.kernels.gated(&compute.pass, &pair, width, input, inner);
            }
            GateAndUp::Fused(both) => {
                let pair = Gate { gate: (&both.matrix, 0), up: (&both.matrix, width), activation };
                compute.kernels.gated(&compute.pass, &pair, width, input, inner);
            }
            GateAndUp::Apart(projection) => {
                projection.forward(compute, input, wide, false)?;
                compute.kernels.rows(&compute.pass, input.tokens(), width, inner, |token, row| {
                    let (gate, up) = wide[token * 2 * width..(token + 1) * 2 * width].split_at(width);
                    row.copy_from_slice(gate);
                    compute.kernels.gate_row(activation, row, up);
                });
            }
        }
        match apart {
            true => self.down.forward(compute, inner, update, false),
            false => self.down.forward(compute, inner, x, true),
        }
    }
}

impl GateAndUp {
    fn new(linears: Vec<Linear>, width: usize) -> GateAndUp {
        const { assert!(BLOCK_COLUMNS.is_multiple_of(GROUP_ROWS)) };
        let whole = width.is_multiple_of(BLOCK_COLUMNS) && linears.iter().all(|linear| linear.packed().is_some());
        if !whole {
            return GateAndUp::Apart(Projection::new(linears));
        }
        let mut linears = linears.into_iter();
        match (linears.next(), linears.next()) {
            (Some(Linear::Packed(gate)), Some(Linear::Packed(up))) => GateAndUp::Separate(gate, up),
            (Some(Linear::Packed(both)), None) => GateAndUp::Fused(both),
            (first, second) => GateAndUp::Apart(Projection::new(first.into_iter().chain(second).collect())),
        }
    }
}
