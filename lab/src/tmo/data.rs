//! Where the dialogues and the splits come from: files, or a seed.

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tether_policies::tmo::data::{Dataset, Dialogue};
use tether_policies::tmo::paper::{Environment, Estimator, Profile, Weights};
use tether_policies::tmo::synthetic;

/// Ids of the dialogues that train and of those that test.
#[derive(Debug, Clone, Deserialize)]
pub struct Split {
    pub train: Vec<u64>,
    pub test: Vec<u64>,
}

/// Splits of synthetic data: as many as the reference's file has.
const SYNTHETIC_SPLITS: u64 = 10;

/// `FOLDER/data/m4a1/M4A1.json`.
pub fn dialogues(folder: &Path) -> anyhow::Result<Dataset> {
    let path = folder.join("data/m4a1/M4A1.json");
    let text = read(&path)?;
    Dataset::parse(&text).with_context(|| format!("{}", path.display()))
}

/// `FOLDER/reference/tmo_splits.json`, in the order of their numbers.
pub fn splits(folder: &Path) -> anyhow::Result<Vec<Split>> {
    let path = folder.join("reference/tmo_splits.json");
    let numbered: BTreeMap<u64, Split> =
        serde_json::from_str(&read(&path)?).with_context(|| format!("{}", path.display()))?;
    ensure!(!numbered.is_empty(), "{}: no split", path.display());
    Ok(numbered.into_values().collect())
}

pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!("cannot read {}; --data names the folder that holds data/m4a1 and reference", path.display())
    })
}

/// 100 synthetic dialogues and ten 80/20 splits of them.
pub fn made_up() -> (Dataset, Vec<Split>) {
    let data = synthetic::dataset(100, 3, 1);
    let split = |seed| {
        let mut ids: Vec<u64> = data.dialogues.iter().map(|dialogue| dialogue.id).collect();
        ids.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let test = ids.split_off(80);
        Split { train: ids, test }
    };
    let splits = (0..SYNTHETIC_SPLITS).map(split).collect();
    (data, splits)
}

pub fn named<'a>(data: &'a Dataset, ids: &[u64]) -> anyhow::Result<Vec<&'a Dialogue>> {
    ids.iter()
        .map(|&id| data.dialogue(id).with_context(|| format!("a split names dialogue {id}, the data has none")))
        .collect()
}

/// The published environment over a split's training dialogues.
pub fn environment(data: &Dataset, split: &Split) -> anyhow::Result<Environment> {
    let estimator = Estimator::fit(data, named(data, &split.train)?)?;
    Ok(Environment { estimator, profile: Profile::default(), weights: Weights::default() })
}
