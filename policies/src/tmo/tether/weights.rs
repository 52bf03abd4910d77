//! The safetensors file: read into a [`Network`], every shape checked against the config and every number finite.

use crate::tmo::tether::config::{Config, ConfigError};
use crate::tmo::tether::network::Network;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The limit for a policy under version control; 128 hidden units take 0.2 MB.
pub const MAX_WEIGHTS_BYTES: usize = 1 << 20;

/// A policy's two files do not make a policy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the policy's weights have {given} bytes, at most {MAX_WEIGHTS_BYTES} are allowed")]
    TooLarge { given: usize },
    #[error("the policy's weights are not a safetensors file: {0}")]
    Format(String),
    #[error("the policy's weights have no tensor {name:?}")]
    Missing { name: &'static str },
    #[error("tensor {name:?} is {given}, the config asks for F32 {expected:?}")]
    Shape { name: &'static str, given: String, expected: Vec<usize> },
    #[error("tensor {name:?} holds a value that is not a finite number")]
    NotFinite { name: &'static str },
}

/// Name and shape of each tensor that a decision needs, in the order of [`Network`]'s fields.
pub fn layout(config: &Config) -> [(&'static str, Vec<usize>); 7] {
    let (turn, action) = config.inputs();
    let hidden = config.hidden;
    [
        ("turn.weight", vec![turn, hidden]),
        ("action.weight", vec![action, hidden]),
        ("action.bias", vec![hidden]),
        ("mix.weight", vec![hidden, hidden]),
        ("pool.weight", vec![hidden, hidden]),
        ("pool.bias", vec![hidden]),
        ("score.weight", vec![hidden, 1]),
    ]
}

impl Network {
    /// Reads the weights that `config` asks for. Other tensors (training's value head) are left alone.
    pub fn read(config: &Config, bytes: &[u8]) -> Result<Network, LoadError> {
        config.check()?;
        if bytes.len() > MAX_WEIGHTS_BYTES {
            return Err(LoadError::TooLarge { given: bytes.len() });
        }
        let file = SafeTensors::deserialize(bytes).map_err(|error| LoadError::Format(error.to_string()))?;
        let mut tensors = layout(config).into_iter().map(|(name, shape)| tensor(&file, name, shape));
        let mut next = || tensors.next().unwrap_or(Err(LoadError::Missing { name: "score.weight" }));
        Ok(Network {
            hidden: config.hidden,
            turn: next()?,
            action: next()?,
            first_bias: next()?,
            mix: next()?,
            pool: next()?,
            second_bias: next()?,
            score: next()?,
        })
    }
}

fn tensor(file: &SafeTensors<'_>, name: &'static str, expected: Vec<usize>) -> Result<Vec<f32>, LoadError> {
    let view = file.tensor(name).map_err(|_| LoadError::Missing { name })?;
    if view.dtype() != Dtype::F32 || view.shape() != expected {
        let given = format!("{:?} {:?}", view.dtype(), view.shape());
        return Err(LoadError::Shape { name, given, expected });
    }
    let numbers = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let numbers: Vec<f32> = numbers.collect();
    if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(LoadError::NotFinite { name }) }
}

/// The bytes of a weights file with these values, tensors in [`layout`]'s order.
pub fn write(config: &Config, values: &[Vec<f32>]) -> Result<Vec<u8>, LoadError> {
    let layout = layout(config);
    let bytes: Vec<Vec<u8>> =
        values.iter().map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = layout.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (*name, view)).map_err(|error| LoadError::Format(error.to_string()))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(views, None).map_err(|error| LoadError::Format(error.to_string()))
}

/// Weights from a seed, uniform in `+-1/sqrt(inputs)`: a network that has learned nothing, for tests and first wiring.
pub fn random(config: &Config, seed: u64) -> Result<Vec<u8>, LoadError> {
    use rand::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values = layout(config).map(|(_, shape)| {
        let reach = 1.0 / (shape[0] as f32).sqrt();
        (0..shape.iter().product()).map(|_| random.random_range(-reach..reach)).collect()
    });
    write(config, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("t", vec!["Query".to_owned()], 0, 8)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = random(&config(), 1).unwrap();
        let network = Network::read(&config(), &bytes).unwrap();
        assert_eq!(network.score.len(), 8);
        assert_eq!(network, Network::read(&config(), &random(&config(), 1).unwrap()).unwrap());
        assert_ne!(network, Network::read(&config(), &random(&config(), 2).unwrap()).unwrap());
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_with_the_tensor_s_name() {
        let bytes = random(&config(), 1).unwrap();
        let wider = Config { hidden: 16, ..config() };
        let error = Network::read(&wider, &bytes).unwrap_err();
        assert!(matches!(&error, LoadError::Shape { name: "turn.weight", .. }), "{error}");
        let slots = Config { view_slots: 3, ..config() };
        assert!(matches!(Network::read(&slots, &bytes), Err(LoadError::Shape { .. })));
        assert!(matches!(Network::read(&config(), b"{}"), Err(LoadError::Format(_))));
        assert!(matches!(Network::read(&config(), &[]), Err(LoadError::Format(_))));
        let large = vec![0; MAX_WEIGHTS_BYTES + 1];
        assert!(matches!(Network::read(&config(), &large), Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn a_weight_that_is_not_a_number_is_refused() {
        let mut values: Vec<Vec<f32>> =
            layout(&config()).iter().map(|(_, shape)| vec![0.0; shape.iter().product()]).collect();
        values[3][5] = f32::NAN;
        let bytes = write(&config(), &values).unwrap();
        assert_eq!(Network::read(&config(), &bytes), Err(LoadError::NotFinite { name: "mix.weight" }));
    }
}
