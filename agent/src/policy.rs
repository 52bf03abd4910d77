//! Which policy decides, and reading a learned one from its two files. A file that is not whole, or was made for
//! another build, is refused with words, and nothing changes.

mod kept;

use crate::config::{PolicyName, PolicySettings};
use kept::Kept;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tether_policies::decision::Refusal;
use tether_policies::fixed::{AlwaysCloud, AlwaysLocal};
use tether_policies::rule::Rule;
use tether_policies::tmo::tether::config::MAX_CONFIG_BYTES;
use tether_policies::tmo::tether::weights::MAX_WEIGHTS_BYTES;
use tether_policies::tmo::tether::{BUILT_IN, LoadError, TetherPolicy};
use tether_policies::{Decision, Observation, Permitted, Policy};

/// Bytes of the hash that a learned policy's name carries: enough to tell the files of one ledger apart.
const DIGEST_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{path} cannot be read: {problem}")]
    Read { path: PathBuf, problem: String },
    #[error("{path} has {given} bytes, at most {limit} are allowed")]
    TooLarge { path: PathBuf, given: u64, limit: usize },
    #[error("{path} and the .safetensors file beside it: {problem}")]
    Load { path: PathBuf, problem: LoadError },
    #[error("the policy that is built in: {0}")]
    BuiltIn(LoadError),
}

/// The policy that the settings name. Reads files of at most a megabyte.
///
/// # Errors
/// [`PolicyError`] says which file is wrong and how.
pub fn load(settings: &PolicySettings) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(match settings.name {
        PolicyName::Rule => Box::new(Kept(Rule)),
        PolicyName::AlwaysLocal => Box::new(Kept(AlwaysLocal)),
        PolicyName::AlwaysCloud => Box::new(Kept(AlwaysCloud)),
        PolicyName::Tether => Box::new(Kept(match &settings.file {
            Some(path) => learned(path)?,
            None => Learned::new(BUILT_IN.0, BUILT_IN.1).map_err(PolicyError::BuiltIn)?,
        })),
    })
}

/// A policy's config at `path` (JSON), its weights beside it with the extension `safetensors`.
fn learned(path: &Path) -> Result<Learned, PolicyError> {
    let config = read(path, MAX_CONFIG_BYTES)?;
    let weights = read(&path.with_extension("safetensors"), MAX_WEIGHTS_BYTES)?;
    let config = String::from_utf8(config)
        .map_err(|error| PolicyError::Read { path: path.to_owned(), problem: error.to_string() })?;
    Learned::new(&config, &weights).map_err(|problem| PolicyError::Load { path: path.to_owned(), problem })
}

/// The length is checked first, so that a wrong path does not fill the memory.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, PolicyError> {
    let problem = |error: std::io::Error| PolicyError::Read { path: path.to_owned(), problem: error.to_string() };
    let found = std::fs::metadata(path).map_err(problem)?;
    if !found.is_file() {
        return Err(PolicyError::Read { path: path.to_owned(), problem: "it is not a file".into() });
    }
    let given = found.len();
    if given > limit as u64 {
        return Err(PolicyError::TooLarge { path: path.to_owned(), given, limit });
    }
    std::fs::read(path).map_err(problem)
}

/// A learned policy whose name says which files it is from, so that the ledger's turns can be told apart after a swap.
struct Learned {
    policy: TetherPolicy,
    /// `NAME@HASH`
    name: String,
}

impl Learned {
    fn new(config: &str, weights: &[u8]) -> Result<Self, LoadError> {
        let policy = TetherPolicy::load(config, weights)?;
        let digest = Sha256::new().chain_update(config).chain_update(weights).finalize();
        let digest: String = digest[..DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: format!("{}@{digest}", policy.name()), policy })
    }
}

impl Policy for Learned {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Decision {
        self.policy.decide(observation, permitted, seed)
    }

    fn try_decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Result<Decision, Refusal> {
        self.policy.try_decide(observation, permitted, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_policies::tmo::tether::{Config, weights};

    fn write(folder: &Path, name: &str, config: &Config, weights: &[u8]) -> PathBuf {
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_string(config).unwrap()).unwrap();
        std::fs::write(path.with_extension("safetensors"), weights).unwrap();
        path
    }

    fn named(path: &Path) -> Result<String, PolicyError> {
        learned(path).map(|policy| policy.name().to_owned())
    }

    #[test]
    fn the_name_tells_files_apart() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new("mine", vec!["Query".into()], 0, 8);
        let bytes = |seed| weights::random(&config, seed).unwrap();
        let (one, two) =
            (write(folder.path(), "one", &config, &bytes(1)), write(folder.path(), "two", &config, &bytes(2)));
        let (one, two) = (named(&one).unwrap(), named(&two).unwrap());
        assert!(one.starts_with("mine@") && two.starts_with("mine@") && one != two, "{one} {two}");
        assert_eq!(one.len(), "mine@".len() + 2 * DIGEST_BYTES);
    }

    #[test]
    fn files_that_do_not_fit_are_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new("mine", vec!["Query".into()], 0, 8);
        let bytes = weights::random(&config, 1).unwrap();
        let message = |path: &Path| named(path).unwrap_err().to_string();
        let path = write(folder.path(), "cut", &config, &bytes[..bytes.len() - 4]);
        assert!(message(&path).contains("cut.json") && message(&path).contains("safetensors"), "{}", message(&path));
        let path = write(folder.path(), "wide", &Config { hidden: 16, ..config.clone() }, &bytes);
        assert!(message(&path).contains("turn.weight"), "{}", message(&path));
        let path = write(folder.path(), "old", &Config { version: 99, ..config.clone() }, &bytes);
        assert!(message(&path).contains("version 99"), "{}", message(&path));
        let missing = folder.path().join("missing.json");
        assert!(matches!(named(&missing), Err(PolicyError::Read { path, .. }) if path == missing));
        let path = write(folder.path(), "alone", &config, &bytes);
        std::fs::remove_file(path.with_extension("safetensors")).unwrap();
        assert!(message(&path).contains("alone.safetensors"), "{}", message(&path));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        std::fs::write(path.with_extension("safetensors"), &bytes).unwrap();
        assert!(message(&path).contains("alone.json"), "{}", message(&path));
    }

    #[test]
    fn the_size_is_limited_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new("mine", vec!["Query".into()], 0, 8);
        // A file at the limit is read (and found to be no safetensors file); one byte more is not even read.
        let path = write(folder.path(), "large", &config, &vec![0; MAX_WEIGHTS_BYTES]);
        assert!(matches!(named(&path), Err(PolicyError::Load { .. })));
        let path = write(folder.path(), "large", &config, &vec![0; MAX_WEIGHTS_BYTES + 1]);
        assert!(matches!(named(&path), Err(PolicyError::TooLarge { limit: MAX_WEIGHTS_BYTES, .. })));
        std::fs::write(&path, vec![b' '; MAX_CONFIG_BYTES + 1]).unwrap();
        assert!(matches!(named(&path), Err(PolicyError::TooLarge { limit: MAX_CONFIG_BYTES, .. })));
    }
}
