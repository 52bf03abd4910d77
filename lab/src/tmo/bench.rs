//! The rows of `make bench-tmo`, a file each for their owners. What has no implementation yet is a row that says so,
//! and is not met.

mod learned;
mod paper;
mod tether;

use super::data::{self, Split};
use super::{association, task};
use crate::mess::bench::Bar;
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

pub fn run(folder: Option<&Path>, show: &mut Show<'_>) -> anyhow::Result<()> {
    task::bench(folder, show)?;
    association::bench(folder, show)?;
    let given = match folder {
        Some(folder) => Some(Given { folder, data: data::dialogues(folder)?, splits: data::splits(folder)? }),
        None => None,
    };
    paper::run(given.as_ref(), show)?;
    learned::run(given.as_ref(), show)?;
    tether::run(given.as_ref(), show)
}

pub(crate) fn skipped(bar: &str, target: f64, unit: &'static str, how: &str) -> Bar {
    Bar { bar: bar.to_owned(), value: None, target, unit, met: false, how: how.to_owned() }
}
