//! One linear layer over a text's features, and its file.
//!
//! `out = bias[O] + sum over features of sign * weight[bucket][O] / sqrt(number of features)`
//!
//! The file is safetensors with the tensors `weight` [BUCKETS, O] and `bias` `[O]` (F32) and three entries of metadata:
//! `kind`, `version`, `outputs` (a JSON list of names), beside what the kind adds.

use super::features::{BUCKETS, visit};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Outputs of one model: buffers for them are on the stack.
pub const MAX_OUTPUTS: usize = 8;
/// Eight outputs take 131 KB.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// Where a safetensors header holds metadata.
const METADATA: &str = "__metadata__";
/// The one version of the features that this code computes.
pub const VERSION: &str = "1";

/// A file that is no model of this build.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    #[error("the text model has {given} bytes, at most {MAX_FILE_BYTES} are allowed")]
    TooLarge { given: usize },
    #[error("the text model is not a safetensors file: {0}")]
    Format(String),
    #[error("the text model's {field} is {given:?}, expected {expected}")]
    Metadata { field: &'static str, given: String, expected: String },
    #[error("the text model's tensor {name:?} is {given}, expected F32 {expected:?}")]
    Tensor { name: &'static str, given: String, expected: Vec<usize> },
    #[error("the text model's tensor {name:?} holds a value that is not a finite number")]
    NotFinite { name: &'static str },
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the text model cannot be written: {0}")]
pub struct WriteError(String);

#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    outputs: Vec<String>,
    /// [BUCKETS, O], row-major.
    weight: Vec<f32>,
    /// `[O]`
    bias: Vec<f32>,
}

impl Linear {
    /// # Panics
    /// If the shapes do not fit: only training calls this.
    pub fn new(outputs: Vec<String>, weight: Vec<f32>, bias: Vec<f32>) -> Self {
        assert!((1..=MAX_OUTPUTS).contains(&outputs.len()), "{} outputs", outputs.len());
        assert_eq!((weight.len(), bias.len()), (BUCKETS * outputs.len(), outputs.len()));
        Self { outputs, weight, bias }
    }

    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// The outputs for a text in the first places, or `None` for a text without a word.
    pub fn apply(&self, text: &str) -> Option<[f32; MAX_OUTPUTS]> {
        let width = self.outputs.len();
        let mut sums = [0.0; MAX_OUTPUTS];
        let count = visit(text, |bucket, sign| {
            let row = &self.weight[bucket * width..(bucket + 1) * width];
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += sign * weight);
        });
        if count == 0 {
            return None;
        }
        let scale = 1.0 / (count as f32).sqrt();
        sums.iter_mut().zip(&self.bias).for_each(|(sum, bias)| *sum = *sum * scale + bias);
        Some(sums)
    }

    /// Reads a model of `kind`, with the metadata that the kind adds.
    pub(super) fn read(kind: &str, bytes: &[u8]) -> Result<(Self, HashMap<String, String>), LoadError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(LoadError::TooLarge { given: bytes.len() });
        }
        let format = |error: safetensors::SafeTensorError| LoadError::Format(error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        expect(&metadata, "kind", kind)?;
        expect(&metadata, "version", VERSION)?;
        let outputs = metadata.get("outputs").map_or("", String::as_str);
        let wrong = || LoadError::Metadata {
            field: "outputs",
            given: outputs.chars().take(80).collect(),
            expected: format!("a list of 1 to {MAX_OUTPUTS} names"),
        };
        let outputs: Vec<String> = serde_json::from_str(outputs).map_err(|_| wrong())?;
        if !(1..=MAX_OUTPUTS).contains(&outputs.len()) {
            return Err(wrong());
        }
        let file = SafeTensors::deserialize(bytes).map_err(format)?;
        let weight = tensor(&file, "weight", vec![BUCKETS, outputs.len()])?;
        let bias = tensor(&file, "bias", vec![outputs.len()])?;
        Ok((Self { outputs, weight, bias }, metadata))
    }

    /// The bytes of a file.
    pub(super) fn write(&self, kind: &str, more: &[(&str, String)]) -> Result<Vec<u8>, WriteError> {
        let fail = |error: String| WriteError(error);
        let names = serde_json::to_string(&self.outputs).map_err(|error| fail(error.to_string()))?;
        let own = [("kind", kind.to_owned()), ("version", VERSION.to_owned()), ("outputs", names)];
        let metadata = own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let (weight, bias) = (bytes(&self.weight), bytes(&self.bias));
        let width = self.outputs.len();
        let views = [("weight", vec![BUCKETS, width], &weight), ("bias", vec![width], &bias)];
        let views = views.into_iter().map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape, bytes).map(|view| (name, view)).map_err(|error| fail(error.to_string()))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let written = safetensors::serialize(views, Some(metadata)).map_err(|error| fail(error.to_string()))?;
        sorted(&written).map_err(|error| fail(error.to_string()))
    }
}

/// The same file with its header in alphabetical order: safetensors writes metadata as a hash map gives them, and the same
/// training is to give the same bytes.
fn sorted(bytes: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return Ok(bytes.to_vec()) };
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut parts: BTreeMap<String, Value> = serde_json::from_slice(header)?;
    if let Some(metadata) = parts.get_mut(METADATA) {
        let ordered: BTreeMap<String, Value> = serde_json::from_value(metadata.take())?;
        *metadata = ordered.into_iter().collect();
    }
    let mut header = serde_json::to_vec(&parts)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat())
}

fn expect(metadata: &HashMap<String, String>, field: &'static str, expected: &str) -> Result<(), LoadError> {
    let given = metadata.get(field).map_or("", String::as_str);
    if given == expected {
        return Ok(());
    }
    let given = given.chars().take(80).collect();
    Err(LoadError::Metadata { field, given, expected: format!("{expected:?}") })
}

fn tensor(file: &SafeTensors<'_>, name: &'static str, expected: Vec<usize>) -> Result<Vec<f32>, LoadError> {
    let wrong = |given: String| LoadError::Tensor { name, given, expected: expected.clone() };
    let view = file.tensor(name).map_err(|_| wrong("missing".into()))?;
    if view.dtype() != Dtype::F32 || view.shape() != expected {
        return Err(wrong(format!("{:?} {:?}", view.dtype(), view.shape())));
    }
    let numbers: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(LoadError::NotFinite { name }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Linear {
        let weight = (0..BUCKETS * 2).map(|i| (i % 7) as f32 - 3.0).collect();
        Linear::new(vec!["a".into(), "b".into()], weight, vec![0.5, -0.5])
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = tiny().write("k", &[("extra", "7".into())]).unwrap();
        let (read, metadata) = Linear::read("k", &bytes).unwrap();
        assert_eq!((read, metadata["extra"].as_str()), (tiny(), "7"));
    }

    #[test]
    fn the_same_model_gives_the_same_bytes() {
        let more: Vec<(String, String)> = (0..20).map(|n| (format!("key{n}"), n.to_string())).collect();
        let more: Vec<(&str, String)> = more.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let bytes = tiny().write("k", &more).unwrap();
        let at = |key: &str| bytes.windows(key.len()).position(|part| part == key.as_bytes()).unwrap();
        assert!(
            at("\"key0\"") < at("\"key1\"") && at("\"key9\"") < at("\"kind\"") && at("\"outputs\"") < at("\"version\"")
        );
        assert_eq!(bytes, tiny().write("k", &more).unwrap());
        assert_eq!(Linear::read("k", &bytes).unwrap().0, tiny());
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_and_the_message_names_what() {
        let bytes = tiny().write("k", &[]).unwrap();
        assert!(matches!(Linear::read("other", &bytes), Err(LoadError::Metadata { field: "kind", .. })));
        assert!(matches!(Linear::read("k", &bytes[..bytes.len() - 1]), Err(LoadError::Format(_))));
        assert!(matches!(Linear::read("k", &[]), Err(LoadError::Format(_))));
        let mut at_limit = bytes.clone();
        at_limit.resize(MAX_FILE_BYTES + 1, 0);
        assert!(matches!(Linear::read("k", &at_limit), Err(LoadError::TooLarge { .. })));
        let mut infinite = tiny();
        infinite.bias[1] = f32::INFINITY;
        let bytes = infinite.write("k", &[]).unwrap();
        assert_eq!(Linear::read("k", &bytes), Err(LoadError::NotFinite { name: "bias" }));
        let narrow = Linear { outputs: vec!["a".into(); 3], ..tiny() };
        assert!(narrow.write("k", &[]).is_err());
    }

    #[test]
    fn a_text_without_words_has_no_outputs() {
        assert_eq!(tiny().apply("...!"), None);
        let [a, b, rest @ ..] = tiny().apply("kitchen").unwrap();
        assert!(a.is_finite() && b.is_finite() && rest.iter().all(|&x| x == 0.0));
    }
}
