//! The gated feed-forward layer (Shazeer, 2020).

use super::{Input, Linear};
use crate::error::ModelError;
use crate::gguf::{Dimensions, Gguf};
use candle_core::Device;

/// The gate's non-linearity.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Activation {
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
}

/// `down(activation(gate(x)) * up(x))`.
pub(crate) struct GatedMlp {
    gate_and_up: GateAndUp,
    down: Linear,
    activation: Activation,
    device: Device,
}

enum GateAndUp {
    Separate(Linear, Linear),
    /// One matrix, the gate's rows first.
    Fused(Linear),
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
        let gate_and_up = match gguf.has(&name("ffn_gate.weight")) {
            true => GateAndUp::Separate(
                Linear::load(gguf, &name("ffn_gate"), width, hidden)?,
                Linear::load(gguf, &name("ffn_up"), width, hidden)?,
            ),
            false => GateAndUp::Fused(Linear::load(gguf, &name("ffn_up"), 2 * width, hidden)?),
        };
        let down = Linear::load(gguf, &name("ffn_down"), hidden, width)?;
        Ok(GatedMlp { gate_and_up, down, activation, device: gguf.device().clone() })
    }

    /// `x`: `[tokens, hidden]`. Returns the same shape.
    pub(crate) fn forward(&self, x: &Input) -> Result<Vec<f32>, ModelError> {
        let width = self.down.columns();
        let gated = match &self.gate_and_up {
            GateAndUp::Separate(gate, up) => {
                let mut gate = gate.forward(x)?;
                self.activation.gate(&mut gate, &up.forward(x)?);
                gate
            }
            GateAndUp::Fused(linear) => {
                let mut rows = linear.forward(x)?;
                let halves = rows.chunks_exact_mut(2 * width).map(|row| row.split_at_mut(width));
                halves
                    .flat_map(|(gate, up)| {
                        self.activation.gate(gate, up);
                        gate.to_vec()
                    })
                    .collect()
            }
        };
        self.down.forward(&Input::new(gated, width, &self.device)?)
    }
}

impl Activation {
    /// `gate = activation(gate) * up`.
    fn gate(self, gate: &mut [f32], up: &[f32]) {
        let apply = |activation: fn(f32) -> f32, gate: &mut [f32]| {
            gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = activation(*gate) * up);
        };
        match self {
            Activation::Silu => apply(|x| x / (1.0 + (-x).exp()), gate),
            Activation::GeluTanh => apply(gelu_tanh, gate),
        }
    }
}

fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * x * (1.0 + 0.044715 * x * x)).tanh())
}
