//! Linear layers: our kernels where they know the weights' kind, else candle.

use super::Compute;
use crate::error::ModelError;
use crate::gguf::{Gguf, Weight};
use crate::kernels::{Input, Part};
use candle_core::quantized::QMatMul;
use candle_core::{Device, Module, Tensor};

/// `y = x W^T + b`; the bias only if the file has one.
pub(crate) enum Linear {
    Packed(Part),
    Candle(Foreign),
}

/// A matrix that candle multiplies.
pub(crate) struct Foreign {
    weight: QMatMul,
    bias: Option<Vec<f32>>,
    rows: usize,
    device: Device,
}

/// Linear layers of one input whose outputs lie side by side.
pub(crate) enum Projection {
    Packed(Vec<Part>),
    Mixed(Vec<Linear>),
}

impl Linear {
    /// Reads `{name}.weight` of shape `[rows, columns]`, and `{name}.bias` of `[rows]` if present.
    pub(crate) fn load(gguf: &Gguf, name: &str, rows: usize, columns: usize) -> Result<Linear, ModelError> {
        let bias = gguf.optional_vector(&format!("{name}.bias"), rows)?;
        Linear::new(gguf.matrix(&format!("{name}.weight"), rows, columns)?, bias, rows, gguf.device())
    }

    pub(crate) fn new(
        weight: Weight,
        bias: Option<Vec<f32>>,
        rows: usize,
        device: &Device,
    ) -> Result<Linear, ModelError> {
        Ok(match weight {
            Weight::Packed(matrix) => Linear::Packed(Part { matrix, bias }),
            Weight::Candle(weight) => {
                Linear::Candle(Foreign { weight: QMatMul::from_arc(weight)?, bias, rows, device: device.clone() })
            }
        })
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Linear::Packed(part) => part.matrix.rows(),
            Linear::Candle(foreign) => foreign.rows,
        }
    }

    /// The weights, if our kernels have them and they have no bias.
    pub(crate) fn packed(&self) -> Option<&Part> {
        match self {
            Linear::Packed(part) => Some(part).filter(|part| part.bias.is_none()),
            Linear::Candle(_) => None,
        }
    }
}

impl Foreign {
    /// `[tokens, rows]`.
    fn forward(&self, x: &Input) -> Result<Vec<f32>, ModelError> {
        let x = Tensor::from_slice(x.floats(), (x.tokens(), x.columns()), &self.device)?;
        let mut y = self.weight.forward(&x)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(self.rows).for_each(|row| super::add(row, bias));
        }
        Ok(y)
    }
}

impl Projection {
    pub(crate) fn new(linears: Vec<Linear>) -> Projection {
        if linears.iter().any(|linear| matches!(linear, Linear::Candle(_))) {
            return Projection::Mixed(linears);
        }
        let parts = linears.into_iter().filter_map(|linear| match linear {
            Linear::Packed(part) => Some(part),
            Linear::Candle(_) => None,
        });
        Projection::Packed(parts.collect())
    }

    /// Length of an output row.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Projection::Packed(parts) => parts.iter().map(|part| part.matrix.rows()).sum(),
            Projection::Mixed(linears) => linears.iter().map(Linear::rows).sum(),
        }
    }

    /// Writes the products to `y`, `[tokens, rows]`, which is resized; or with `add` adds them to what it holds.
    pub(crate) fn forward(
        &self,
        compute: &Compute<'_>,
        x: &Input,
        y: &mut Vec<f32>,
        add: bool,
    ) -> Result<(), ModelError> {
        let rows = self.rows();
        y.resize(x.tokens() * rows, 0.0);
        let linears = match self {
            Projection::Packed(parts) => {
                compute.kernels.multiply(&compute.pass, parts, x, y, add);
                return Ok(());
            }
            Projection::Mixed(linears) => linears,
        };
        if !add {
            y.fill(0.0);
        }
        let mut from = 0;
        for linear in linears {
            let mut own = Vec::new();
            let own = match linear {
                Linear::Candle(foreign) => foreign.forward(x)?,
                Linear::Packed(part) => {
                    own.resize(x.tokens() * part.matrix.rows(), 0.0);
                    compute.kernels.multiply(&compute.pass, std::slice::from_ref(part), x, &mut own, false);
                    own
                }
            };
            for (to, own) in y.chunks_exact_mut(rows).zip(own.chunks_exact(linear.rows())) {
                super::add(&mut to[from..from + linear.rows()], own);
            }
            from += linear.rows();
        }
        Ok(())
    }
}
