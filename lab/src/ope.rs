//! Off-policy evaluation: what another policy would have earned on recorded turns.

mod estimate;
mod log;

pub use estimate::{Cell, Choice, Estimate, Estimates, estimate};
pub use log::{Log, LogError, Logged, read};

use anyhow::{Context, bail};
use clap::Parser;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tether_policies::budget::{BudgetName, Prices, Resource};
use tether_policies::fixed::{AlwaysCloud, AlwaysLocal};
use tether_policies::rule::Rule;
use tether_policies::tmo::tether::TetherPolicy;
use tether_policies::tmo::tether::config::MAX_CONFIG_BYTES;
use tether_policies::tmo::tether::weights::MAX_WEIGHTS_BYTES;
use tether_policies::{Candidate, Observation, PastTurn, Permitted, Policy};
use tether_protocol::{Cost, TurnRecord};

/// Draws of a policy that draws and does not tell how: each tells the probability of the action it draws exactly, so that
/// only actions that none of them took are missing.
const DRAWS: u64 = 64;
/// A log that could not have held more of a policy's choices than this tells nothing of it.
const MAX_UNSUPPORTED: f64 = 0.5;
/// Earlier turns of a dialogue that are handed to the policy.
const HISTORY: usize = 16;

/// Estimates what another policy would have earned on recorded turns.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  tether export --format jsonl -o field.jsonl
  tether-lab ope --log field.jsonl --policy tether
  tether-lab ope --log field.jsonl --policy always-cloud --policy my-policy.json --json

Rewards are the turns' ratings (0 to 1); turns without one are left out, and say nothing about those with one if people
rate what annoys them. Three estimates with 95 % intervals, dialogues drawn again: inverse propensity (unbiased, wide),
self-normalised, doubly robust (usually the narrowest). They need a log whose policy could have chosen otherwise: a policy
with a temperature above 0. Of a policy whose choices it could not have made there is no estimate (in JSON null, and `refused`
says why), and the exit code is 1. The text of turns is not in a log, so `rule`, which reads it, is judged as if it were empty.")]
pub struct OpeCli {
    /// What `tether export --format jsonl` wrote
    #[arg(long, value_name = "EXPORT")]
    log: PathBuf,
    /// tether, rule, always-local, always-cloud, or the path of a policy's .json; may be given several times
    #[arg(long, required = true, value_name = "NAME")]
    policy: Vec<String>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object a policy
    #[arg(long)]
    json: bool,
}

/// One policy on one log.
#[derive(Debug, Serialize)]
struct Line<'a> {
    policy: &'a str,
    turns: usize,
    logged: Estimate,
    /// These three are null where the log tells nothing of the policy, and `refused` says why.
    inverse_propensity: Option<Estimate>,
    self_normalised: Option<Estimate>,
    doubly_robust: Option<Estimate>,
    refused: Option<String>,
    effective_turns: f64,
    largest_weight: f64,
    /// Share of the policy's choices that the log's policy could not have made.
    unsupported: f64,
    unrated: usize,
    undecided: usize,
}

impl<'a> Line<'a> {
    fn new(policy: &'a str, estimates: Estimates, unsupported: f64, log: &Log) -> Self {
        let refused = refusal(&estimates, unsupported);
        let told = |estimate| refused.is_none().then_some(estimate);
        Self {
            policy,
            turns: estimates.turns,
            logged: estimates.logged,
            inverse_propensity: told(estimates.inverse_propensity),
            self_normalised: told(estimates.self_normalised),
            doubly_robust: told(estimates.doubly_robust),
            refused,
            effective_turns: estimates.effective_turns,
            largest_weight: estimates.largest_weight,
            unsupported,
            unrated: log.unrated,
            undecided: log.undecided,
        }
    }
}

/// Why a log tells nothing of a policy, if it does not.
fn refusal(estimates: &Estimates, unsupported: f64) -> Option<String> {
    let why = if unsupported > MAX_UNSUPPORTED {
        format!(
            "{:.0} % of its choices could not have been made by the log's policy (probability 0)",
            100.0 * unsupported
        )
    } else if estimates.effective_turns == 0.0 {
        "in no turn did the log's policy choose what it would".to_owned()
    } else {
        return None;
    };
    Some(format!("{why}. Log turns of a policy that draws (a temperature above 0)."))
}

pub fn run(cli: OpeCli) -> anyhow::Result<()> {
    let policies = cli.policy.iter().map(|name| named(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = File::open(&cli.log).with_context(|| format!("cannot read {}", cli.log.display()))?;
    let log = read(BufReader::new(file)).with_context(|| cli.log.display().to_string())?;
    let (mut text, mut refused) = (String::new(), Vec::new());
    for (name, policy) in cli.policy.iter().zip(&policies) {
        let (choices, unsupported) = choices(&log, policy.as_ref(), cli.seed);
        let Some(estimates) = estimate(&choices, cli.seed) else { bail!("{} holds no turn", cli.log.display()) };
        let line = Line::new(name, estimates, unsupported, &log);
        text += &if cli.json { serde_json::to_string(&line)? + "\n" } else { words(&line) };
        refused.extend(line.refused.is_some().then_some(name.as_str()));
    }
    crate::report::print(&text)?;
    if !refused.is_empty() {
        bail!("no estimate of {}", refused.join(", "));
    }
    Ok(())
}

fn words(line: &Line<'_>) -> String {
    let Line { turns, effective_turns, largest_weight, .. } = line;
    let mut text = format!("{}: {turns} rated turns, worth {effective_turns:.0} for this policy\n", line.policy);
    let estimates = [
        ("as logged", Some(line.logged)),
        ("inverse propensity", line.inverse_propensity),
        ("self-normalised", line.self_normalised),
        ("doubly robust", line.doubly_robust),
    ];
    for (name, estimate) in estimates {
        if let Some(Estimate { value, low, high }) = estimate {
            text += &format!("  {name:<20} {value:.3}   [{low:.3}, {high:.3}]\n");
        }
    }
    if let Some(why) = &line.refused {
        return text + &format!("  no estimate: {why}\n");
    }
    let share = 100.0 * line.unsupported;
    if line.unsupported > 0.005 {
        text += &format!(
            "  beware: {share:.0} % of its choices could not have been made by the log's policy (probability 0). Inverse \
             propensity counts nothing for them, and the doubly robust estimate rests on its model alone there.\n"
        );
    }
    if *largest_weight > 0.05 * *turns as f64 {
        text += &format!("  beware: one turn weighs {largest_weight:.0} of {turns}.\n");
    }
    if line.unrated > 0 {
        text += &format!("  left out: {} turns without a rating\n", line.unrated);
    }
    text
}

fn named(name: &str) -> anyhow::Result<Box<dyn Policy>> {
    Ok(match name {
        "tether" => Box::new(TetherPolicy::built_in()?),
        "rule" => Box::new(Rule),
        "always-local" => Box::new(AlwaysLocal),
        "always-cloud" => Box::new(AlwaysCloud),
        path if path.ends_with(".json") => {
            let config = String::from_utf8(limited(Path::new(path), MAX_CONFIG_BYTES)?).context(path.to_owned())?;
            let weights = limited(&Path::new(path).with_extension("safetensors"), MAX_WEIGHTS_BYTES)?;
            Box::new(TetherPolicy::load(&config, &weights).with_context(|| path.to_owned())?)
        }
        other => bail!(
            "no policy is named {other:?}; there are tether, rule, always-local, always-cloud, or the path of a policy's .json"
        ),
    })
}

/// The length is checked first, so that a wrong path does not fill the memory.
fn limited(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let given = std::fs::metadata(path).with_context(cannot)?.len();
    if given > limit as u64 {
        bail!("{} has {given} bytes, at most {limit} are allowed", path.display());
    }
    std::fs::read(path).with_context(cannot)
}

/// Every rated turn with what the policy would do in it, and the share of that which the log's policy could not have done.
pub fn choices(log: &Log, policy: &dyn Policy, seed: u64) -> (Vec<Choice>, f64) {
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    let mut sessions: BTreeMap<String, (usize, Vec<PastTurn>)> = BTreeMap::new();
    let (mut choices, mut unsupported) = (Vec::new(), 0.0);
    let mut clusters = 0;
    for (at, Logged { record, space, rating }) in log.turns.iter().enumerate() {
        let session = record.session.as_ref().map_or_else(|| record.turn_id.to_string(), |session| session.to_string());
        let (cluster, history) = sessions.entry(session).or_insert_with(|| {
            clusters += 1;
            (clusters - 1, Vec::new())
        });
        if rating.is_finite() {
            let observation = observe(record, space.clone(), history.clone());
            let candidates = record.permitted.iter().zip(&record.predicted_costs);
            let candidates = candidates.map(|(&action, &predicted)| Candidate { action, predicted }).collect();
            let Ok(permitted) = Permitted::new(candidates) else { continue };
            let next = tasks.len();
            let task = *tasks.entry(record.task.clone().unwrap_or_default()).or_insert(next);
            let cell =
                |action| Cell { task, kind: kind(space.sent(action).len(), action != tether_protocol::Action::LOCAL) };
            let shares = probabilities(policy, &observation, &permitted, seed.wrapping_add(at as u64 * DRAWS));
            let share = |action| shares.iter().find(|(known, _)| *known == action).map_or(0.0, |(_, share)| *share);
            let impossible = |action| match &record.probabilities {
                Some(known) => record.permitted.iter().zip(known).any(|(a, p)| *a == action && *p <= 0.0),
                // A record of before they were told: who chose for certain chose nothing else.
                None => record.propensity >= 1.0 && action != record.action,
            };
            unsupported += shares.iter().filter(|(action, _)| impossible(*action)).map(|(_, share)| share).sum::<f64>();
            choices.push(Choice {
                cluster: *cluster,
                cell: cell(record.action),
                propensity: record.propensity,
                reward: *rating,
                target: share(record.action),
                actions: shares.iter().map(|&(action, share)| (share, cell(action))).collect(),
            });
        }
        history.push(PastTurn { route: record.route, views: record.view_set(space), task: record.task.clone() });
        if history.len() > HISTORY {
            history.remove(0);
        }
    }
    let share = unsupported / choices.len().max(1) as f64;
    (choices, share)
}

fn kind(views: usize, cloud: bool) -> usize {
    if cloud { 1 + views } else { 0 }
}

/// What the policy saw, as far as a record tells: not the text, and not the shadow prices.
fn observe(record: &TurnRecord, space: tether_protocol::ActionSpace, history: Vec<PastTurn>) -> Observation {
    let left = |resource: Resource| {
        let of = |(name, left): (&String, &f64)| {
            let name: BudgetName = name.parse().ok()?;
            (name.resource == resource).then_some(*left)
        };
        record.budget_remaining.iter().filter_map(of).reduce(f64::min)
    };
    let bytes = |resource| left(resource).map(|bytes| bytes as u64);
    Observation {
        space,
        history,
        task: record.task.clone(),
        text: String::new(),
        prompt_tokens: record.usage.prompt_tokens,
        local_context_tokens: None,
        max_tokens: record.usage.completion_tokens,
        context: record.context.clone(),
        remaining: Cost {
            latency_ms: None,
            cost_usd: left(Resource::Usd),
            energy_j: left(Resource::EnergyJ),
            uplink_bytes: bytes(Resource::UplinkBytes),
            downlink_bytes: bytes(Resource::DownlinkBytes),
        },
        prices: Prices::default(),
        ratings: Default::default(),
        considered: Vec::new(),
        turns_left: None,
        deadline_ms: None,
    }
}

/// The actions that the policy takes here, with their probabilities, which sum to 1: as it tells them, else as its draws do.
fn probabilities(
    policy: &dyn Policy,
    observation: &Observation,
    permitted: &Permitted,
    seed: u64,
) -> Vec<(tether_protocol::Action, f64)> {
    let mut shares: BTreeMap<tether_protocol::Action, f64> = BTreeMap::new();
    for draw in 0..DRAWS {
        let decision = policy.decide(observation, permitted, seed.wrapping_add(draw));
        if let Some(told) = decision.probabilities(permitted.candidates()) {
            let actions = permitted.candidates().iter().map(|candidate| candidate.action);
            return actions.zip(told).filter(|(_, share)| *share > 0.0).collect();
        }
        shares.insert(decision.action, decision.propensity);
        if shares.values().sum::<f64>() >= 1.0 - 1e-9 {
            break;
        }
    }
    let sum: f64 = shares.values().sum();
    shares.into_iter().map(|(action, share)| (action, share / sum)).collect()
}

#[cfg(test)]
mod tests;
