//! The battery, as Linux tells it.

use super::Check;
use std::fs;
use std::path::Path;

pub(super) const POWER_SUPPLIES: &str = "/sys/class/power_supply";

/// The battery that feeds this machine; those of mice and headsets (`scope` = `Device`) do not count.
pub(super) fn battery(supplies: &Path) -> Check {
    let entries = fs::read_dir(supplies).into_iter().flatten().flatten();
    let found = entries.map(|entry| entry.path()).find(|supply| {
        read(supply, "type").as_deref() == Some("Battery") && read(supply, "scope").as_deref() != Some("Device")
    });
    let Some(battery) = found else {
        return Check::ok("battery", "none found: on mains, or the hardware does not tell; energy stays unknown");
    };
    let percent = read(&battery, "capacity").and_then(|text| text.parse::<u8>().ok());
    let state = read(&battery, "status").unwrap_or_else(|| "state unknown".into()).to_lowercase();
    let detail = match percent {
        Some(percent) => format!("{percent} %, {state}{}", power(&battery)),
        None => format!("found, {state}, but it does not tell its charge"),
    };
    match percent {
        Some(percent) if percent <= 10 && state == "discharging" => Check::warn("battery", detail, "connect a charger"),
        _ => Check::ok("battery", detail),
    }
}

fn power(battery: &Path) -> String {
    let micro = |name| read(battery, name).and_then(|text| text.parse::<f64>().ok());
    let power_uw = micro("power_now").or_else(|| Some(micro("current_now")? * micro("voltage_now")? / 1e6));
    power_uw.map(|power_uw| format!(", {:.1} W", power_uw.abs() / 1e6)).unwrap_or_default()
}

fn read(supply: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(supply.join(name)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn supply(root: &Path, name: &str, files: &[(&str, &str)]) {
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        files.iter().for_each(|(file, text)| fs::write(folder.join(file), format!("{text}\n")).unwrap());
    }

    #[test]
    fn the_machines_battery_is_found_among_others() {
        let root = tempfile::tempdir().unwrap();
        assert!(battery(root.path()).detail.contains("none found"));
        supply(root.path(), "AC", &[("type", "Mains")]);
        supply(root.path(), "mouse", &[("type", "Battery"), ("scope", "Device"), ("capacity", "3")]);
        assert!(battery(root.path()).detail.contains("none found"));
        let files = [("type", "Battery"), ("capacity", "9"), ("status", "Discharging"), ("power_now", "12500000")];
        supply(root.path(), "BAT0", &files);
        let check = battery(root.path());
        assert_eq!((check.level, check.detail.as_str()), (Level::Warn, "9 %, discharging, 12.5 W"));
    }
}
