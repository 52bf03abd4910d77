//! The API key: read once, never shown.

use crate::cloud::CloudError;
use reqwest::header::HeaderValue;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Keys in use have 20 to 200 characters.
const MAX_KEY_BYTES: u64 = 4_096;

#[derive(Clone)]
pub(super) struct Key {
    text: String,
    header: HeaderValue,
}

impl Key {
    pub(super) fn read(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Self>, CloudError> {
        match (file, variable) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(config("api_key_file and api_key_env are both set: one is enough".into())),
            (Some(path), None) => Self::from_file(path).map(Some),
            (None, Some(name)) => match std::env::var(name) {
                Ok(text) => Self::new(&text, &format!("variable {name} (cloud.api_key_env)")).map(Some),
                Err(_) => Err(config(format!("cloud.api_key_env: the variable {name} is not set, or is not text"))),
            },
        }
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Some servers repeat a wrong key in their answer; it must not reach a log that way.
    pub(super) fn redact(&self, message: &str) -> String {
        message.replace(&self.text, "[key]")
    }

    fn from_file(path: &Path) -> Result<Self, CloudError> {
        let shown = path.display();
        let problem = |error: std::io::Error| config(format!("cloud.api_key_file {shown}: {error}"));
        let file = fs::File::open(path).map_err(problem)?;
        let mode = file.metadata().map_err(problem)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(file = %shown, "others can read this key file: chmod 600 it");
        }
        let mut text = String::new();
        file.take(MAX_KEY_BYTES + 1).read_to_string(&mut text).map_err(problem)?;
        Self::new(&text, &format!("{shown} (cloud.api_key_file)"))
    }

    fn new(text: &str, place: &str) -> Result<Self, CloudError> {
        let text = text.trim();
        if text.is_empty() || text.len() as u64 > MAX_KEY_BYTES {
            return Err(config(format!("{place} holds {} bytes, not a key", text.len())));
        }
        let header = HeaderValue::from_str(&format!("Bearer {text}"));
        let mut header = header.map_err(|_| config(format!("{place} holds characters that no key has")))?;
        header.set_sensitive(true);
        Ok(Self { text: text.to_owned(), header })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

fn config(problem: String) -> CloudError {
    CloudError::Config(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "sk-secret\n").unwrap();
        let key = Key::read(Some(&path), None).unwrap().unwrap();
        assert_eq!(key.header().to_str().unwrap(), "Bearer sk-secret");
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
        assert_eq!(key.redact("wrong key sk-secret!"), "wrong key [key]!");
    }

    #[test]
    fn a_bad_key_names_its_place_and_not_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let said = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            Key::read(Some(&path), None).unwrap_err().to_string()
        };
        for bad in [&b""[..], b" \n", b"se\x07cret", b"se\xffcret", &[b'k'; MAX_KEY_BYTES as usize + 1]] {
            let error = said(bad);
            assert!(error.contains("api_key_file") && !error.contains("cret") && error.len() < 300, "{error}");
        }
        let missing = Key::read(Some(Path::new("/nonexistent/key")), None).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/key"), "{missing}");
        assert!(Key::read(Some(&path), Some("X")).is_err());
        let unset = Key::read(None, Some("TETHER_TEST_NO_SUCH_KEY")).unwrap_err().to_string();
        assert!(unset.contains("TETHER_TEST_NO_SUCH_KEY"), "{unset}");
    }
}
