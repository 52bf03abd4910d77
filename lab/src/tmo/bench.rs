//! The rows of `make bench-tmo`, a file each for their owners. What has no implementation yet is a row that says so,
//! and is not met.

mod learned;
mod paper;
mod tether;

use super::data::{self, Split};
use super::{association, task};
use crate::mess::bench::Bar;
use clap::ValueEnum;
use std::path::Path;
use tether_policies::tmo::data::Dataset;

/// The published data and splits.
pub struct Given<'a> {
    pub folder: &'a Path,
    pub data: Dataset,
    pub splits: Vec<Split>,
}

/// Hands a row on as soon as it is known.
pub type Show<'a> = dyn FnMut(&Bar) -> anyhow::Result<()> + 'a;

/// What can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Task and association from the text.
    Text,
    /// Baselines and bounds against the reference.
    Paper,
    /// A2C, PPO and DQN.
    Learned,
    /// The tether policy, in paper mode and honest mode.
    Tether,
}

/// `only`: the parts that are run, all where it is empty.
pub fn run(folder: Option<&Path>, only: &[Part], show: &mut Show<'_>) -> anyhow::Result<()> {
    let wanted = |part: Part| only.is_empty() || only.contains(&part);
    if wanted(Part::Text) {
        task::bench(folder, show)?;
        association::bench(folder, show)?;
    }
    let given = match folder {
        Some(folder) => Some(Given { folder, data: data::dialogues(folder)?, splits: data::splits(folder)? }),
        None => None,
    };
    if wanted(Part::Paper) {
        paper::run(given.as_ref(), show)?;
    }
    if wanted(Part::Learned) {
        learned::run(given.as_ref(), show)?;
    }
    if wanted(Part::Tether) {
        tether::run(given.as_ref(), show)?;
    }
    Ok(())
}

pub(crate) fn skipped(bar: &str, target: f64, unit: &'static str, how: &str) -> Bar {
    Bar { bar: bar.to_owned(), value: None, target, unit, met: false, how: how.to_owned() }
}
