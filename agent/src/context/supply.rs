//! `/sys/class/power_supply`, as laptops and robots with a fuel gauge have it (kernel: sysfs-class-power). Units there
//! are millionths: uW, uWh, uA, uAh, uV.

use super::tree::{entries, number, text};
use std::path::Path;
use tether_protocol::Reading;
use tether_protocol::context::Battery;

const J_PER_UWH: f64 = 3.6e-3;

/// Why the reading is unknown on a machine without one.
pub const NONE_FOUND: &str = "no battery found";

/// One battery of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Pack {
    percent: Option<f64>,
    energy_j: Option<f64>,
    full_j: Option<f64>,
    /// Drawn; negative while charging.
    power_w: Option<f64>,
    charges: bool,
}

/// The machine's batteries as one; those of mice and headsets (`scope` = `Device`) do not count.
pub fn battery(root: &Path) -> Reading<Battery> {
    let supplies = entries(&root.join("sys/class/power_supply"));
    let (mut packs, mut mains, mut problems) = (Vec::new(), None, Vec::new());
    for supply in supplies {
        let kind = text(&supply.join("type")).unwrap_or_default();
        let is_peripheral = text(&supply.join("scope")).is_ok_and(|scope| scope == "Device");
        match kind.as_str() {
            "Battery" if !is_peripheral => match pack(&supply) {
                Ok(pack) => packs.push(pack),
                Err(problem) => problems.push(format!("{}: {problem}", super::tree::name(&supply))),
            },
            "Mains" | "USB" => {
                let online = number(&supply.join("online")).map(|online| online > 0.0);
                mains = mains.max(online);
            }
            _ => {}
        }
    }
    if !problems.is_empty() {
        return Reading::unknown(problems.join("; "));
    }
    match joined(&packs, mains) {
        Some(battery) => Reading::known(battery, 0, "sysfs"),
        None => Reading::unknown(NONE_FOUND),
    }
}

fn pack(supply: &Path) -> Result<Pack, String> {
    let value = |name: &str| number(&supply.join(name));
    let status = text(&supply.join("status")).map_err(|error| format!("status: {error}"))?;
    let volts = value("voltage_now").map(|microvolts| microvolts / 1e6);
    let from_charge = |name: &str| Some(value(name)? * volts?);
    let energy_j = value("energy_now").or_else(|| from_charge("charge_now")).map(|uwh| uwh * J_PER_UWH);
    let full_j = value("energy_full").or_else(|| from_charge("charge_full")).map(|uwh| uwh * J_PER_UWH);
    // Some drivers give a negative current while discharging; the status tells the direction.
    let watts = value("power_now").or_else(|| from_charge("current_now")).map(|microwatts| microwatts.abs() / 1e6);
    let charges = status == "Charging";
    let percent = match value("capacity") {
        Some(percent) if (0.0..=100.0).contains(&percent) => percent,
        Some(percent) => return Err(format!("capacity says {percent} %")),
        None => {
            let text = text(&supply.join("capacity")).map_or_else(|e| e.to_string(), |text| format!("{text:?}"));
            let computed = energy_j.zip(full_j).filter(|(_, full)| *full > 0.0);
            let computed = computed.map(|(energy, full)| (100.0 * energy / full).clamp(0.0, 100.0));
            computed.ok_or_else(|| format!("capacity cannot be read: {text}"))?
        }
    };
    // A pack that is empty while it feeds the machine is a gauge that is wrong.
    if percent == 0.0 && status == "Discharging" && energy_j.is_none_or(|energy| energy == 0.0) {
        return Err("the gauge says 0 % while it discharges".into());
    }
    let power_w = match status.as_str() {
        "Discharging" => watts,
        "Charging" => watts.map(|watts| -watts),
        "Full" | "Not charging" => Some(0.0),
        _ => None,
    };
    Ok(Pack { percent: Some(percent), energy_j, full_j, power_w, charges })
}

fn joined(packs: &[Pack], mains: Option<bool>) -> Option<Battery> {
    let sum = |of: fn(&Pack) -> Option<f64>| packs.iter().map(of).sum::<Option<f64>>();
    let (energy_j, full_j) = (sum(|pack| pack.energy_j), sum(|pack| pack.full_j));
    let mean = || Some(sum(|pack| pack.percent)? / packs.len() as f64);
    let weighted = energy_j.zip(full_j).filter(|(_, full)| packs.len() > 1 && *full > 0.0);
    let percent = match weighted {
        Some((energy, full)) => (100.0 * energy / full).clamp(0.0, 100.0),
        None => mean().filter(|_| !packs.is_empty())?,
    };
    let power_w = sum(|pack| pack.power_w);
    let charges = packs.iter().any(|pack| pack.charges);
    // Without a mains entry (a robot), a battery that is not drawn from is on a charger.
    let on_ac = mains.unwrap_or(charges || power_w.is_some_and(|power_w| power_w <= 0.0));
    Some(Battery { percent, on_ac, power_w, energy_j })
}
