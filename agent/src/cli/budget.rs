//! `tether budget show|set|unset|reset`

use super::output::{self, BAD, BOLD, DIM, WARN};
use super::{Global, UsageError, units};
use crate::client::Client;
use bytes::Bytes;
use clap::Subcommand;
use jiff::Timestamp;
use std::io::Write;
use std::process::ExitCode;
use tether_policies::budget::{BudgetName, Resource};
use tether_protocol::api::{BudgetList, BudgetStatus, SetBudget};

pub(crate) const EXAMPLES: &str = "\
Examples:
  tether budget                                what is spent, and what is left
  tether budget set usd_per_day 0.50
  tether budget set uplink_bytes_per_hour 20MB
  tether budget set energy_j_per_mission 40Wh
  tether budget reset usd_per_mission          a new mission begins: nothing is spent
  tether budget unset usd_per_day              back to the settings' cap, or to none

Names: usd, energy_j, uplink_bytes, downlink_bytes, each with _per_hour, _per_day, _per_mission.";

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Show every budget in force
    Show,
    /// Set a cap; it stays over restarts and goes before the settings'
    Set {
        /// Such as usd_per_day
        name: BudgetName,
        /// USD, joules or bytes; Wh, kJ, kB, MB and GB are understood
        cap: String,
    },
    /// Go back to the cap of the settings, or to none
    Unset {
        /// Such as usd_per_day
        name: BudgetName,
    },
    /// Begin a new window now, with nothing spent
    Reset {
        /// Such as usd_per_mission
        name: BudgetName,
    },
}

pub(crate) async fn run(command: Option<BudgetCommand>, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client()?;
    let list = match command.unwrap_or(BudgetCommand::Show) {
        BudgetCommand::Show => client.get("/v1/budgets").await?,
        BudgetCommand::Set { name, cap } => {
            let cap = amount(name.resource, &cap).map_err(UsageError)?;
            put(&client, &format!("/v1/budgets/{name}"), &SetBudget { cap }).await?
        }
        BudgetCommand::Unset { name } => client.delete(&format!("/v1/budgets/{name}")).await?,
        BudgetCommand::Reset { name } => client.post(&format!("/v1/budgets/{name}/reset"), &()).await?,
    };
    show(&list, global)
}

async fn put(client: &Client, path: &str, body: &SetBudget) -> anyhow::Result<BudgetList> {
    let reply = client.put(path, Bytes::from(serde_json::to_vec(body)?)).await?;
    Ok(serde_json::from_slice(&reply)?)
}

/// `0.5`, `20MB`, `40Wh`, in the resource's unit.
fn amount(resource: Resource, text: &str) -> Result<f64, String> {
    let units: &[(&str, f64)] = match resource {
        Resource::Usd => &[("USD", 1.0), ("$", 1.0)],
        Resource::EnergyJ => &[("kWh", 3.6e6), ("Wh", 3.6e3), ("kJ", 1e3), ("J", 1.0)],
        Resource::UplinkBytes | Resource::DownlinkBytes => &[("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)],
    };
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    let value = number.trim().parse::<f64>().ok().map(|number| number * factor);
    value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(|| {
        let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
        format!("{text:?} is no amount of {}; write a number, or one with {}", resource.name(), units.join(", "))
    })
}

fn show(list: &BudgetList, global: &Global) -> anyhow::Result<ExitCode> {
    if global.json {
        output::json(list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    if list.budgets.is_empty() {
        writeln!(out, "no budgets: nothing is limited; set one: tether budget set usd_per_day 0.50")?;
    }
    for budget in &list.budgets {
        let share = budget.spent / budget.cap.max(f64::MIN_POSITIVE);
        let style = if budget.left <= 0.0 || budget.at_floor {
            BAD
        } else if share > 0.9 {
            WARN
        } else {
            BOLD
        };
        writeln!(out, "{style}{}{style:#}  {}", budget.name, headline(budget))?;
        writeln!(out, "    {DIM}{}{DIM:#}", details(budget))?;
    }
    if !list.budgets.is_empty() {
        let pacing = if list.pacing { "spending is paced" } else { "spending is not paced" };
        writeln!(out, "{DIM}when nothing fits: {}; {pacing}{DIM:#}", list.on_exhausted)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One line for `tether status`.
pub(crate) fn line(budget: &BudgetStatus) -> String {
    let floor = floor(budget).map(|floor| format!(", {floor}")).unwrap_or_default();
    format!("{:<22} {}{floor}", budget.name, headline(budget))
}

fn headline(budget: &BudgetStatus) -> String {
    let show = |value| value_text(&budget.name, value);
    format!("{} of {} spent, {} left", show(budget.spent), show(budget.cap), show(budget.left))
}

fn details(budget: &BudgetStatus) -> String {
    let show = |value| value_text(&budget.name, value);
    let mut parts = vec![format!("{} turns since {}", budget.turns, time(budget.window_start_ms))];
    parts.extend(budget.window_end_ms.map(|end| format!("begins anew at {}", time(end))));
    if budget.reserved > 0.0 {
        parts.push(format!("{} reserved by turns under way", show(budget.reserved)));
    }
    if budget.unknown > 0.0 {
        parts.push(format!("{} counted without being measured", show(budget.unknown)));
    }
    parts.extend(floor(budget));
    parts.extend(budget.line.map(|line| format!("line {}", show(line))));
    if budget.source == "set" {
        parts.push("set while running".into());
    }
    parts.join(" · ")
}

fn floor(budget: &BudgetStatus) -> Option<String> {
    budget.floor_percent.map(|floor| match budget.at_floor {
        true => format!("nothing is given: the battery is at or below its floor of {floor} %"),
        false => format!("battery floor {floor} %"),
    })
}

fn value_text(name: &str, value: f64) -> String {
    match name.parse::<BudgetName>().map(|name| name.resource) {
        Ok(Resource::Usd) => units::usd(value),
        Ok(Resource::EnergyJ) => format!("{value:.1} J"),
        Ok(Resource::UplinkBytes | Resource::DownlinkBytes) => units::bytes(value as u64),
        Err(_) => value.to_string(),
    }
}

fn time(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms);
    time.map_or_else(|_| "-".into(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        assert_eq!(amount(Resource::Usd, "0.50"), Ok(0.5));
        assert_eq!(amount(Resource::UplinkBytes, "20MB"), Ok(2e7));
        assert_eq!(amount(Resource::EnergyJ, "40 Wh"), Ok(144_000.0));
        for bad in ["-1", "NaN", "ten", "5 apples", "", "inf"] {
            assert!(amount(Resource::Usd, bad).is_err(), "{bad}");
        }
        assert!(amount(Resource::DownlinkBytes, "1Wh").unwrap_err().contains("GB, MB, kB, B"));
    }
}
