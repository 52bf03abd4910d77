//! Names that come from outside, checked once at the edge.

use crate::limits::MAX_NAME_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {given:?} must be 1 to {MAX_NAME_BYTES} characters of a-z A-Z 0-9 _ - . and start with a letter or digit"
)]
pub struct IdError {
    pub what: &'static str,
    pub given: String,
}

fn check(what: &'static str, given: &str) -> Result<(), IdError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let good = given.len() <= MAX_NAME_BYTES
        && given.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && given.bytes().all(legal);
    // An error message never repeats more of a hostile name than a legal one could hold.
    let shown = || given.chars().take(MAX_NAME_BYTES).collect();
    if good { Ok(()) } else { Err(IdError { what, given: shown() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn new(given: impl Into<String>) -> Result<Self, IdError> {
                let given = given.into();
                check($what, &given)?;
                Ok(Self(given))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(given: String) -> Result<Self, IdError> {
                Self::new(given)
            }
        }

        impl std::str::FromStr for $type {
            type Err = IdError;
            fn from_str(given: &str) -> Result<Self, IdError> {
                Self::new(given)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One dialogue with memory, named by the client.
    SessionId,
    "session"
);
name!(
    /// One answered turn, named by the daemon (a UUID of version 7, so ids sort by time).
    TurnId,
    "turn id"
);
name!(
    /// A camera or the sensor bundle (TMO: a modality).
    ViewName,
    "view"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_limit() {
        assert!(ViewName::new("a".repeat(MAX_NAME_BYTES)).is_ok());
        for bad in ["", "-x", "a b", "a/b", "é", &"a".repeat(MAX_NAME_BYTES + 1)] {
            assert!(ViewName::new(bad).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<SessionId>(r#""../etc""#).is_err());
    }
}
