//! The tether policy's rows.

use super::{Given, Show, skipped};

pub(super) fn run(_given: Option<&Given<'_>>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let rows = [
        ("paper mode, tether policy, 30 s / 0.05 USD", 1.25, "reward"),
        ("paper mode, tether policy, 15 s / 0.02 USD", 1.20, "reward"),
        ("paper mode, tether policy, 8 s / 0.01 USD", 1.12, "reward"),
        ("dialogues over budget", 0.0, "dialogues"),
        ("honest mode, tether policy over A2C", 1.0, "ratio"),
        ("unseen profiles, against a network of their own", 0.97, "ratio"),
        ("decision, X = 4, median", 15.0, "us"),
        ("decision, X = 4, p99", 40.0, "us"),
    ];
    rows.into_iter().try_for_each(|(bar, target, unit)| show(&skipped(bar, target, unit, "skipped: not implemented")))
}
