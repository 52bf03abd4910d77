//! The names of all keys, read from the types themselves, so that no list can be forgotten.

use super::budgets::{BudgetsFile, EnergyFile};
use super::file::{
    AssociationFile, CloudConfig, ConfigFile, LedgerFile, LogFile, MetricsFile, ModelFile, PolicyFile, SessionsFile,
    SocketFile,
};
use super::link::LinkFile;
use super::power::PowerFile;
use crate::cloud::openai::OpenAiConfig;
use crate::cloud::quic::QuicConfig;
use crate::image_codec::EncodeOptions;
use serde::de::{DeserializeOwned, Deserializer, Visitor, value::Error};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// All keys as dotted paths, `model.context_tokens`, sorted.
pub fn known_keys() -> Vec<String> {
    let sections: [(&str, &[&str]); 15] = [
        ("socket", fields::<SocketFile>()),
        ("model", fields::<ModelFile>()),
        ("cloud", fields::<QuicConfig>()),
        ("cloud", fields::<OpenAiConfig>()),
        ("images", fields::<EncodeOptions>()),
        ("policy", fields::<PolicyFile>()),
        ("association", fields::<AssociationFile>()),
        ("sessions", fields::<SessionsFile>()),
        ("ledger", fields::<LedgerFile>()),
        ("budgets", fields::<BudgetsFile>()),
        ("energy", fields::<EnergyFile>()),
        ("power", fields::<PowerFile>()),
        ("link", fields::<LinkFile>()),
        ("log", fields::<LogFile>()),
        ("metrics", fields::<MetricsFile>()),
    ];
    let top = fields::<ConfigFile>().iter().filter(|key| !sections.iter().any(|(section, _)| section == *key));
    let mut keys: Vec<String> = top.map(|key| (*key).to_owned()).collect();
    keys.push("cloud.kind".to_owned());
    for (section, names) in sections {
        keys.extend(names.iter().map(|name| format!("{section}.{name}")));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The default of every key that has one, as it would be written.
pub fn defaults() -> BTreeMap<String, Value> {
    let table = Table::try_from(ConfigFile::default()).expect("the defaults are TOML; a test holds them");
    let cloud = ("cloud.kind".to_owned(), Value::from(CloudConfig::default().kind()));
    let flattened = table.into_iter().flat_map(|(key, value)| match value {
        Value::Table(section) => section.into_iter().map(|(field, value)| (format!("{key}.{field}"), value)).collect(),
        value => vec![(key, value)],
    });
    flattened.chain([cloud]).collect()
}

/// The environment variable of a key: `model.context_tokens` is `TETHER_MODEL_CONTEXT_TOKENS`.
pub fn env_name(key: &str) -> String {
    format!("TETHER_{}", key.replace('.', "_").to_uppercase())
}

/// The known key that is nearest to a misspelt one, if any is near.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|key| (strsim::jaro_winkler(wrong, key), key));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// The names of a struct's fields, as serde gives them to a deserializer.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // The probe always fails; what it saw on the way is the result.
    let _ = T::deserialize(Probe(&mut found));
    found
}

struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("only a struct's fields are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_tell_their_keys() {
        let keys = known_keys();
        for key in ["local_only", "views", "model.context_tokens", "cloud.kind", "cloud.address", "cloud.base_url"] {
            assert!(keys.contains(&key.to_owned()), "{key} is missing in {keys:?}");
        }
        assert!(!keys.contains(&"model".to_owned()));
        assert_eq!(env_name("model.context_tokens"), "TETHER_MODEL_CONTEXT_TOKENS");
        let mut names: Vec<String> = keys.iter().map(|key| env_name(key)).collect();
        names.dedup();
        assert_eq!(names.len(), keys.len(), "two keys share a variable");
    }

    #[test]
    fn every_default_is_of_a_known_key() {
        let (defaults, keys) = (defaults(), known_keys());
        assert!(defaults.keys().all(|key| keys.contains(key)), "{defaults:?}");
        assert_eq!(defaults["cloud.kind"].as_str(), Some("none"));
        assert_eq!(defaults["policy.name"].as_str(), Some("tether"));
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        assert_eq!(nearest("contxt_tokens", ["context_tokens", "threads"]), Some("context_tokens"));
        assert_eq!(nearest("xyz", ["context_tokens", "threads"]), None);
    }
}
