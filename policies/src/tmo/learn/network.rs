//! The reference's networks: perceptrons of 64-64, separate for actor and critic; each as burn differentiates it and as
//! plain numbers that act.

use super::weights::with_arrays;
use crate::tmo::checkpoint::{Arrays, CheckpointError};
use crate::tmo::perceptron::{Activation, Layer, Perceptron};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Both hidden layers (SB3: net_arch).
pub const HIDDEN: usize = 64;

/// Inputs, hidden layers, outputs.
pub fn sizes(width: usize, outputs: usize) -> [usize; 4] {
    [width, HIDDEN, HIDDEN, outputs]
}

/// A perceptron that records gradients; [`Perceptron`] is its plain twin.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
    #[module(skip)]
    relu: bool,
}

impl Mlp {
    pub fn new(plain: &Perceptron, device: &Device) -> Mlp {
        let layers = plain.layers.iter().map(|layer| LinearConfig::new(layer.inputs, layer.outputs).init(device));
        let mlp = Mlp { layers: layers.collect(), relu: plain.activation == Activation::Relu };
        with_arrays(mlp, &plain.to_arrays(""))
    }

    /// [B, inputs] to [B, outputs].
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(input, |values, (at, layer)| match layer.forward(values) {
            values if at == last => values,
            values if self.relu => activation::relu(values),
            values => values.tanh(),
        })
    }

    /// Copies the present weights into the twin.
    pub fn copy_to(&self, plain: &mut Perceptron) {
        for (layer, plain) in self.layers.iter().zip(&mut plain.layers) {
            copy(layer.weight.val().into_data(), &mut plain.weight);
            layer.bias.iter().for_each(|bias| copy(bias.val().into_data(), &mut plain.bias));
        }
    }
}

fn copy(data: burn::tensor::TensorData, into: &mut [f32]) {
    match data.as_slice::<f32>() {
        Ok(values) => into.copy_from_slice(values),
        // Of another type of number: converted one by one.
        Err(_) => into.iter_mut().zip(data.iter::<f32>()).for_each(|(to, value)| *to = value),
    }
}

/// Policy and critic (SB3: ActorCriticPolicy).
#[derive(Module, Debug)]
pub struct ActorCritic {
    pub actor: Mlp,
    pub critic: Mlp,
}

impl ActorCritic {
    pub fn new(plain: &PlainActorCritic, device: &Device) -> ActorCritic {
        ActorCritic { actor: Mlp::new(&plain.actor, device), critic: Mlp::new(&plain.critic, device) }
    }

    /// Logits [B, actions] and values `[B]` of observations [B, width].
    pub fn forward(&self, observations: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        (self.actor.forward(observations.clone()), self.critic.forward(observations).squeeze_dim(1))
    }

    pub fn copy_to(&self, plain: &mut PlainActorCritic) {
        self.actor.copy_to(&mut plain.actor);
        self.critic.copy_to(&mut plain.critic);
    }
}

/// The same as plain numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainActorCritic {
    pub actor: Perceptron,
    pub critic: Perceptron,
}

impl PlainActorCritic {
    /// Orthogonal, biases 0: gain sqrt 2 in the hidden layers, .01 for the logits, 1 for the value (SB3: ortho_init).
    pub fn new(width: usize, actions: usize, random: &mut ChaCha8Rng) -> Self {
        let mut net = |outputs: usize, last: f32| {
            let sizes = sizes(width, outputs);
            let gains = [2f32.sqrt(), 2f32.sqrt(), last];
            let layer = |at: usize| Layer {
                inputs: sizes[at],
                outputs: sizes[at + 1],
                weight: orthogonal(sizes[at], sizes[at + 1], gains[at], random),
                bias: vec![0.0; sizes[at + 1]],
            };
            Perceptron::new((0..3).map(layer).collect(), Activation::Tanh)
        };
        PlainActorCritic { actor: net(actions, 0.01), critic: net(1, 1.0) }
    }

    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = self.actor.to_arrays("actor");
        arrays.extend(self.critic.to_arrays("critic"));
        arrays
    }

    pub fn from_arrays(arrays: &Arrays, width: usize, actions: usize) -> Result<Self, CheckpointError> {
        let net = |name, outputs| Perceptron::from_arrays(arrays, name, &sizes(width, outputs), Activation::Tanh);
        Ok(PlainActorCritic { actor: net("actor", actions)?, critic: net("critic", 1)? })
    }
}

/// The Q-network's beginning: uniform within 1 / sqrt(inputs), weights and biases (torch's default, as SB3 leaves it).
pub fn q_network(width: usize, actions: usize, random: &mut ChaCha8Rng) -> Perceptron {
    let layer = |pair: &[usize]| {
        let bound = 1.0 / (pair[0] as f32).sqrt();
        let mut uniform = |count| (0..count).map(|_| random.random_range(-bound..bound)).collect::<Vec<f32>>();
        Layer { inputs: pair[0], outputs: pair[1], weight: uniform(pair[0] * pair[1]), bias: uniform(pair[1]) }
    };
    Perceptron::new(sizes(width, actions).windows(2).map(layer).collect(), Activation::Relu)
}

/// [rows, columns] whose shorter side's vectors are of length `gain` and at right angles to each other: Gram-Schmidt
/// over normal vectors, which is uniform over all such matrices (Saxe et al. 2013).
pub fn orthogonal(rows: usize, columns: usize, gain: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| normal(random)).collect();
        // Twice, since once loses digits.
        for known in vectors.iter().chain(&vectors) {
            let shared: f64 = known.iter().zip(&vector).map(|(a, b)| a * b).sum();
            vector.iter_mut().zip(known).for_each(|(value, known)| *value -= shared * known);
        }
        let size = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        if size > 1e-6 {
            vectors.push(vector.into_iter().map(|value| value / size).collect());
        }
    }
    let at = |row: usize, column: usize| if rows <= columns { vectors[row][column] } else { vectors[column][row] };
    (0..rows * columns).map(|place| gain * at(place / columns, place % columns) as f32).collect()
}

/// A standard normal number (Box and Muller).
pub fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::learn::loss::rows;
    use crate::tmo::learn::training_device;
    use rand::SeedableRng;

    #[test]
    fn both_twins_compute_the_same() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plain = PlainActorCritic::new(5, 3, &mut random);
        let q = q_network(5, 3, &mut random);
        plain.actor.layers[0].bias[3] = 0.7;
        let input: Vec<f32> = (0..10).map(|at| at as f32 * 0.3 - 1.0).collect();
        let device = training_device();
        let (logits, values) = ActorCritic::new(&plain, &device).forward(rows(input.clone(), 5, &device));
        let expected = Mlp::new(&q, &device).forward(rows(input.clone(), 5, &device)).into_data();
        for (net, given) in [(&plain.actor, logits.into_data()), (&plain.critic, values.into_data()), (&q, expected)] {
            let (mut scratch, mut all) = (net.scratch(), Vec::new());
            for input in input.chunks(5) {
                let mut output = vec![0.0; net.outputs()];
                net.forward(input, &mut scratch, &mut output);
                all.extend(output);
            }
            let given: Vec<f32> = given.iter::<f32>().collect();
            assert_eq!(given.len(), all.len());
            assert!(given.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-5), "{given:?} {all:?}");
        }
        let mut copy = PlainActorCritic::new(5, 3, &mut random);
        ActorCritic::new(&plain, &device).copy_to(&mut copy);
        assert_eq!(copy, plain);
        assert_eq!(PlainActorCritic::from_arrays(&plain.to_arrays(), 5, 3).unwrap(), plain);
    }

    #[test]
    fn rows_or_columns_are_orthogonal() {
        for (rows, columns) in [(25, 64), (64, 64), (64, 9)] {
            let matrix = orthogonal(rows, columns, 2.0, &mut ChaCha8Rng::seed_from_u64(2));
            let at = |vector: usize, place: usize| {
                let (row, column) = if rows <= columns { (vector, place) } else { (place, vector) };
                matrix[row * columns + column]
            };
            for (a, b) in [(0, 0), (0, 1), (3, 7), (8, 8)] {
                let product: f32 = (0..rows.max(columns)).map(|place| at(a, place) * at(b, place)).sum();
                assert!((product - if a == b { 4.0 } else { 0.0 }).abs() < 1e-4, "{rows} {columns} {product}");
            }
        }
    }
}
