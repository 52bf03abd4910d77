//! The command line.

use super::{artifact, association, bench, data, golden, table, task, tether};
use anyhow::bail;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Parser)]
pub struct TmoCli {
    #[command(subcommand)]
    command: TmoCommand,
}

#[derive(Debug, Subcommand)]
enum TmoCommand {
    /// Paper mode against recorded steps of the reference: prints N of N, fails if one differs.
    Golden {
        /// The folder that holds data/m4a1/M4A1.json and reference/.
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
    },
    /// Every baseline and bound in paper mode, on ten splits, under three budgets.
    Table {
        /// The folder that holds data/m4a1/M4A1.json and reference/; without it, synthetic dialogues.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        /// JSON, one row a line.
        #[arg(long)]
        json: bool,
    },
    /// Learns the daemon's task classifier from our phrases (and M4A1's questions), and judges it on unseen ones.
    #[command(after_help = "Example: tether-lab tmo train-task --data ../shared --out policies/artifacts")]
    TrainTask {
        /// The folder that holds data/m4a1/M4A1.json; without it, our phrases alone.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        /// Of the phrases' expansion.
        #[arg(long, default_value_t = artifact::SEED)]
        seed: u64,
        /// Where task.safetensors and its card task.json go.
        #[arg(long, value_name = "FOLDER", default_value = "policies/artifacts")]
        out: PathBuf,
    },
    /// Learns how much each view matters to a question, from its text, on M4A1's similarities.
    #[command(after_help = "Example: tether-lab tmo train-association --data ../shared --out policies/artifacts")]
    TrainAssociation {
        /// The folder that holds data/m4a1/M4A1.json.
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
        /// Where association.safetensors and its card association.json go.
        #[arg(long, value_name = "FOLDER", default_value = "policies/artifacts")]
        out: PathBuf,
    },
    /// Trains the tether policy for every device, link and budget; writes its config, weights and card.
    #[command(after_help = "Example: tether-lab tmo train-tether --data ../shared --out policies/artifacts")]
    TrainTether {
        /// The folder that holds data/m4a1/M4A1.json (and data/traces); without it, synthetic dialogues.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        /// Decides everything: weights, dialogues, budgets, halves.
        #[arg(long, default_value_t = artifact::SEED)]
        seed: u64,
        /// Where tether-tmo.json, tether-tmo.safetensors and tether-tmo-card.json go.
        #[arg(long, value_name = "FOLDER", default_value = "policies/artifacts")]
        out: PathBuf,
    },
    /// The project's bars, one JSON object a line: {"bar","value","target","unit","met","how"}.
    Bench {
        /// The folder that holds data/m4a1/M4A1.json and reference/; without it rows are skipped, not met.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
    },
}

pub fn run(cli: TmoCli) -> anyhow::Result<()> {
    match cli.command {
        TmoCommand::Golden { data: folder } => {
            let outcome = golden::check(&folder, &data::dialogues(&folder)?, &data::splits(&folder)?)?;
            outcome.differences.iter().take(20).for_each(|difference| eprintln!("{difference}"));
            crate::report::print(&format!("{} of {} steps agree\n", outcome.agree, outcome.all))?;
            if outcome.agree != outcome.all || outcome.all == 0 {
                bail!("paper mode differs from the reference");
            }
            Ok(())
        }
        TmoCommand::Table { data: folder, json } => {
            let (dialogues, splits) = match folder {
                Some(folder) => (data::dialogues(&folder)?, data::splits(&folder)?),
                None => data::made_up(),
            };
            let lines = table::table(&dialogues, &splits)?;
            let text = if json {
                lines
                    .iter()
                    .map(|line| serde_json::to_string(line).map(|line| line + "\n"))
                    .collect::<Result<_, _>>()?
            } else {
                table::text(&lines)
            };
            Ok(crate::report::print(&text)?)
        }
        TmoCommand::TrainTask { data, seed, out } => {
            Ok(crate::report::print(&task::train(data.as_deref(), seed, &out)?)?)
        }
        TmoCommand::TrainAssociation { data, out } => Ok(crate::report::print(&association::train(&data, &out)?)?),
        TmoCommand::TrainTether { data, seed, out } => {
            Ok(crate::report::print(&tether::train::train(data.as_deref(), seed, &out)?)?)
        }
        TmoCommand::Bench { data } => {
            bench::run(data.as_deref(), &mut |bar| Ok(crate::report::print(&(serde_json::to_string(bar)? + "\n"))?))
        }
    }
}
