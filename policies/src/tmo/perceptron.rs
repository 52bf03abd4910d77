//! A small multi-layer perceptron without a framework: what acts, in training and after it.

use crate::tmo::checkpoint::{Array, Arrays, CheckpointError, fit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Tanh,
    Relu,
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Activation::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Activation::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
        }
    }
}

/// `y = x W + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub inputs: usize,
    pub outputs: usize,
    /// [inputs, outputs], row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`
    pub bias: Vec<f32>,
}

impl Layer {
    /// `input` is `[inputs]`, `output` `[outputs]`.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) {
        output.copy_from_slice(&self.bias);
        for (value, row) in input.iter().zip(self.weight.chunks_exact(self.outputs)) {
            // One pass over a row of the matrix for each input: contiguous, so that it is vectorised.
            output.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
        }
    }
}

/// Layers with an activation between them, none after the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Perceptron {
    pub layers: Vec<Layer>,
    pub activation: Activation,
}

/// Two buffers as wide as a perceptron's widest layer, so that a forward pass allocates nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Scratch([Vec<f32>; 2]);

impl Perceptron {
    /// At least one layer, each as wide as the next one's input.
    pub fn new(layers: Vec<Layer>, activation: Activation) -> Self {
        Perceptron { layers, activation }
    }

    pub fn scratch(&self) -> Scratch {
        let widest = self.layers.iter().map(|layer| layer.outputs).max().unwrap_or(0);
        Scratch([vec![0.0; widest], vec![0.0; widest]])
    }

    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    /// From `PREFIX.layers.N.weight` and `.bias` (without a prefix, `layers.N..`), of the shapes that `sizes` (input, hidden.., output) ask for.
    pub fn from_arrays(
        arrays: &Arrays,
        prefix: &str,
        sizes: &[usize],
        activation: Activation,
    ) -> Result<Self, CheckpointError> {
        let wanted = shapes(prefix, sizes);
        let of_net = |name: &String| name.starts_with(prefix);
        fit(&wanted, &arrays.iter().filter(|(name, _)| of_net(name)).map(|(n, a)| (n.clone(), a.clone())).collect())?;
        let values = |name: String| arrays.get(&name).map(|array| array.values.clone()).unwrap_or_default();
        let layer = |at: usize| {
            let (inputs, outputs) = (sizes[at], sizes[at + 1]);
            let [weight, bias] = names(prefix, at).map(values);
            Layer { inputs, outputs, weight, bias }
        };
        Ok(Perceptron::new((0..sizes.len() - 1).map(layer).collect(), activation))
    }

    /// The inverse of [`Perceptron::from_arrays`].
    pub fn to_arrays(&self, prefix: &str) -> Arrays {
        let mut arrays = Arrays::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let [weight, bias] = names(prefix, at);
            arrays.insert(weight, Array { shape: vec![layer.inputs, layer.outputs], values: layer.weight.clone() });
            arrays.insert(bias, Array { shape: vec![layer.outputs], values: layer.bias.clone() });
        }
        arrays
    }

    /// The place of the largest of some outputs, the first of equals.
    pub fn best(outputs: &[f32]) -> usize {
        (0..outputs.len()).fold(0, |best, at| if outputs[at] > outputs[best] { at } else { best })
    }

    /// Writes the outputs for one `input`; `scratch` is of this perceptron.
    pub fn forward(&self, input: &[f32], scratch: &mut Scratch, output: &mut [f32]) {
        let [mut from, mut to] = scratch.0.each_mut().map(Vec::as_mut_slice);
        let Some((last, hidden)) = self.layers.split_last() else { return };
        let mut input = input;
        for layer in hidden {
            let values = &mut to[..layer.outputs];
            layer.forward(input, values);
            self.activation.apply(values);
            std::mem::swap(&mut from, &mut to);
            input = &from[..layer.outputs];
        }
        last.forward(input, output);
    }
}

/// The names and shapes of a perceptron's arrays.
pub fn shapes(prefix: &str, sizes: &[usize]) -> BTreeMap<String, Vec<usize>> {
    let layer = |(at, pair): (usize, &[usize])| {
        let [weight, bias] = names(prefix, at);
        [(weight, pair.to_vec()), (bias, vec![pair[1]])]
    };
    sizes.windows(2).enumerate().flat_map(layer).collect()
}

fn names(prefix: &str, layer: usize) -> [String; 2] {
    let dot = if prefix.is_empty() { "" } else { "." };
    ["weight", "bias"].map(|part| format!("{prefix}{dot}layers.{layer}.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(inputs: usize, outputs: usize, value: f32) -> Layer {
        Layer { inputs, outputs, weight: vec![value; inputs * outputs], bias: vec![0.5; outputs] }
    }

    #[test]
    fn by_hand() {
        let net = Perceptron::new(vec![layer(2, 3, 1.0), layer(3, 4, -1.0), layer(4, 1, 2.0)], Activation::Relu);
        let mut output = [0.0];
        net.forward(&[1.0, -1.25], &mut net.scratch(), &mut output);
        // .25 three times, then -.25 cut to 0, then the bias.
        assert_eq!(output, [0.5]);
        let arrays = net.to_arrays("actor");
        assert_eq!(Perceptron::from_arrays(&arrays, "actor", &[2, 3, 4, 1], Activation::Relu).unwrap(), net);
        assert_eq!(shapes("actor", &[2, 3])["actor.layers.0.weight"], [2, 3]);
        let error = Perceptron::from_arrays(&arrays, "critic", &[2, 3], Activation::Relu).unwrap_err();
        assert_eq!(error.to_string(), "critic.layers.0.bias: is missing");
        let error = Perceptron::from_arrays(&arrays, "actor", &[3, 3], Activation::Relu).unwrap_err();
        assert!(error.to_string().contains("[3, 3] is needed"), "{error}");
    }

    #[test]
    fn the_first_of_equals_is_best() {
        assert_eq!(Perceptron::best(&[1.0, 3.0, 3.0]), 1);
    }
}
