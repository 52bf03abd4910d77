//! `tmo table`, `train`, `eval`, `sweep` and `report`.

use crate::tmo::artifact;
use crate::tmo::asked::{Asked, LocalModel};
use crate::tmo::data::{self, Split};
use crate::tmo::learned::{self, Algorithm, BUDGET, Handling, Plan, STEPS};
use crate::tmo::page::page;
use crate::tmo::progress::Steps;
use crate::tmo::run::{Budget, Contender};
use crate::tmo::sweep::sweep;
use crate::tmo::table::{self, BUDGETS, Study};
use crate::tmo::tether::train::uplinks;
use crate::tmo::tether::{honest, paper};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tether_policies::tmo::data::Dataset;
use tether_policies::tmo::learn::paper_world::Draw;

/// Where dialogues come from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The folder that holds data/m4a1/M4A1.json and reference/; without it, synthetic dialogues.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Only the first splits.
    #[arg(long, value_name = "N")]
    splits: Option<usize>,
}

impl Source {
    fn load(&self) -> anyhow::Result<(Dataset, Vec<Split>)> {
        let (data, mut splits) = match &self.data {
            Some(folder) => (data::dialogues(folder)?, data::splits(folder)?),
            None => data::made_up(),
        };
        splits.truncate(self.splits.unwrap_or(splits.len()));
        ensure!(!splits.is_empty(), "--splits must be at least 1");
        Ok((data, splits))
    }

    /// What it was, in words, for a checkpoint or a page.
    fn described(&self) -> anyhow::Result<String> {
        let hashes = artifact::hashes(self.data.as_deref(), &[])?;
        Ok(hashes
            .into_values()
            .next()
            .map_or("synthetic, 100 dialogues, seed 1".to_owned(), |hash| format!("sha256 {hash}")))
    }
}

/// What to train along the way.
#[derive(Debug, Args)]
pub(super) struct Training {
    /// Of the first split; each further one adds 1.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Environment steps of each training; the reference takes 30,000.
    #[arg(long, default_value_t = STEPS)]
    steps: usize,
}

impl Training {
    fn plans(&self, handlings: &[Handling]) -> Vec<Plan> {
        let of = |&handling: &Handling| {
            // Multipliers are shown where a budget binds.
            let budget = if handling == Handling::PrimalDual { BUDGETS[1] } else { BUDGET };
            let plan = |algorithm| Plan { steps: self.steps, budget, ..Plan::new(algorithm, handling, self.seed) };
            Algorithm::ALL.map(plan)
        };
        handlings.iter().flat_map(of).collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=100_000_000).contains(&self.steps), "--steps must lie between 1 and 100000000");
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct TableArgs {
    #[command(flatten)]
    source: Source,
    /// Also A2C, PPO and DQN, trained anew on each split: plain, the journal's form, and with multipliers; and the tether
    /// policy, one network a split for all budgets.
    #[arg(long)]
    learned: bool,
    #[command(flatten)]
    training: Training,
    /// JSON, one row a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn table(args: &TableArgs) -> anyhow::Result<()> {
    args.training.check()?;
    let (data, splits) = args.source.load()?;
    let handlings = [Handling::None, Handling::Journal, Handling::PrimalDual];
    let plans = if args.learned { args.training.plans(&handlings) } else { Vec::new() };
    let tether = if args.learned { paper::train_all(&data, &splits)? } else { Vec::new() };
    let study = Study { plans: &plans, tether: &tether, ..Study::bounds(&data, &splits) };
    let steps = Steps::new(study.steps(), "steps");
    let lines = study.run(&|more| steps.advance(more))?.lines;
    steps.done();
    Ok(crate::report::print(&if args.json { table::json(&lines)? } else { table::text(&lines) })?)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DrawArg {
    Normal,
    Uniform,
    ExtremeAware,
}

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    source: Source,
    #[arg(long, value_enum, default_value = "a2c")]
    algorithm: Algorithm,
    /// What is done about budgets.
    #[arg(long, value_enum, default_value = "none")]
    handling: Handling,
    /// How the journal's form draws the budgets of an episode.
    #[arg(long, value_enum, default_value = "normal")]
    draw: DrawArg,
    /// What the conference's penalty and the multipliers are about.
    #[arg(long, value_parser = budget, default_value = "30,0.05", value_name = "SECONDS,USD")]
    budget: Budget,
    /// The split whose training dialogues are used, from 0.
    #[arg(long, default_value_t = 0)]
    split: usize,
    #[command(flatten)]
    training: Training,
    /// The configuration goes here, the weights beside it with the ending safetensors.
    #[arg(long, value_name = "FILE", default_value = "policy.json")]
    out: PathBuf,
}

fn budget(text: &str) -> Result<Budget, String> {
    let numbers: Vec<f64> = text.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    match numbers[..] {
        [latency_s, usage_usd] if latency_s > 0.0 && usage_usd > 0.0 => Ok([latency_s, usage_usd]),
        _ => Err("seconds and USD, both above 0, such as 15,0.02".to_owned()),
    }
}

pub(super) fn train(args: &TrainArgs) -> anyhow::Result<()> {
    args.training.check()?;
    let (data, splits) = args.source.load()?;
    let split =
        splits.get(args.split).with_context(|| format!("--split {}: there are {}", args.split, splits.len()))?;
    let draw = match args.draw {
        DrawArg::Normal => Draw::Normal,
        DrawArg::Uniform => Draw::Uniform,
        DrawArg::ExtremeAware => Draw::ExtremeAware,
    };
    let Training { seed, steps } = args.training;
    let plan = Plan { algorithm: args.algorithm, handling: args.handling, seed, steps, draw, budget: args.budget };
    let environment = data::environment(&data, split)?;
    let bar = Steps::new(steps, "steps");
    let mut known = 0;
    let learned = plan.train(&environment, &data::named(&data, &split.train)?, &mut |progress| {
        bar.advance(progress.steps - known);
        known = progress.steps;
        progress.reward.into_iter().for_each(|reward| bar.say(format!("reward {reward:.3}")));
    });
    bar.done();
    learned::save(&learned, &args.out, args.split, &data.tasks, &args.source.described()?)?;
    let last = learned.curve.last().map_or("none".to_owned(), |point| format!("{:.3}", point.reward));
    Ok(crate::report::print(&format!(
        "{}: last training reward {last}, multipliers {:?}\nwrote {}\n",
        learned.name(),
        learned.multipliers,
        args.out.display()
    ))?)
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Policies that `tmo train` wrote.
    #[arg(value_name = "FILE")]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// Also asks a local model at each turn: a name of the registry, or a GGUF file.
    #[arg(long, value_name = "MODEL")]
    ask: Option<String>,
    /// The split whose test dialogues the model is asked about, where no policy names one.
    #[arg(long, default_value_t = 0)]
    split: usize,
    /// JSON, one row a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    ensure!(!args.policies.is_empty() || args.ask.is_some(), "name the files of policies, or --ask MODEL");
    let (data, splits) = args.source.load()?;
    let described = args.source.described()?;
    let mut lines = Vec::new();
    let mut play = |contender: Box<dyn Contender + '_>, number: usize| -> anyhow::Result<()> {
        let split =
            splits.get(number).with_context(|| format!("split {number} is not in the data's {}", splits.len()))?;
        let (environment, test) = (data::environment(&data, split)?, data::named(&data, &split.test)?);
        let name = contender.name();
        lines.extend(table::lines(&[table::play_all(&[(name, contender)], &environment, &test, &BUDGETS)]));
        Ok(())
    };
    for path in &args.policies {
        let saved = learned::load(path, &data.tasks).with_context(|| path.display().to_string())?;
        if saved.data != described {
            eprintln!("{}: trained on other data ({}), so its split says nothing here", path.display(), saved.data);
        }
        play(Box::new(saved.learned), saved.split)?;
    }
    if let Some(model) = &args.ask {
        let model = LocalModel::load(model)?;
        let asked = Asked::new(&model, &data.tasks);
        play(Box::new(&asked), args.split)?;
        let unclear = asked.finish()?;
        eprintln!("{unclear} answers named no action and counted as local");
    }
    Ok(crate::report::print(&if args.json { table::json(&lines)? } else { table::text(&lines) })?)
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    training: Training,
    /// Also the exhaustive optimum: some seconds for each budget and split.
    #[arg(long)]
    optimum: bool,
    /// One JSON object: {"latency":[..],"usage":[..]}.
    #[arg(long)]
    json: bool,
}

pub(super) fn run_sweep(args: &SweepArgs) -> anyhow::Result<()> {
    args.training.check()?;
    let (data, splits) = args.source.load()?;
    let plans = args.training.plans(&[Handling::Journal]);
    let steps = Steps::new(plans.len() * splits.len() * args.training.steps, "steps");
    let tether = paper::train_all(&data, &splits)?;
    let sweep = sweep(&data, &splits, &plans, &tether, args.optimum, &|more| steps.advance(more))?;
    steps.done();
    Ok(crate::report::print(&if args.json { serde_json::to_string(&sweep)? + "\n" } else { sweep.text() })?)
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    training: Training,
    /// Leaves out honest mode, which trains twenty networks more: some minutes.
    #[arg(long)]
    paper_only: bool,
    /// Where the page goes; it needs no network.
    #[arg(long, value_name = "FILE", default_value = "tmo.html")]
    html: PathBuf,
}

pub(super) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    args.training.check()?;
    let (data, splits) = args.source.load()?;
    let plans = args.training.plans(&[Handling::None, Handling::Journal, Handling::PrimalDual]);
    let swept = args.training.plans(&[Handling::Journal]);
    let tether = paper::train_all(&data, &splits)?;
    let study = Study { plans: &plans, tether: &tether, ..Study::bounds(&data, &splits) };
    let steps = Steps::new(study.steps() + swept.len() * splits.len() * args.training.steps, "steps");
    let findings = study.run(&|more| steps.advance(more))?;
    let sweep = sweep(&data, &splits, &swept, &tether, false, &|more| steps.advance(more))?;
    steps.done();
    let honest = match args.paper_only {
        true => None,
        false => {
            let uplinks_mbps = args.source.data.as_deref().map(uplinks).transpose()?.unwrap_or_default();
            Some(honest::cross_fitted(&data, args.training.seed, &uplinks_mbps)?)
        }
    };
    let what = format!(
        "Data: {}; {} splits, seeds from {}, {} steps of training",
        args.source.described()?,
        splits.len(),
        args.training.seed,
        args.training.steps
    );
    let html = page(&what, honest.as_ref(), &findings.lines, &findings.curves, &sweep);
    std::fs::write(&args.html, html).with_context(|| format!("cannot write {}", args.html.display()))?;
    crate::report::print(&table::text(&findings.lines))?;
    eprintln!("wrote {}", args.html.display());
    Ok(())
}
