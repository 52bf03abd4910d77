//! What a trained model is committed with: its bytes, and a card that says where they come from.

use super::data;
use anyhow::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Of every committed artifact.
pub const SEED: u64 = 1;

/// Beside `NAME.safetensors` as `NAME.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    pub what: &'static str,
    pub command: String,
    pub seed: u64,
    /// SHA-256 of what it was learned from, by path.
    pub data: BTreeMap<String, String>,
    /// Measured by the same command, on what the model in question had not seen.
    pub figures: BTreeMap<String, f64>,
}

/// The hashes of the data set, if one is used, and of texts in this repository.
pub fn hashes(folder: Option<&Path>, own: &[(&str, &str)]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found: BTreeMap<String, String> =
        own.iter().map(|(name, text)| ((*name).to_owned(), hash(text.as_bytes()))).collect();
    if let Some(folder) = folder {
        let name = "data/m4a1/M4A1.json";
        found.insert(name.to_owned(), hash(data::read(&folder.join(name))?.as_bytes()));
    }
    Ok(found)
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes both files and says so. The weights come last: a card without weights misleads nobody.
pub fn write(out: &Path, name: &str, weights: &[u8], card: &Card) -> anyhow::Result<String> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = |extension: &str| out.join(format!("{name}.{extension}"));
    let card = serde_json::to_string_pretty(card)? + "\n";
    for (path, bytes) in [(path("json"), card.as_bytes()), (path("safetensors"), weights)] {
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(format!("{card}{} bytes in {}\n", weights.len(), path("safetensors").display()))
}
