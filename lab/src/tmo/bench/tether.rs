//! The tether policy's rows.

use super::{Given, Show, skipped};
use crate::mess::bench::Bar;
use crate::tmo::tether::{HIDDEN, honest, paper, profiles, timing, train};
use tether_policies::tmo::honest::hardware::{HARDWARE, check};
use tether_policies::tmo::honest::response::{leave_one_dialogue_out, plain_table, r_squared};
use tether_policies::tmo::tether::{Config, TetherPolicy, weights};

const PAPER: [(&str, f64); 3] = [
    ("paper mode, tether policy, 30 s / 0.05 USD", 1.25),
    ("paper mode, tether policy, 15 s / 0.02 USD", 1.20),
    ("paper mode, tether policy, 8 s / 0.01 USD", 1.12),
];
const PAPER_OVER: &str = "paper mode, dialogues of the tether policy over budget";
const R_SQUARED: &str = "honest mode, response model's leave-one-dialogue-out R^2";
const LOCAL_TIME: &str = "honest mode, local times against the measured ones, correlation";
const OVER_A2C: &str = "honest mode, tether policy over A2C with the same mask";
const OVER_UNMASKED: &str = "honest mode, tether policy over A2C";
const OVER_TABLE: &str = "honest mode, tether policy over the task table with the same mask";
const OVER_RULE: &str = "honest mode, tether policy over the documented rule";
const DAEMON_OVER_RULE: &str = "honest mode, tether policy as in the daemon over the documented rule";
const HONEST_OVER: &str = "honest mode, dialogues of the tether policy over budget";
const PROFILES: &str = "unseen profiles, against a network of their own";
const PROFILES_OVER: &str = "unseen profiles, dialogues over budget";
/// The published best router needs 22.5 and 39.2 microseconds.
const DECISION: [(&str, f64); 2] = [("decision, X = 4, median", 15.0), ("decision, X = 4, p99", 40.0)];
const SEED: u64 = 1;

pub(super) fn run(given: Option<&Given<'_>>, show: &mut Show<'_>) -> anyhow::Result<()> {
    decision(show)?;
    let Some(given) = given else {
        let rows = [
            (R_SQUARED, 0.135),
            (LOCAL_TIME, 0.9),
            (OVER_A2C, 1.0),
            (OVER_UNMASKED, 1.0),
            (OVER_TABLE, 1.0),
            (OVER_RULE, 1.0),
            (DAEMON_OVER_RULE, 1.0),
            (PROFILES, 0.97),
        ];
        let rewards = PAPER.iter().map(|&(bar, target)| (bar, target, "reward"));
        let ratios = rows.iter().map(|&(bar, target)| (bar, target, "ratio"));
        let over = [PAPER_OVER, HONEST_OVER, PROFILES_OVER].map(|bar| (bar, 0.0, "dialogues"));
        let mut all = rewards.chain(ratios).chain(over);
        return all.try_for_each(|(bar, target, unit)| show(&skipped(bar, target, unit, "skipped: no DATA")));
    };
    model(given, show)?;
    published(given, show)?;
    honest_mode(given, show)?;
    unseen(given, show)
}

fn row(bar: &str, value: f64, target: f64, unit: &'static str, met: bool, how: String) -> Bar {
    Bar { bar: bar.to_owned(), value: Some(value), target, unit, met, how }
}

/// Any weights take the same time: these are random, of the committed policy's size.
fn decision(show: &mut Show<'_>) -> anyhow::Result<()> {
    let config = Config::new("timing", Vec::new(), 0, HIDDEN);
    let policy = TetherPolicy::new(config.clone(), &weights::random(&config, SEED)?)?;
    let times = timing::decision_us(&policy, 4)?;
    for ((bar, target), value) in DECISION.into_iter().zip(times) {
        let how = "20,000 decisions among 17 actions under four budgets, reason and values included".to_owned();
        show(&row(bar, value, target, "us", value <= target, how))?;
    }
    Ok(())
}

fn model(given: &Given<'_>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let (value, plain) = (r_squared(&given.data), leave_one_dialogue_out(&given.data, plain_table));
    let how = format!("{} dialogues; a plain task x route table has {plain:.4}", given.data.dialogues.len());
    show(&row(R_SQUARED, value, 0.135, "ratio", value > 0.135 && value > plain, how))?;
    if let Some(check) = check(&given.data, &HARDWARE[3]) {
        let how = format!(
            "{} local turns by their lengths on a Jetson TX2: mean {:.2} s, measured {:.2} s on a machine unnamed",
            check.turns, check.predicted_mean_s, check.measured_mean_s
        );
        show(&row(LOCAL_TIME, check.correlation, 0.9, "ratio", check.correlation >= 0.9, how))?;
    }
    Ok(())
}

fn published(given: &Given<'_>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let rows = paper::rows(&given.data, &given.splits)?;
    for ((bar, target), line) in PAPER.into_iter().zip(&rows) {
        let how = format!(
            "mean of {} splits +- {:.3}, all-tied rule; a network a split, for all budgets; {} of {} dialogues over",
            given.splits.len(),
            line.reward_sd,
            line.over,
            line.dialogues
        );
        show(&row(bar, line.reward, target, "reward", line.reward >= target && line.over == 0, how))?;
    }
    let over: usize = rows.iter().map(|row| row.over).sum();
    let dialogues: usize = rows.iter().map(|row| row.dialogues).sum();
    let refused: usize = rows.iter().map(|row| row.refused).sum();
    let how = format!("of {dialogues} under three budgets; {refused} turns refused");
    show(&row(PAPER_OVER, over as f64, 0.0, "dialogues", over == 0, how))
}

fn honest_mode(given: &Given<'_>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let outcome = honest::cross_fitted(&given.data, SEED, &train::uplinks(given.folder)?)?;
    let means: Vec<String> =
        honest::NAMES.iter().zip(outcome.means()).map(|(name, mean)| format!("{name} {mean:.4}")).collect();
    let means = means.join(", ");
    let servable = outcome.played - outcome.unservable;
    let unmasked = format!("{} of {servable} dialogues over a budget", outcome.unmasked_over);
    let rows =
        [(OVER_A2C, 0, 1), (OVER_UNMASKED, 0, 5), (OVER_TABLE, 0, 2), (OVER_RULE, 0, 7), (DAEMON_OVER_RULE, 6, 7)];
    for (bar, ours, rival) in rows {
        let (value, [low, high]) = outcome.statistic(|means| means[ours] / means[rival]);
        let of_rival = if rival == 5 { format!("; A2C takes {unmasked}, where a step earns 0") } else { String::new() };
        let how = format!("cross-fitted, 95 % interval over dialogues {low:.4} to {high:.4}; {means}{of_rival}");
        let met = if rival == 2 { value >= 1.0 } else { value > 1.0 };
        show(&row(bar, value, 1.0, "ratio", met, how))?;
    }
    let how = format!(
        "of {} under random budgets; {} ({:.1} %) no sequence serves, refused and counted apart; refused turns of the others: {}",
        outcome.played,
        outcome.unservable,
        100.0 * outcome.unservable as f64 / outcome.played.max(1) as f64,
        outcome.refused
    );
    show(&row(HONEST_OVER, outcome.over as f64, 0.0, "dialogues", outcome.over + outcome.refused == 0, how))
}

fn unseen(given: &Given<'_>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let lines = profiles::lines(&given.data, SEED)?;
    let ratios: Vec<f64> = lines.iter().map(|line| line.general / line.own).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let how = format!("mean of {} profiles, each left out of training; the least {least:.4}", lines.len());
    show(&row(PROFILES, mean, 0.97, "ratio", mean >= 0.97, how))?;
    let of = |part: fn(&profiles::Line) -> usize| lines.iter().map(part).sum::<usize>();
    let (over, played, unservable) = (of(|line| line.over), of(|line| line.played), of(|line| line.unservable));
    let how = format!("of {played} under random budgets; {unservable} no sequence serves");
    show(&row(PROFILES_OVER, over as f64, 0.0, "dialogues", over == 0, how))
}
