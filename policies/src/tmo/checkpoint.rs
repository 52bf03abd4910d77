//! A policy on disk: a configuration in JSON, and beside it the weights as safetensors. The configuration is written
//! first and stands in the weights' header too, so that two files that do not belong together are refused.

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Raised when a file of before could be misread.
pub const VERSION: u32 = 1;
/// Far above our policies (under 1 MB) and their configurations (under 10 kB).
pub const MAX_WEIGHTS_BYTES: usize = 64 << 20;
pub const MAX_CONFIG_BYTES: usize = 1 << 20;
pub const MAX_ARRAYS: usize = 256;
/// The header's entry that repeats the configuration.
const ENTRY: &str = "config";

/// One parameter, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Parameters by name.
pub type Arrays = BTreeMap<String, Array>;

/// What the weights are, and how they came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub version: u32,
    /// The form of policy, such as "a2c".
    pub kind: String,
    pub seed: u64,
    /// Of the dialogues it was trained on; "synthetic" followed by what made them, where there was no file.
    pub data: String,
    /// Of every array.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The kind's own settings.
    pub settings: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub config: Config,
    pub arrays: Arrays,
}

/// A checkpoint that cannot be used; says what does not fit.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} {}: {error}", path.display())]
    File { action: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{what} is larger than {limit} bytes")]
    Large { what: &'static str, limit: usize },
    #[error("the policy's configuration is not of the expected form: {0}")]
    Config(String),
    #[error("the policy is of version {0}, this program reads version {VERSION}; train it anew")]
    Version(u32),
    #[error("the policy is of kind {found}, {wanted} is needed here")]
    Kind { found: String, wanted: String },
    #[error("the policy's weights cannot be read: {0}")]
    Weights(String),
    #[error("weights and configuration are of two different policies; copy both files together")]
    Torn,
    #[error("{name}: {problem}")]
    Array { name: String, problem: String },
}

impl Checkpoint {
    /// `settings` are of the kind's own type.
    pub fn new(
        kind: &str,
        seed: u64,
        data: &str,
        settings: &impl Serialize,
        arrays: Arrays,
    ) -> Result<Self, CheckpointError> {
        let settings = serde_json::to_value(settings).map_err(|error| CheckpointError::Config(error.to_string()))?;
        let shapes = arrays.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect();
        let config = Config { version: VERSION, kind: kind.to_owned(), seed, data: data.to_owned(), shapes, settings };
        let checkpoint = Checkpoint { config, arrays };
        checkpoint.arrays.iter().try_for_each(|(name, array)| sound(name, array))?;
        Ok(checkpoint)
    }

    /// Writes `path` (JSON) and then its sibling with the ending `safetensors`, each whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let (config, weights) = self.to_bytes()?;
        replace(path, &config)?;
        replace(&path.with_extension("safetensors"), &weights)
    }

    /// Reads what [`Checkpoint::save`] wrote.
    pub fn load(path: &Path, kind: &str) -> Result<Self, CheckpointError> {
        let config = read(path, "the configuration", MAX_CONFIG_BYTES)?;
        let weights = read(&path.with_extension("safetensors"), "the file of weights", MAX_WEIGHTS_BYTES)?;
        Self::from_bytes(&config, &weights, kind)
    }

    /// The two files' content.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), CheckpointError> {
        let config = |error: serde_json::Error| CheckpointError::Config(error.to_string());
        let text = serde_json::to_string_pretty(&self.config).map_err(config)? + "\n";
        let header = HashMap::from([(ENTRY.to_owned(), serde_json::to_string(&self.config).map_err(config)?)]);
        let weights = safetensors::serialize(&self.arrays, Some(header))
            .map_err(|error| CheckpointError::Weights(error.to_string()))?;
        Ok((text.into_bytes(), weights))
    }

    /// From the two files' content; refuses what is not of `kind`, not whole, not of one piece or not finite.
    pub fn from_bytes(config: &[u8], weights: &[u8], kind: &str) -> Result<Self, CheckpointError> {
        within("the configuration", config.len(), MAX_CONFIG_BYTES)?;
        within("the file of weights", weights.len(), MAX_WEIGHTS_BYTES)?;
        let config = parse(config, kind)?;
        let unreadable = |error: safetensors::SafeTensorError| CheckpointError::Weights(error.to_string());
        let (_, header) = SafeTensors::read_metadata(weights).map_err(unreadable)?;
        let repeated = header.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
        if repeated.and_then(|text| serde_json::from_str::<Config>(text).ok()).as_ref() != Some(&config) {
            return Err(CheckpointError::Torn);
        }
        let arrays = arrays(&SafeTensors::deserialize(weights).map_err(unreadable)?)?;
        fit(&config.shapes, &arrays)?;
        Ok(Checkpoint { config, arrays })
    }

    /// The settings as the kind's own type.
    pub fn settings<T: for<'de> Deserialize<'de>>(&self) -> Result<T, CheckpointError> {
        serde_json::from_value(self.config.settings.clone())
            .map_err(|error| CheckpointError::Config(format!("settings: {error}")))
    }
}

/// Refuses arrays that are not exactly the `wanted` ones: what a network calls before it takes the numbers.
pub fn fit(wanted: &BTreeMap<String, Vec<usize>>, arrays: &Arrays) -> Result<(), CheckpointError> {
    for (name, shape) in wanted {
        let problem = match arrays.get(name) {
            None => "is missing".to_owned(),
            Some(array) if array.shape != *shape => format!("shape {:?}, {shape:?} is needed", array.shape),
            Some(_) => continue,
        };
        return Err(CheckpointError::Array { name: name.clone(), problem });
    }
    match arrays.keys().find(|name| !wanted.contains_key(*name)) {
        Some(name) => Err(CheckpointError::Array { name: name.clone(), problem: "is not part of this policy".into() }),
        None => Ok(()),
    }
}

fn parse(config: &[u8], kind: &str) -> Result<Config, CheckpointError> {
    let value: serde_json::Value =
        serde_json::from_slice(config).map_err(|error| CheckpointError::Config(error.to_string()))?;
    // The version first: another one may have another form.
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(CheckpointError::Version(version.try_into().unwrap_or(u32::MAX))),
        None => return Err(CheckpointError::Config("no version".to_owned())),
    }
    let config: Config = serde_json::from_value(value).map_err(|error| CheckpointError::Config(error.to_string()))?;
    if config.kind != kind {
        return Err(CheckpointError::Kind { found: config.kind, wanted: kind.to_owned() });
    }
    Ok(config)
}

fn arrays(tensors: &SafeTensors<'_>) -> Result<Arrays, CheckpointError> {
    if tensors.len() > MAX_ARRAYS {
        return Err(CheckpointError::Weights(format!("{} arrays, at most {MAX_ARRAYS} are allowed", tensors.len())));
    }
    let array = |(name, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        if tensor.dtype() != Dtype::F32 {
            let problem = format!("numbers of type {:?}, F32 is needed", tensor.dtype());
            return Err(CheckpointError::Array { name: name.to_owned(), problem });
        }
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let values = tensor.data().chunks_exact(4).map(number).collect();
        let array = Array { shape: tensor.shape().to_vec(), values };
        sound(name, &array)?;
        Ok((name.to_owned(), array))
    };
    tensors.iter().map(array).collect()
}

fn sound(name: &str, array: &Array) -> Result<(), CheckpointError> {
    let problem = if array.shape.iter().product::<usize>() != array.values.len() {
        format!("{} numbers for shape {:?}", array.values.len(), array.shape)
    } else if let Some(bad) = array.values.iter().find(|value| !value.is_finite()) {
        format!("holds {bad}")
    } else {
        return Ok(());
    };
    Err(CheckpointError::Array { name: name.to_owned(), problem })
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), CheckpointError> {
    if bytes > limit { Err(CheckpointError::Large { what, limit }) } else { Ok(()) }
}

fn read(path: &Path, what: &'static str, limit: usize) -> Result<Vec<u8>, CheckpointError> {
    let failed = |error| CheckpointError::File { action: "read", path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One more than allowed, to tell a file of the limit from a larger one.
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    within(what, bytes.len(), limit)?;
    Ok(bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let failed = |error| CheckpointError::File { action: "write", path: path.to_owned(), error };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    std::fs::write(&temporary, bytes).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let arrays = Arrays::from([
            ("a".to_owned(), Array { shape: vec![2, 2], values: vec![1.0, -2.5, 0.0, 4.0] }),
            ("b".to_owned(), Array { shape: vec![1], values: vec![7.0] }),
        ]);
        Checkpoint::new("a2c", 3, "synthetic", &serde_json::json!({"rate": 0.5}), arrays).unwrap()
    }

    fn refusal(config: &[u8], weights: &[u8]) -> String {
        Checkpoint::from_bytes(config, weights, "a2c").unwrap_err().to_string()
    }

    #[test]
    fn comes_back_from_files_as_it_was() {
        let folder = std::env::temp_dir().join(format!("tether-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("policy.json");
        checkpoint().save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path, "a2c").unwrap(), checkpoint());
        std::fs::remove_file(path.with_extension("safetensors")).unwrap();
        assert!(Checkpoint::load(&path, "a2c").unwrap_err().to_string().contains("policy.safetensors"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn another_kind_version_or_form_is_refused() {
        let (config, weights) = checkpoint().to_bytes().unwrap();
        let error = Checkpoint::from_bytes(&config, &weights, "ppo").unwrap_err().to_string();
        assert_eq!(error, "the policy is of kind a2c, ppo is needed here");
        let edited = |from: &str, to: &str| String::from_utf8(config.clone()).unwrap().replace(from, to).into_bytes();
        assert!(refusal(&edited("\"version\": 1", "\"version\": 9"), &weights).contains("version 9"));
        assert!(refusal(&edited("\"seed\"", "\"sead\""), &weights).contains("sead"));
        assert!(refusal(b"{", &weights).contains("form"));
    }

    #[test]
    fn files_of_two_policies_are_refused() {
        let (config, _) = checkpoint().to_bytes().unwrap();
        let mut other = checkpoint();
        other.config.seed = 4;
        assert!(refusal(&config, &other.to_bytes().unwrap().1).contains("two different policies"));
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        let broken = |edit: &dyn Fn(&mut Checkpoint)| {
            let mut checkpoint = checkpoint();
            edit(&mut checkpoint);
            let (config, weights) = checkpoint.to_bytes().unwrap();
            refusal(&config, &weights)
        };
        assert_eq!(broken(&|c| drop(c.arrays.remove("b"))), "b: is missing");
        assert_eq!(
            broken(&|c| c.config.shapes.insert("b".into(), vec![2]).map_or((), drop)),
            "b: shape [1], [2] is needed"
        );
        assert_eq!(broken(&|c| c.config.shapes.remove("b").map_or((), drop)), "b: is not part of this policy");
        let nan = |c: &mut Checkpoint| c.arrays.get_mut("b").unwrap().values[0] = f32::NAN;
        assert_eq!(broken(&nan), "b: holds NaN");
        let (config, weights) = checkpoint().to_bytes().unwrap();
        for cut in [0, 7, 8, 100, weights.len() - 1] {
            assert!(refusal(&config, &weights[..cut]).contains("cannot be read"), "{cut}");
        }
    }

    #[test]
    fn the_limits_are_limits() {
        assert!(within("it", MAX_CONFIG_BYTES, MAX_CONFIG_BYTES).is_ok());
        let (_, weights) = checkpoint().to_bytes().unwrap();
        assert!(refusal(&vec![b' '; MAX_CONFIG_BYTES + 1], &weights).contains("larger than"));
    }
}
