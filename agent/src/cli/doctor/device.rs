//! The battery, as the daemon's own context reads it.

use super::Check;
use crate::context::supply;
use std::path::Path;
use tether_protocol::Reading;

/// `root` holds `sys`, as the setting `power.root` says.
pub(super) fn battery(root: &Path) -> Check {
    let battery = match supply::battery(root) {
        Reading::Known { value, .. } => value,
        Reading::Unknown { unknown } if unknown == supply::NONE_FOUND => {
            return Check::ok("battery", "none found: on mains, or the hardware does not tell; energy stays unknown");
        }
        Reading::Unknown { unknown } => {
            return Check::warn("battery", unknown, "its readings stay unknown until the gauge is right");
        }
    };
    let state = if battery.on_ac { "on mains" } else { "discharging" };
    let power = battery.power_w.map(|power_w| format!(", {:.1} W", power_w.abs())).unwrap_or_default();
    let detail = format!("{:.0} %, {state}{power}", battery.percent);
    if battery.percent <= 10.0 && !battery.on_ac {
        Check::warn("battery", detail, "connect a charger")
    } else {
        Check::ok("battery", detail)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use std::fs;

    fn supply(root: &Path, name: &str, files: &[(&str, &str)]) {
        let folder = root.join("sys/class/power_supply").join(name);
        fs::create_dir_all(&folder).unwrap();
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
