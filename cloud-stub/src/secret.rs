//! A key that is never written anywhere: not by `Debug`, not in logs, not in errors.

use std::fmt;

/// An API key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("it is empty")]
    Empty,
    #[error("it holds a character that no HTTP header can carry; is it the right file?")]
    NotPrintable,
}

impl Secret {
    /// Takes a key without the white space around it, such as a file's last line end.
    ///
    /// # Errors
    /// Says what is wrong without repeating the key.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let key = text.trim();
        if key.is_empty() {
            return Err(SecretError::Empty);
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::NotPrintable);
        }
        Ok(Self(key.to_owned()))
    }

    /// The key itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` with every occurrence of the key replaced.
    pub fn hide(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([key])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = Secret::new(" sk-123\n").unwrap();
        assert_eq!(key.reveal(), "sk-123");
        assert_eq!(format!("{key:?}"), "Secret([key])");
        assert_eq!(key.hide("bad key: sk-123!"), "bad key: [key]!");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_repeating_it() {
        assert_eq!(Secret::new(" \n"), Err(SecretError::Empty));
        assert_eq!(Secret::new("two\nlines"), Err(SecretError::NotPrintable));
    }
}
