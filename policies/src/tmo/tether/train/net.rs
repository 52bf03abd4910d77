//! The scorer as a burn module: the twin of [`crate::tmo::tether::network`], with a value head that only training uses.

use crate::tmo::learn::weights::arrays;
use crate::tmo::tether::config::Config;
use crate::tmo::tether::weights::{self, LoadError};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// The fields' names are those of the tensors in the weights file.
#[derive(Module, Debug)]
pub struct TetherNet {
    turn: Linear,
    action: Linear,
    mix: Linear,
    pool: Linear,
    score: Linear,
    value: Linear,
}

impl TetherNet {
    /// New weights from the device's random numbers (`Device::seed`).
    pub fn new(config: &Config, device: &Device) -> TetherNet {
        let (turn, action) = config.inputs();
        let hidden = config.hidden;
        let layer = |inputs, outputs, bias| LinearConfig::new(inputs, outputs).with_bias(bias).init(device);
        TetherNet {
            turn: layer(turn, hidden, false),
            action: layer(action, hidden, true),
            mix: layer(hidden, hidden, false),
            pool: layer(hidden, hidden, true),
            score: layer(hidden, 1, false),
            value: layer(hidden, 1, true),
        }
    }

    /// `turns` [B, G] and `actions` [B * N, A] give scores [B, N] and values `[B]`.
    pub fn forward(&self, turns: Tensor<2>, actions: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let [batch, _] = turns.dims();
        let count = actions.dims()[0] / batch;
        let turns = self.turn.forward(turns);
        let hidden = turns.dims()[1];
        let split = |rows: Tensor<2>| rows.reshape([batch, count, hidden]);
        // [B, N, H]
        let first = relu(split(self.action.forward(actions)) + turns.reshape([batch, 1, hidden]));
        let pooled: Tensor<2> = first.clone().mean_dim(1).reshape([batch, hidden]);
        let mixed = split(self.mix.forward(first.reshape([batch * count, hidden])));
        let second = relu(mixed + self.pool.forward(pooled).reshape([batch, 1, hidden]));
        let scores = self.score.forward(second.clone().reshape([batch * count, hidden])).reshape([batch, count]);
        let values = self.value.forward(second.mean_dim(1).reshape([batch, hidden])).reshape([batch]);
        (scores, values)
    }

    /// The bytes of the weights file.
    pub fn to_bytes(&self, config: &Config) -> Result<Vec<u8>, LoadError> {
        let arrays = arrays(self);
        let of =
            |name: &'static str| arrays.get(name).map(|array| array.values.clone()).ok_or(LoadError::Missing { name });
        let values = weights::layout(config).iter().map(|(name, _)| of(name)).collect::<Result<Vec<_>, _>>()?;
        weights::write(config, &values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::learn::loss::rows;
    use crate::tmo::learn::training_device;
    use crate::tmo::tether::network::Network;

    #[test]
    fn both_twins_compute_the_same() {
        let config = Config::new("t", Vec::new(), 2, 16);
        let device = training_device();
        let net = TetherNet::new(&config, &device);
        let plain = Network::read(&config, &net.to_bytes(&config).unwrap()).unwrap();
        let (turn, action) = config.inputs();
        let numbers = |count: usize, step: f32| (0..count).map(|n| (n as f32 * step).sin()).collect::<Vec<_>>();
        let (turns, actions) = (numbers(2 * turn, 0.7), numbers(2 * 5 * action, 0.3));
        let (scores, _) = net.forward(rows(turns.clone(), turn, &device), rows(actions.clone(), action, &device));
        let given: Vec<f32> = scores.into_data().iter::<f32>().collect();
        for row in 0..2 {
            let (mut inputs, mut scores) = (vec![0.0; action], [0.0; 5]);
            let write = |n: usize, out: &mut [f32]| out.copy_from_slice(&actions[(row * 5 + n) * action..][..action]);
            plain.score::<9>(&turns[row * turn..][..turn], &mut inputs, write, &mut scores);
            for (a, b) in scores.iter().zip(&given[row * 5..]) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
