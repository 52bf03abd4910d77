//! The command line.

mod policies;

use super::{artifact, association, bench, data, golden, task, tether};
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
    /// Every baseline and bound in paper mode, under three budgets; learners too with --learned.
    #[command(after_help = TABLE_EXAMPLES)]
    Table(policies::TableArgs),
    /// Trains one policy in paper mode and saves it.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(policies::TrainArgs),
    /// Plays saved policies, or a local model that is asked, on the test dialogues of their split.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(policies::EvalArgs),
    /// The reward against each budget: the journal's learners, and the masked bound.
    #[command(after_help = "Example: tether-lab tmo sweep --data ../shared --splits 3 --json")]
    Sweep(policies::SweepArgs),
    /// Everything as one HTML page with plots; the table as text.
    #[command(after_help = "Example: tether-lab tmo report --data ../shared --html tmo.html")]
    Report(policies::ReportArgs),
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
        /// Only these rows; may be given several times.
        #[arg(long, value_enum)]
        only: Vec<bench::Part>,
    },
}

const TABLE_EXAMPLES: &str = "Examples:
  tether-lab tmo table                               # synthetic dialogues, no data needed
  tether-lab tmo table --data ../shared --json
  tether-lab tmo table --data ../shared --learned --splits 3";

const TRAIN_EXAMPLES: &str = "Examples:
  tether-lab tmo train --data ../shared --algorithm ppo --out ppo.json
  tether-lab tmo train --data ../shared --algorithm a2c --handling journal --draw extreme-aware
  tether-lab tmo train --data ../shared --algorithm ppo --handling primal-dual --budget 15,0.02";

const EVAL_EXAMPLES: &str = "Examples:
  tether-lab tmo eval ppo.json a2c.json --data ../shared
  tether-lab tmo eval --ask smollm2-135m-instruct --data ../shared";

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
        TmoCommand::Table(args) => policies::table(&args),
        TmoCommand::Train(args) => policies::train(&args),
        TmoCommand::Eval(args) => policies::eval(&args),
        TmoCommand::Sweep(args) => policies::run_sweep(&args),
        TmoCommand::Report(args) => policies::report(&args),
        TmoCommand::TrainTask { data, seed, out } => {
            Ok(crate::report::print(&task::train(data.as_deref(), seed, &out)?)?)
        }
        TmoCommand::TrainAssociation { data, out } => Ok(crate::report::print(&association::train(&data, &out)?)?),
        TmoCommand::TrainTether { data, seed, out } => {
            Ok(crate::report::print(&tether::train::train(data.as_deref(), seed, &out)?)?)
        }
        TmoCommand::Bench { data, only } => bench::run(data.as_deref(), &only, &mut |bar| {
            Ok(crate::report::print(&(serde_json::to_string(bar)? + "\n"))?)
        }),
    }
}
