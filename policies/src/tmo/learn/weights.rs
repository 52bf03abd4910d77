//! Between burn modules and plain numbers: checkpoints, copies for acting, and the norm over all gradients.

use crate::tmo::checkpoint::{Array, Arrays};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

/// Every parameter, by its path in the module, such as `actor.layers.0.weight`.
pub fn arrays<M: Module>(module: &M) -> Arrays {
    let mut reader = Reader::default();
    module.visit(&mut reader);
    reader.arrays
}

#[derive(Default)]
struct Reader {
    path: Vec<String>,
    arrays: Arrays,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data();
        let array = Array { shape: data.shape().to_vec(), values: data.iter::<f32>().collect() };
        self.arrays.insert(self.path.join("."), array);
    }
}

/// The module with its parameters replaced by those of the same path and shape; others stay.
pub fn with_arrays<M: Module>(module: M, arrays: &Arrays) -> M {
    module.map(&mut Writer { path: Vec::new(), arrays })
}

struct Writer<'a> {
    path: Vec<String>,
    arrays: &'a Arrays,
}

impl ModuleMapper for Writer<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(array) = self.arrays.get(&self.path.join(".")) else { return param };
        param.map(|old| {
            if old.dims()[..] != array.shape[..] {
                return old;
            }
            let data = TensorData::new(array.values.clone(), array.shape.clone());
            // A parameter is a leaf of the graph: what it was computed from does not belong to it.
            Tensor::from_data(data, &old.device()).set_require_grad(old.is_require_grad())
        })
    }
}

/// Scales all gradients together so that their joint Euclidean norm is at most `max` (torch: clip_grad_norm_; burn's
/// own clipping is per parameter). Gives the norm before.
pub fn clip_norm<M: Module>(module: &M, gradients: &mut GradientsParams, max: f32) -> f32 {
    let mut norm = Norm { gradients, squares: 0.0 };
    module.visit(&mut norm);
    let size = norm.squares.sqrt();
    let factor = max / (size + 1e-6);
    if factor < 1.0 {
        module.visit(&mut Scale { gradients, factor });
    }
    size
}

struct Norm<'a> {
    gradients: &'a GradientsParams,
    squares: f32,
}

impl ModuleVisitor for Norm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.squares += gradient.square().sum().into_scalar::<f32>();
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::learn::training_device;
    use burn::nn::{Linear, LinearConfig};

    #[test]
    fn the_norm_is_over_all_parameters_together() {
        let device = training_device();
        let linear: Linear = LinearConfig::new(2, 1).init(&device);
        let gradients = || {
            let input = Tensor::<2>::from_floats([[3.0, 4.0]], &device);
            // d/dw = (3, 4) * 12, d/db = 12: of norm 12 * sqrt(26).
            GradientsParams::from_grads((linear.forward(input) * 12.0).sum().backward(), &linear)
        };
        let mut clipped = gradients();
        let norm = clip_norm(&linear, &mut clipped, 0.5);
        assert!((norm - 12.0 * 26f32.sqrt()).abs() < 1e-3, "{norm}");
        assert!((clip_norm(&linear, &mut clipped, 0.5) - 0.5).abs() < 1e-4);
        let mut small = gradients();
        clip_norm(&linear, &mut small, 100.0);
        assert_eq!(
            small.get::<2>(linear.weight.id).map(|g| g.into_data()),
            gradients().get::<2>(linear.weight.id).map(|g| g.into_data())
        );
    }

    #[test]
    fn weights_go_out_and_come_back_by_path() {
        let device = training_device();
        let [a, b]: [Linear; 2] = [3, 3].map(|width| LinearConfig::new(width, 2).init(&device));
        let taken = arrays(&a);
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["bias", "weight"]);
        assert_ne!(arrays(&b), taken);
        assert_eq!(arrays(&with_arrays(b, &taken)), taken);
    }
}
