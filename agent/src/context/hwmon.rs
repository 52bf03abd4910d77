//! INA3221 power monitors through hwmon, as on Jetson boards (kernel: hwmon/ina3221): `inN_label`, `inN_input` in mV,
//! `currN_input` in mA.

use super::tree::{entries, number, text};
use std::path::Path;

/// The rail that feeds the whole board: Orin Nano and NX, older Jetsons, Xavier.
const WHOLE_BOARD: [&str; 3] = ["VDD_IN", "POM_5V_IN", "SYS5V"];
const CHANNELS: u32 = 3;

/// What the board draws, W, and what that covers; `None`: there is no such monitor.
pub fn board_w(root: &Path) -> Option<(f64, String)> {
    let mut rails: Vec<(String, f64)> = Vec::new();
    for monitor in entries(&root.join("sys/class/hwmon")) {
        if text(&monitor.join("name")).is_ok_and(|name| name == "ina3221") {
            rails.extend((1..=CHANNELS).filter_map(|channel| rail(&monitor, channel)));
        }
    }
    if let Some((label, watts)) = rails.iter().find(|(label, _)| WHOLE_BOARD.contains(&label.as_str())) {
        return Some((*watts, format!("board ({label})")));
    }
    // AGX boards have no rail for all; those that are measured are added up.
    let labels: Vec<&str> = rails.iter().map(|(label, _)| label.as_str()).collect();
    (!rails.is_empty()).then(|| (rails.iter().map(|(_, watts)| watts).sum(), format!("rails {}", labels.join("+"))))
}

fn rail(monitor: &Path, channel: u32) -> Option<(String, f64)> {
    let label = text(&monitor.join(format!("in{channel}_label"))).ok()?;
    // The fourth "channel" of the chip is the sum of shunt voltages, no power.
    let volts = number(&monitor.join(format!("in{channel}_input")))? / 1e3;
    let amperes = number(&monitor.join(format!("curr{channel}_input")))? / 1e3;
    let watts = volts * amperes;
    (0.0..=2_000.0).contains(&watts).then_some((label, watts))
}
