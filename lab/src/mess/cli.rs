//! The command line of the simulator.

use super::bench;
use super::data::{self, Dataset, Source};
use super::encoder::{self, EncoderName};
use super::page::page;
use super::scenario::Scenario;
use super::synthetic::{self, Shape};
use super::table::{Plan, Table};
use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use tether_policies::mess::{Encoder, HashedEncoder, Params};

#[derive(Debug, Parser)]
pub struct MessCli {
    #[command(subcommand)]
    command: MessCommand,
}

#[derive(Debug, Subcommand)]
enum MessCommand {
    /// Our router beside every baseline, on one stream.
    #[command(after_help = EXAMPLES)]
    Table {
        #[command(flatten)]
        options: Options,
        /// What goes wrong.
        #[arg(long, value_enum, default_value = "plain")]
        scenario: Scenario,
    },
    /// The same over levels of alpha, from 5 points above the cheapest model's mean to the best one's.
    Sweep {
        #[command(flatten)]
        options: Options,
    },
    /// The same over all scenarios.
    Drift {
        #[command(flatten)]
        options: Options,
    },
    /// The levels and the scenarios together, as one HTML page with plots.
    Report {
        #[command(flatten)]
        options: Options,
    },
    /// The encoders beside each other: what our router costs with each, and the time each takes.
    Encoders {
        #[command(flatten)]
        options: Options,
    },
    /// The project's bars, one JSON object a line: {"bar","value","target","unit","met","how"}.
    Bench {
        /// The folder with paretobandit_val.jsonl and llmrouter.jsonl; without it those bars are skipped, not met.
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        data: PathBuf,
    },
}

const EXAMPLES: &str = "Examples:
  tether-lab mess table                                   # a synthetic zoo, no data needed
  tether-lab mess table --data rated.jsonl --models small,large,huge --alpha 0.8,0.85
  tether-lab mess table --data rated.jsonl --models a,b --costs 7,51 --alpha 0.6 --scenario drop --json

A line of the data: {\"prompt\":\"..\",\"models\":{\"small\":{\"satisfied\":1,\"cost_usd\":0.0002},..}}
Name the models from the cheapest to the dearest: no router is told any mean or cost, only this order.";

#[derive(Debug, Args)]
pub struct Options {
    /// Rated requests as JSON lines; without it, a synthetic zoo.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The zoo, from the cheapest to the dearest model.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    models: Vec<String>,
    /// A constant cost per model, where the data has none.
    #[arg(long, value_delimiter = ',', value_name = "1,2,5")]
    costs: Option<Vec<f64>>,
    /// Levels of satisfaction to keep, each above 0 and below 1.
    #[arg(long, value_delimiter = ',', default_value = "0.8")]
    alpha: Vec<f64>,
    /// Random orders of the requests.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Leave out rows that lack a model.
    #[arg(long)]
    skip_incomplete: bool,
    /// What turns a prompt into numbers.
    #[arg(long, value_enum, default_value = "hashed")]
    encoder: EncoderName,
    /// Our router's constants as JSON, such as {"optimism":0.3}; others keep their defaults.
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
    /// JSON, one table a line.
    #[arg(long)]
    json: bool,
    /// Also writes a page with plots; `report` writes mess.html unless told otherwise.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Options {
    fn dataset(&self, encoder: &dyn Encoder) -> anyhow::Result<Dataset> {
        let Some(path) = &self.data else {
            ensure!(self.models.is_empty(), "--models needs --data; the synthetic zoo names its own models");
            return Ok(synthetic::zoo(Shape::default(), 1, encoder));
        };
        let source =
            Source { path, models: &self.models, costs: self.costs.as_deref(), skip_incomplete: self.skip_incomplete };
        Ok(data::load(&source, encoder)?)
    }

    /// The first few prompts of the data, or texts of the synthetic zoo's kind.
    fn prompts(&self, count: usize) -> anyhow::Result<Vec<String>> {
        match &self.data {
            Some(path) => Ok(data::prompts(path, count)?),
            None => Ok((0..count).map(|n| format!("How many apples are left of {n} if three are eaten?")).collect()),
        }
    }

    fn params(&self) -> anyhow::Result<Params> {
        match &self.params {
            None => Ok(Params::default()),
            Some(json) => serde_json::from_str(json).context("--params"),
        }
    }

    fn plan<'a>(&self, data: &'a Dataset, width: usize, scenario: Scenario, alpha: f64) -> anyhow::Result<Plan<'a>> {
        ensure!(alpha > 0.0 && alpha < 1.0, "--alpha {alpha} must lie above 0 and below 1, such as 0.85");
        ensure!((1..=10_000).contains(&self.seeds), "--seeds must lie between 1 and 10000");
        if let Some(warning) = out_of_reach(data, alpha) {
            eprintln!("tether-lab: {warning}");
        }
        let seeds = self.first_seed..self.first_seed + self.seeds;
        Ok(Plan { data, width, scenario, alpha, seeds, params: self.params()? })
    }

    fn show(&self, table: &Table) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string(table)? + "\n" } else { table.text() + "\n" };
        Ok(crate::report::print(&text)?)
    }
}

pub fn run(cli: MessCli) -> anyhow::Result<()> {
    match cli.command {
        MessCommand::Table { options, scenario } => tables(&options, &[scenario], false),
        MessCommand::Drift { options } => tables(&options, &Scenario::ALL, false),
        MessCommand::Sweep { options } => tables(&options, &[Scenario::Plain], true),
        MessCommand::Report { mut options } => {
            options.html.get_or_insert_with(|| PathBuf::from("mess.html"));
            tables(&options, &Scenario::ALL, false)
        }
        MessCommand::Encoders { options } => encoders(&options),
        MessCommand::Bench { data } => bench::run(&data, &HashedEncoder, &mut |bar| {
            Ok(crate::report::print(&(serde_json::to_string(bar)? + "\n"))?)
        }),
    }
}

/// Runs each scenario at each level, shows every table as soon as it is there, and writes the page at the end.
fn tables(options: &Options, scenarios: &[Scenario], every_level: bool) -> anyhow::Result<()> {
    let encoder = options.encoder.open()?;
    let data = options.dataset(encoder.as_ref())?;
    let alphas = if every_level { levels(&data) } else { options.alpha.clone() };
    ensure!(!alphas.is_empty(), "no level lies between the cheapest model's mean and the best one's; give --alpha");
    let bar = ProgressBar::new((scenarios.len() * alphas.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{pos}/{len} {msg} {elapsed}")?);
    let mut shown = Vec::new();
    for &scenario in scenarios {
        for &alpha in &alphas {
            bar.set_message(format!("{}, alpha {alpha}", scenario.name()));
            let table = options.plan(&data, encoder.width(), scenario, alpha)?.table();
            bar.suspend(|| options.show(&table))?;
            bar.inc(1);
            shown.push(table);
        }
    }
    bar.finish_and_clear();
    if let Some(path) = &options.html {
        std::fs::write(path, page(&shown)).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Prompts on which an encoder's time is measured.
const TIMED_PROMPTS: usize = 50;

/// One row per encoder and level, as soon as it is known.
fn encoders(options: &Options) -> anyhow::Result<()> {
    for name in EncoderName::ALL {
        let encoder = name.open()?;
        let data = options.dataset(encoder.as_ref())?;
        let texts = options.prompts(TIMED_PROMPTS)?;
        let encode_ms = encoder::median_ms(encoder.as_ref(), &texts);
        for &alpha in &options.alpha {
            let plan = options.plan(&data, encoder.width(), Scenario::Plain, alpha)?;
            let row = plan.encoder_row(encoder.name(), encode_ms);
            let text = if options.json { serde_json::to_string(&row)? } else { row.to_string() };
            crate::report::print(&(text + "\n"))?;
        }
    }
    Ok(())
}

/// Said where no model alone reaches the level.
fn out_of_reach(data: &Dataset, alpha: f64) -> Option<String> {
    let best = data.means().iter().map(|means| means.satisfaction).fold(0.0, f64::max);
    (alpha > best).then(|| format!("alpha {alpha} is above what any model reaches ({best:.3}); the best is served"))
}

/// Every five points between the cheapest model's mean and the best one's.
fn levels(data: &Dataset) -> Vec<f64> {
    let means = data.means();
    let best = means.iter().map(|means| means.satisfaction).fold(0.0, f64::max);
    let levels = (1..20).map(|step| f64::from(step) * 0.05);
    levels.filter(|&level| level > means[0].satisfaction && level < best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let cli = MessCli::try_parse_from(["mess", "table"].iter().chain(arguments)).unwrap();
        let MessCommand::Table { options, .. } = cli.command else { panic!("table") };
        options
    }

    #[test]
    fn levels_that_cannot_be_are_refused_and_one_that_no_model_reaches_is_told_and_run() {
        let data = synthetic::zoo(Shape { rows: 400, ..Shape::default() }, 1, &HashedEncoder);
        let plan = |alpha: f64| options(&["--seeds", "2"]).plan(&data, HashedEncoder.width(), Scenario::Plain, alpha);
        for alpha in [0.0, 1.0, -0.5, f64::NAN] {
            let refused = plan(alpha).map(drop).unwrap_err().to_string();
            assert!(refused.contains("must lie above 0 and below 1"), "{refused}");
        }
        assert_eq!(out_of_reach(&data, 0.8), None);
        assert!(out_of_reach(&data, 0.99).unwrap().starts_with("alpha 0.99 is above what any model reaches (0.8"));
        let runs = plan(0.99).unwrap().tether();
        let best = runs[0].calls[2] as f64 / data.rows.len() as f64;
        assert!(best > 0.5, "the best model serves: {:?}", runs[0].calls);
    }

    #[test]
    fn a_zoo_without_data_and_seeds_without_number_are_refused_by_their_flag() {
        let refused = options(&["--models", "a,b"]).dataset(&HashedEncoder).unwrap_err().to_string();
        assert!(refused.contains("--models needs --data"), "{refused}");
        let data = synthetic::zoo(Shape { rows: 10, ..Shape::default() }, 1, &HashedEncoder);
        let none = options(&["--seeds", "0"]).plan(&data, 1, Scenario::Plain, 0.8).map(drop).unwrap_err().to_string();
        assert!(none.contains("--seeds must lie between 1 and"), "{none}");
        let params = options(&["--params", "{\"optimist\":1}"]).params().unwrap_err();
        assert!(format!("{params:#}").contains("optimist"), "{params:#}");
    }
}
