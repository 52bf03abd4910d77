//! Finding the file, reading it, and laying the environment over it.

use super::file::ConfigFile;
use super::keys::{env_name, known_keys, nearest};
use super::settings::{Places, Settings};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Larger is not a settings file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// `TETHER_` variables that are no keys.
const OTHER_VARIABLES: [&str; 4] = ["TETHER_CONFIG", "TETHER_HOST", "TETHER_MODELS_DIR", "TETHER_TEST_MODEL"];

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the settings file {path} cannot be read: {problem}")]
    Read { path: PathBuf, problem: String },
    #[error("{origin}: {problem}{hint}")]
    Syntax { origin: String, problem: String, hint: String },
    #[error("setting {key}: {problem}")]
    Invalid { key: String, problem: String },
}

/// Where a value comes from, for `tether config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
}

/// Settings, and how they came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    /// Every known key that was written anywhere: its value and where it was written.
    pub written: BTreeMap<String, (Value, Origin)>,
    /// Variables that look like keys and are none.
    pub warnings: Vec<String>,
}

/// Loads the settings of this process: `explicit`, or `TETHER_CONFIG`, or the first of the usual places, or no file.
///
/// # Errors
/// A file that was named and is missing, what is not TOML, unknown keys, values out of range: each names its place.
pub fn load(explicit: Option<&Path>) -> Result<Loaded, ConfigError> {
    let env: BTreeMap<String, String> = std::env::vars().collect();
    load_from(explicit, &env)
}

/// As [`load`], with the environment passed in.
///
/// # Errors
/// As [`load`].
pub fn load_from(explicit: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let file = find_file(explicit, env);
    let mut table = match &file {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    let mut written = BTreeMap::new();
    if let Some(path) = &file {
        note_written(&table, &Origin::File(path.clone()), &mut written);
    }
    lay_over(&mut table, env, &mut written);
    let merged = ConfigFile::deserialize(table).map_err(|error| syntax("settings with the environment", &error))?;
    let settings = Settings::resolve(merged, file, &places(env))?;
    Ok(Loaded { settings, written, warnings: stray_variables(env) })
}

/// The file that [`load`] would read.
pub fn find_file(explicit: Option<&Path>, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let named = explicit.map(Path::to_owned).or_else(|| absolute_or_not(env, "TETHER_CONFIG"));
    if named.is_some() {
        return named;
    }
    let user = absolute(env, "XDG_CONFIG_HOME").or_else(|| Some(absolute(env, "HOME")?.join(".config")));
    let user = user.map(|folder| folder.join("tether/config.toml"));
    user.into_iter().chain([PathBuf::from("/etc/tether/config.toml")]).find(|path| path.exists())
}

impl Default for Settings {
    /// What a daemon does without any file and any environment.
    fn default() -> Self {
        let file = ConfigFile::default();
        Settings::resolve(file, None, &Places::default()).expect("the defaults are legal; a test holds them")
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let problem = |problem: String| ConfigError::Read { path: path.to_owned(), problem };
    let length = std::fs::metadata(path).map_err(|error| problem(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(problem(format!("{length} bytes, at most {MAX_FILE_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    let origin = path.display().to_string();
    // First as the typed form, for errors that show the line; then as a table, to lay the environment over.
    toml::from_str::<ConfigFile>(&text).map_err(|error| syntax(&origin, &error))?;
    toml::from_str(&text).map_err(|error| syntax(&origin, &error))
}

/// serde names the wrong key and the right ones; the nearest of these is what was probably meant.
fn syntax(origin: &str, error: &toml::de::Error) -> ConfigError {
    let message = error.message();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let hint = match quoted.split_first() {
        Some((wrong, known)) if message.starts_with("unknown field") => nearest(wrong, known.iter().copied()),
        _ => None,
    };
    let hint = hint.map(|key| format!("did you mean `{key}`?")).unwrap_or_default();
    ConfigError::Syntax { origin: origin.to_owned(), problem: error.to_string(), hint }
}

fn lay_over(table: &mut Table, env: &BTreeMap<String, String>, written: &mut BTreeMap<String, (Value, Origin)>) {
    for key in known_keys() {
        let name = env_name(&key);
        let Some(text) = env.get(&name) else { continue };
        let value = env_value(text);
        match key.split_once('.') {
            None => {
                table.insert(key.clone(), value.clone());
            }
            Some((section, field)) => {
                let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(section) = section {
                    section.insert(field.to_owned(), value.clone());
                }
            }
        }
        written.insert(key, (value, Origin::Environment(name)));
    }
}

fn env_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let parsed = parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn note_written(table: &Table, origin: &Origin, written: &mut BTreeMap<String, (Value, Origin)>) {
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                for (field, value) in section {
                    written.insert(format!("{key}.{field}"), (value.clone(), origin.clone()));
                }
            }
            value => {
                written.insert(key.clone(), (value.clone(), origin.clone()));
            }
        }
    }
}

fn stray_variables(env: &BTreeMap<String, String>) -> Vec<String> {
    let known: Vec<String> = known_keys().iter().map(|key| env_name(key)).collect();
    let stray = env.keys().filter(|name| name.starts_with("TETHER_"));
    let stray = stray.filter(|name| !known.contains(name) && !OTHER_VARIABLES.contains(&name.as_str()));
    let message = |name: &String| {
        let hint = nearest(name, known.iter().map(String::as_str));
        let hint = hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("the variable {name} is no setting{hint}")
    };
    stray.map(message).collect()
}

fn places(env: &BTreeMap<String, String>) -> Places {
    Places {
        home: absolute(env, "HOME"),
        runtime_dir: absolute(env, "XDG_RUNTIME_DIR"),
        state_home: absolute(env, "XDG_STATE_HOME"),
        service_runtime: absolute(env, "RUNTIME_DIRECTORY"),
        service_state: absolute(env, "STATE_DIRECTORY"),
    }
}

/// The XDG base directory specification: relative paths are invalid and ignored.
fn absolute(env: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    absolute_or_not(env, name).filter(|path| path.is_absolute())
}

fn absolute_or_not(env: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests;
