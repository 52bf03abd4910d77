//! `[link]`: what is known of the link beforehand, and what it may be used for.

use super::load::ConfigError;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkFile {
    /// `"auto"`: NetworkManager is asked; or `true`, `false`.
    pub metered: Metered,
    /// Whether pictures may travel over a link that is known to be metered.
    pub metered_views: bool,
    /// Pictures are made smaller until the upload is predicted to take no longer, ms. Somebody waits for the answer.
    pub max_upload_ms: u64,
    /// Whether the link is measured with 8 KiB after a silence: after 20 s, then ever more seldom, at last every 10 minutes.
    pub probe: bool,
}

impl Default for LinkFile {
    fn default() -> Self {
        Self { metered: Metered::Auto, metered_views: true, max_upload_ms: 2_000, probe: true }
    }
}

/// Whether bytes cost money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Metered {
    #[default]
    Auto,
    Known(bool),
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Known(bool),
    Word(String),
}

impl TryFrom<Written> for Metered {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Known(metered) => Ok(Metered::Known(metered)),
            Written::Word(word) if word == "auto" => Ok(Metered::Auto),
            Written::Word(word) => Err(format!("{word:?} is none of \"auto\", true, false")),
        }
    }
}

impl From<Metered> for Written {
    fn from(metered: Metered) -> Self {
        match metered {
            Metered::Auto => Written::Word("auto".into()),
            Metered::Known(metered) => Written::Known(metered),
        }
    }
}

/// `[link]`, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSettings {
    pub metered: Metered,
    pub metered_views: bool,
    pub max_upload_ms: f64,
    pub probe: bool,
}

impl LinkFile {
    /// # Errors
    /// [`ConfigError::Invalid`] names the key and its legal values.
    pub(super) fn resolve(self) -> Result<LinkSettings, ConfigError> {
        let LinkFile { metered, metered_views, max_upload_ms, probe } = self;
        if !(10..=600_000).contains(&max_upload_ms) {
            let problem = format!("{max_upload_ms} is not in 10..=600000");
            return Err(ConfigError::Invalid { key: "link.max_upload_ms".into(), problem });
        }
        Ok(LinkSettings { metered, metered_views, max_upload_ms: max_upload_ms as f64, probe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metered_is_a_word_or_a_truth() {
        let read = |text: &str| toml::from_str::<LinkFile>(text);
        assert_eq!(read("metered = \"auto\"").unwrap().metered, Metered::Auto);
        assert_eq!(read("metered = true").unwrap().metered, Metered::Known(true));
        assert!(read("metered = \"maybe\"").unwrap_err().to_string().contains("none of"));
        assert!(read("max_upload_ms = 5").unwrap().resolve().unwrap_err().to_string().contains("link.max_upload_ms"));
        let written = toml::to_string(&LinkFile { metered: Metered::Known(false), ..LinkFile::default() }).unwrap();
        assert!(written.contains("metered = false"), "{written}");
    }
}
