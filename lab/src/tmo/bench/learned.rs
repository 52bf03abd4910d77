//! Our A2C, PPO and DQN in paper mode against the reference's.

use super::{Given, Show, skipped};

pub(super) fn run(_given: Option<&Given<'_>>, show: &mut Show<'_>) -> anyhow::Result<()> {
    let rows = [
        ("paper mode, our A2C, all-tied rule", 1.110, "reward"),
        ("paper mode, our PPO, all-tied rule", 1.165, "reward"),
        ("paper mode, our DQN, all-tied rule", 1.111, "reward"),
        ("A2C steps on one core", 16_000.0, "steps/s"),
    ];
    rows.into_iter().try_for_each(|(bar, target, unit)| show(&skipped(bar, target, unit, "skipped: not implemented")))
}
