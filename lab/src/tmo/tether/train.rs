//! `tether-lab tmo train-tether`: the committed policy, its config, and its card.

use super::honest::{self, NAMES};
use super::progress;
use crate::tmo::artifact::{Card, hashes};
use crate::tmo::data;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::Path;
use tether_policies::tmo::data::Dialogue;
use tether_policies::tmo::honest::response::{leave_one_dialogue_out, plain_table, r_squared};
use tether_policies::tmo::tether::Config;

/// The artifact's files: NAME.json is the config, NAME.safetensors the weights, NAME-card.json the card.
pub const NAME: &str = "tether-tmo";

/// Trains on all dialogues for every profile and writes the three files; the figures are the cross-fitted ones of the
/// same recipe, since nothing is left to judge this network itself on.
pub fn train(folder: Option<&Path>, seed: u64, out: &Path) -> anyhow::Result<String> {
    let dialogues = match folder {
        Some(folder) => data::dialogues(folder)?,
        None => data::made_up().0,
    };
    let uplinks_mbps = folder.map(uplinks).transpose()?.unwrap_or_default();
    let all: Vec<&Dialogue> = dialogues.dialogues.iter().collect();
    let recipe = honest::recipe(seed);
    let bar = progress(recipe.steps(), "the committed network");
    let scenario = honest::everything(uplinks_mbps.clone());
    let (config, weights) =
        honest::train(&dialogues, &all, scenario, recipe, &mut |step| bar.set_position(step as u64))?;
    bar.finish_and_clear();
    let outcome = honest::cross_fitted(&dialogues, seed, &uplinks_mbps)?;
    let mut figures: BTreeMap<String, f64> =
        NAMES.iter().zip(outcome.means()).map(|(name, mean)| (format!("reward, cross-fitted, {name}"), mean)).collect();
    let responses = NAMES.iter().zip(outcome.responses());
    figures.extend(responses.map(|(name, mean)| (format!("answers' own score, cross-fitted, {name}"), mean)));
    figures.insert("leave-one-dialogue-out R^2 of the response model".to_owned(), r_squared(&dialogues));
    let plain = leave_one_dialogue_out(&dialogues, plain_table);
    figures.insert("leave-one-dialogue-out R^2 of a plain mean table".to_owned(), plain);
    figures.insert("dialogues over a budget".to_owned(), outcome.over as f64);
    let source = folder.map_or("", |_| " --data FOLDER");
    let card = Card {
        what: "TMO: local or cloud, and which views; one network for every device, link, budget and number of views",
        command: format!("tether-lab tmo train-tether{source} --seed {seed}"),
        seed,
        data: hashes(folder, &[])?,
        figures,
    };
    write(out, &config, &weights, &card)
}

fn write(out: &Path, config: &Config, weights: &[u8], card: &Card) -> anyhow::Result<String> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let card = serde_json::to_string_pretty(card)? + "\n";
    let config = serde_json::to_string_pretty(config)? + "\n";
    let files = [
        (format!("{NAME}-card.json"), card.as_bytes()),
        (format!("{NAME}.json"), config.as_bytes()),
        (format!("{NAME}.safetensors"), weights),
    ];
    for (name, bytes) in files {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(format!("{card}{} bytes in {}\n", weights.len(), out.join(format!("{NAME}.safetensors")).display()))
}

/// The uplink rates of the recorded WiFi links in `FOLDER/data/traces`, in Mbit/s, one a second. The 5G recordings hold
/// acknowledgement traffic, which is no capacity. Empty where the folder has no traces.
pub fn uplinks(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let folder = folder.join("data/traces");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let wifi = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("wifi_") && name.ends_with(".csv")
    };
    let mut rates = Vec::new();
    for path in paths.iter().filter(|path| wifi(path)) {
        let text = data::read(path)?;
        let column = text.lines().next().and_then(|header| header.split(',').position(|name| name == "up_mbps"));
        let column = column.with_context(|| format!("{}: no column up_mbps", path.display()))?;
        let cells = text.lines().skip(1).filter_map(|line| line.split(',').nth(column));
        rates.extend(cells.filter_map(|cell| cell.trim().parse::<f64>().ok()).filter(|rate| rate.is_finite()));
    }
    Ok(rates)
}
