//! Which socket to talk to: `--socket`, then `TETHER_HOST`, then the user's own daemon, then the system's.

use std::path::{Path, PathBuf};

/// Where the system service listens.
pub const SYSTEM_SOCKET: &str = "/run/tether/tether.sock";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {given:?} is not a Unix socket: write unix:///path/to/tether.sock or a path")]
pub struct AddressError {
    pub origin: &'static str,
    pub given: String,
}

/// What the process's surroundings say. Passed in, so that the choice itself is a plain function.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `TETHER_HOST`.
    pub host: Option<String>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl Surroundings {
    pub fn of_process() -> Self {
        let set = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        Self { host: set("TETHER_HOST"), runtime_dir: set("XDG_RUNTIME_DIR").map(PathBuf::from) }
    }

    /// The user's socket first, because a person at a terminal means their own daemon.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let user = self.runtime_dir.as_deref().map(user_socket);
        user.into_iter().chain([PathBuf::from(SYSTEM_SOCKET)]).collect()
    }
}

pub fn user_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("tether/tether.sock")
}

/// The socket to use. Among the defaults the first that exists wins; if none does, the first, so that an error
/// names the place where a daemon of this user would listen.
pub fn choose(flag: Option<&str>, around: &Surroundings) -> Result<PathBuf, AddressError> {
    if let Some(given) = flag {
        return parse("--socket", given);
    }
    if let Some(given) = &around.host {
        return parse("TETHER_HOST", given);
    }
    let candidates = around.candidates();
    let found = candidates.iter().find(|path| path.exists()).or(candidates.first());
    Ok(found.cloned().unwrap_or_else(|| SYSTEM_SOCKET.into()))
}

fn parse(origin: &'static str, given: &str) -> Result<PathBuf, AddressError> {
    let path = given.strip_prefix("unix://").unwrap_or(given);
    if path.is_empty() || path.contains("://") || (given != path && !path.starts_with('/')) {
        return Err(AddressError { origin, given: given.to_owned() });
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_beats_environment_beats_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let mut around = Surroundings { host: Some("unix:///env.sock".into()), runtime_dir: Some(dir.path().into()) };
        assert_eq!(choose(Some("./flag.sock"), &around), Ok("./flag.sock".into()));
        assert_eq!(choose(None, &around), Ok("/env.sock".into()));
        around.host = None;
        assert_eq!(choose(None, &around), Ok(user_socket(dir.path())));
        assert_eq!(choose(None, &Surroundings::default()), Ok(SYSTEM_SOCKET.into()));
    }

    #[test]
    fn other_schemes_and_relative_urls_are_refused_by_name() {
        for bad in ["http://localhost:80", "unix://relative", "", "tcp://1.2.3.4:5"] {
            let error = choose(Some(bad), &Surroundings::default()).unwrap_err();
            assert_eq!(error.origin, "--socket");
            assert!(error.to_string().contains("unix:///"), "{error}");
        }
    }
}
