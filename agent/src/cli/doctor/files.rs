//! Settings, model file, disk, and the modes of files that hold keys.

use super::Check;
use crate::cli::units;
use crate::config::{CloudConfig, ConfigError, Loaded, ModelSource, Settings};
use crate::policy;
use nix::sys::statvfs::statvfs;
use nix::unistd::Group;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tether_models::clip::ImageText;
use tether_models::registry::{Registry, RegistryError};

/// Less and the next model does not fit; SmolLM2 is 98 MB, a 1B model at four bits is 0.8 GB.
const LOW_DISK_BYTES: u64 = 1_000_000_000;
/// Less and the ledger cannot be relied on.
const NO_DISK_BYTES: u64 = 50_000_000;

pub(super) fn config(loaded: &Result<Loaded, ConfigError>) -> Vec<Check> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let fix = "correct it; `tether config check` reads it again. What depends on it is not checked";
            return vec![Check::fail("config", error.to_string(), fix)];
        }
    };
    let place = match &loaded.settings.file {
        Some(path) => format!("{}, {} keys written", path.display(), loaded.written.len()),
        None => "no file: the defaults".into(),
    };
    let stray = loaded.warnings.iter().map(|warning| Check::warn("config", warning, "correct or unset it"));
    [Check::ok("config", place)].into_iter().chain(stray).collect()
}

/// The model's file: present, and by its hash the one that the registry means. A path of one's own is looked at only.
pub(super) fn model(settings: &Settings) -> Check {
    let Some(model) = &settings.model else {
        return Check::ok("model", "none wanted: the cloud answers every turn");
    };
    match &model.source {
        ModelSource::Path(path) => own_model(path),
        ModelSource::Registry(name) => registry_model(name),
    }
}

fn own_model(path: &Path) -> Check {
    match tether_models::check_file(path) {
        Ok(()) => Check::ok("model", format!("{}, your own file: no hash to compare", path.display())),
        Err(error) => Check::fail("model", error.to_string(), "fetch it again, or correct model.path"),
    }
}

fn registry_model(name: &str) -> Check {
    let registry = match Registry::from_env() {
        Ok(registry) => registry,
        Err(error) => return Check::fail("model", error.to_string(), "correct or remove that registry file"),
    };
    match registry.verify(name, &mut |_| ControlFlow::Continue(())) {
        Ok(path) => Check::ok("model", format!("{name}, sha256 right, {}", path.display())),
        Err(error @ RegistryError::NotInstalled { .. }) => {
            Check::fail("model", error.to_string(), format!("tether models pull {name}"))
        }
        Err(error @ RegistryError::Unknown { .. }) => {
            Check::fail("model", error.to_string(), "correct model.name; `tether models list` shows all")
        }
        Err(error) => Check::fail("model", error.to_string(), format!("tether models verify {name}")),
    }
}

/// Whether the policy can be read, and which it is.
pub(super) fn policy(settings: &Settings) -> Check {
    match policy::load(&settings.policy) {
        Ok(policy) => Check::ok("policy", policy.name()),
        Err(error) => {
            Check::fail("policy", error.to_string(), "correct policy.file; without it the built-in one decides")
        }
    }
}

/// Whether the configured CLIP can be loaded.
pub(super) fn clip(settings: &Settings) -> Option<Check> {
    let folder = settings.clip.as_ref()?;
    Some(match ImageText::load(folder) {
        Ok(_) => Check::ok("clip", folder.display().to_string()),
        Err(error) => {
            Check::fail("clip", error.to_string(), "correct association.clip; without it the text alone tells")
        }
    })
}

/// Free space where the ledger grows.
pub(super) fn disk(settings: &Settings) -> Vec<Check> {
    let path = &settings.ledger.path;
    let Some(folder) = path.ancestors().skip(1).find(|folder| folder.is_dir()) else { return Vec::new() };
    let free_bytes = match statvfs(folder) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(errno) => return vec![Check::warn("disk", format!("{}: {errno}", folder.display()), "see `df`")],
    };
    let detail = format!("{} free at {}", units::bytes(free_bytes), folder.display());
    vec![match free_bytes {
        0..NO_DISK_BYTES => Check::fail("disk", detail, "free some space: turns can no longer be recorded"),
        NO_DISK_BYTES..LOW_DISK_BYTES => Check::warn("disk", detail, "room for dialogues, not for another model"),
        _ => Check::ok("disk", detail),
    }]
}

/// Files that hold a token or a private key, by the key that names them.
fn secret_files(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let files = match &settings.cloud {
        CloudConfig::None => vec![],
        CloudConfig::Quic(quic) => {
            vec![("cloud.token_file", quic.token_file.as_deref()), ("cloud.client_key", quic.client_key.as_deref())]
        }
        CloudConfig::OpenAi(openai) => vec![("cloud.api_key_file", openai.api_key_file.as_deref())],
    };
    files.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
}

pub(super) fn secrets(settings: &Settings) -> Vec<Check> {
    secret_files(settings).into_iter().map(|(key, path)| secret(key, path)).collect()
}

fn secret(key: &str, path: &Path) -> Check {
    let shown = path.display();
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => {
            let fix = format!("put the file there, or correct {key}; `tether-cloud init` makes keys and tokens");
            return Check::fail("keys", format!("{key} = {shown}: {error}"), fix);
        }
    };
    let mode = found.permissions().mode() & 0o777;
    let detail = format!("{key} = {shown}, mode {mode:03o}");
    if mode & 0o007 != 0 {
        return Check::fail("keys", format!("{detail}: everybody can read it"), format!("chmod 600 {shown}"));
    }
    // A service's own group may read its key: then root can own the file.
    let service = || Group::from_gid(found.gid().into()).ok().flatten().is_some_and(|group| group.name == "tether");
    if mode & 0o070 != 0 && !service() {
        return Check::warn("keys", format!("{detail}: its group can read it"), format!("chmod 600 {shown}"));
    }
    if found.len() == 0 {
        return Check::fail("keys", format!("{detail}: empty"), "write the token or key into it");
    }
    match File::open(path) {
        Ok(_) => Check::ok("keys", detail),
        Err(error) => Check::warn("keys", format!("{detail}: {error}"), "fine if only the daemon's user may read it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn keys_that_others_can_read_fail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert_eq!(secret("cloud.token_file", &path).level, Level::Fail);
        fs::write(&path, "t").unwrap();
        let judged = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            secret("cloud.token_file", &path).level
        };
        assert_eq!([0o600, 0o640, 0o604, 0o644].map(judged), [Level::Ok, Level::Warn, Level::Fail, Level::Fail]);
        fs::write(&path, "").unwrap();
        assert_eq!(judged(0o600), Level::Fail);
    }
}
