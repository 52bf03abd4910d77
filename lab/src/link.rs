//! How well the link estimator predicts: sends at random moments over recorded links, each predicted before it.

use crate::mess::bench::Bar;
use anyhow::{Context, bail};
use clap::Parser;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use tether_policies::link::{LinkEstimator, Sample};
use tether_policies::trace::{DEFAULT_UPLINK_SHARE, Trace};

/// Sizes of a turn's views: one small picture to three large ones.
const BYTES: (u64, u64) = (20_000, 300_000);
/// A person asks every few seconds.
const MEAN_PAUSE_S: f64 = 5.0;
/// The first sends teach; nothing could be predicted before them.
const LEARNING: usize = 10;
const SENDS: usize = 200;

/// Checks predicted upload times against recorded links.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  tether-lab link wifi_1.csv wifi_2.csv\n  tether-lab link traces/ --json")]
pub struct LinkCli {
    /// Traces (t_s,down_mbps,up_mbps,rtt_ms), or folders of them.
    #[arg(required = true, value_name = "FILE")]
    traces: Vec<PathBuf>,
    /// Only files whose name begins so.
    #[arg(long, default_value = "", value_name = "TEXT")]
    prefix: String,
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The bar of `make bench-budgets`, one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Median of |predicted - true| / true.
    pub median_error: f64,
    /// Share of true times within the interval.
    pub covered: f64,
    pub sends: usize,
}

pub fn run(cli: LinkCli) -> anyhow::Result<()> {
    let mut all = Vec::new();
    let mut text = String::new();
    for path in files(&cli.traces, &cli.prefix)? {
        let trace = read(&path, DEFAULT_UPLINK_SHARE)?;
        let outcomes: Vec<_> = (0..cli.seeds).flat_map(|seed| outcomes(&trace, seed)).collect();
        let Accuracy { median_error, covered, sends } = accuracy(&outcomes);
        text += &format!(
            "{:<48} median error {:5.1} %   covered {:5.1} %   {sends} sends\n",
            path.file_name().unwrap_or_default().to_string_lossy(),
            median_error * 100.0,
            covered * 100.0
        );
        all.extend(outcomes);
    }
    let whole = accuracy(&all);
    if cli.json {
        text = bars(&whole)
            .iter()
            .map(|bar| serde_json::to_string(bar).map(|line| line + "\n"))
            .collect::<Result<_, _>>()?;
    } else {
        text += &format!(
            "{:<48} median error {:5.1} %   covered {:5.1} %   {} sends\n",
            "all",
            whole.median_error * 100.0,
            whole.covered * 100.0,
            whole.sends
        );
    }
    Ok(crate::report::print(&text)?)
}

fn bars(accuracy: &Accuracy) -> [Bar; 2] {
    let how = format!("{} sends of 20 to 300 KB over recorded links, each predicted before it", accuracy.sends);
    [
        Bar {
            bar: "predicted upload time, median error".to_owned(),
            value: Some(accuracy.median_error),
            target: 0.25,
            unit: "ratio",
            met: accuracy.median_error <= 0.25,
            how: how.clone(),
        },
        Bar {
            bar: "predicted upload time, interval covers".to_owned(),
            value: Some(accuracy.covered),
            target: 0.90,
            unit: "ratio",
            met: accuracy.covered >= 0.90,
            how,
        },
    ]
}

/// The files named, and those with the prefix in the folders named, in order.
///
/// # Errors
/// A path that cannot be read, or no file at all.
pub fn files(paths: &[PathBuf], prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
            found.retain(|path| named(path) && path.extension().is_some_and(|e| e == "csv"));
            found.sort();
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        bail!("no trace (*.csv) in {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    Ok(files)
}

/// # Errors
/// The file cannot be read, or is no trace; the error names it.
pub fn read(path: &Path, uplink_share: f64) -> anyhow::Result<Trace> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Trace::parse(&text, uplink_share).with_context(|| path.display().to_string())
}

/// For each send after the first few: its relative error, and whether the interval covered it.
fn outcomes(trace: &Trace, seed: u64) -> Vec<(f64, bool)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut link = LinkEstimator::default();
    let mut now_s = random.random_range(0.0..trace.duration_s());
    let mut outcomes = Vec::new();
    for number in 0..SENDS {
        let bytes = random.random_range(BYTES.0..BYTES.1);
        let predicted = link.send_time(now_s, bytes);
        let Some(seconds) = trace.send_s(now_s, bytes) else { break };
        if let (Some(predicted), true) = (predicted, number >= LEARNING) {
            let error = (predicted.median_s - seconds).abs() / seconds;
            outcomes.push((error, (predicted.low_s..=predicted.high_s).contains(&seconds)));
        }
        // The moment of the observation is the moment of the send: the interval is judged from there.
        link.sent(Sample { at_s: now_s, bytes, seconds, app_limited: false });
        let uniform: f64 = random.random_range(f64::MIN_POSITIVE..1.0);
        now_s += seconds - MEAN_PAUSE_S * uniform.ln();
    }
    outcomes
}

fn accuracy(outcomes: &[(f64, bool)]) -> Accuracy {
    let mut errors: Vec<f64> = outcomes.iter().map(|outcome| outcome.0).collect();
    errors.sort_by(f64::total_cmp);
    let covered = outcomes.iter().filter(|outcome| outcome.1).count();
    Accuracy {
        median_error: errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN),
        covered: covered as f64 / outcomes.len().max(1) as f64,
        sends: outcomes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changing_link_is_predicted_within_the_interval() {
        let rows: String = (0..120).map(|t| format!("{t},,{},\n", 4.0 + 3.0 * f64::from(t % 7))).collect();
        let trace = Trace::parse(&format!("t_s,down_mbps,up_mbps,rtt_ms\n{rows}"), 0.1).unwrap();
        let outcomes: Vec<_> = (0..5).flat_map(|seed| outcomes(&trace, seed)).collect();
        let found = accuracy(&outcomes);
        assert!(found.median_error < 0.6 && found.median_error > 0.05, "{found:?}");
        assert!((0.85..0.97).contains(&found.covered), "{found:?}");
    }
}
