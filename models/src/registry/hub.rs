//! The Hugging Face hub, through the hf-hub crate, which goes on with an unfinished download.

use super::{OnProgress, Progress, RegistryError};
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Repo, RepoType};
use std::path::{Path, PathBuf};

/// A file on the hub.
pub(super) struct Place<'a> {
    pub(super) repo: &'a str,
    pub(super) file: &'a str,
    pub(super) revision: &'a str,
    pub(super) endpoint: Option<&'a str>,
}

/// Attempts after the first, each going on where the one before stopped.
const RETRIES: usize = 2;

/// Downloads into `partial/hub` and returns the file itself, not the link that the cache makes to it.
pub(super) fn download(
    place: &Place<'_>,
    partial: &Path,
    on_progress: OnProgress<'_>,
) -> Result<PathBuf, RegistryError> {
    let failed = |error: ApiError| RegistryError::File { path: place.file.into(), problem: explain(error) };
    let mut builder = ApiBuilder::from_env().with_cache_dir(partial.join("hub")).with_retries(RETRIES);
    if let Some(endpoint) = place.endpoint {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    let api = builder.with_progress(false).build().map_err(failed)?;
    let repo = Repo::with_revision(place.repo.to_owned(), RepoType::Model, place.revision.to_owned());
    let reporter = Reporter { on_progress, bytes: 0, total_bytes: None };
    let path = api.repo(repo).download_with_progress(place.file, reporter).map_err(failed)?;
    path.canonicalize().map_err(RegistryError::io(&path))
}

struct Reporter<'a> {
    on_progress: OnProgress<'a>,
    bytes: u64,
    total_bytes: Option<u64>,
}

impl hf_hub::api::Progress for Reporter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total_bytes = Some(size as u64);
        self.bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.bytes += size as u64;
        let progress = Progress::Downloading { bytes: self.bytes, total_bytes: self.total_bytes };
        // The library cannot be stopped in mid-file; Ctrl-C ends the process, and the part is kept.
        let _ = (self.on_progress)(progress);
    }

    fn finish(&mut self) {}
}

fn explain(error: ApiError) -> String {
    let words = error.to_string();
    match error {
        ApiError::RequestError(_) | ApiError::TooManyRetries(_) => format!("{words} (is this machine online?)"),
        _ => words,
    }
}
