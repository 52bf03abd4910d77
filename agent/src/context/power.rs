//! One look at the machine's battery and power, from whichever source the settings name.

use super::{hwmon, rapl, supply};
use crate::config::{PowerSettings, SourceName};
use std::path::PathBuf;
use tether_protocol::Reading;
use tether_protocol::context::{Battery, Power};

/// Where the simulated battery's readings, and the joules of turns that it pays for, say they are from.
pub(super) const SIMULATED: &str = "simulated";

/// Where readings come from.
#[derive(Debug, Clone, PartialEq)]
pub enum PowerSource {
    /// A tree with `sys/` and `proc/` in it; `/` on a real machine.
    Tree(PathBuf),
    /// A battery that empties at a constant power from the daemon's start.
    Simulated {
        capacity_j: f64,
        start_percent: f64,
        power_w: f64,
    },
    None,
}

/// What was found at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Now {
    pub battery: Reading<Battery>,
    pub power: Reading<Power>,
    pub rapl: Option<rapl::Counters>,
}

impl PowerSource {
    pub fn new(settings: &PowerSettings) -> Self {
        match settings.source {
            SourceName::Auto => PowerSource::Tree(settings.root.clone()),
            SourceName::Simulated => PowerSource::Simulated {
                capacity_j: settings.capacity_j,
                start_percent: settings.percent,
                power_w: settings.power_w,
            },
            SourceName::None => PowerSource::None,
        }
    }

    /// Reads everything once. May block as long as a driver does; never call it on the way of a turn.
    pub fn read(&self, since_start_s: f64) -> Now {
        match self {
            PowerSource::Tree(root) => {
                let battery = supply::battery(root);
                let counters = rapl::counters(root);
                let power = power(&battery, hwmon::board_w(root), &counters);
                Now { battery, power, rapl: counters.ok() }
            }
            PowerSource::Simulated { capacity_j, start_percent, power_w } => {
                let start_j = capacity_j * start_percent / 100.0;
                let left_j = (start_j - power_w * since_start_s).max(0.0);
                let percent = 100.0 * left_j / capacity_j;
                let battery = Battery { percent, on_ac: false, power_w: Some(*power_w), energy_j: Some(left_j) };
                let power = Power { watts: *power_w, covers: SIMULATED.into() };
                Now {
                    battery: Reading::known(battery, 0, SIMULATED),
                    power: Reading::known(power, 0, SIMULATED),
                    rapl: None,
                }
            }
            PowerSource::None => {
                let why = "power.source is \"none\"";
                Now { battery: Reading::unknown(why), power: Reading::unknown(why), rapl: None }
            }
        }
    }
}

/// The whole board where a monitor measures it, else what the battery gives. RAPL is a counter: its watts come from two
/// samples, in the sampler.
fn power(
    battery: &Reading<Battery>,
    board: Option<(f64, String)>,
    counters: &Result<rapl::Counters, String>,
) -> Reading<Power> {
    if let Some((watts, covers)) = board {
        return Reading::known(Power { watts, covers }, 0, "ina3221");
    }
    let drawn = battery.value().filter(|battery| !battery.on_ac).and_then(|battery| battery.power_w);
    if let Some(watts) = drawn.filter(|watts| *watts > 0.0) {
        return Reading::known(Power { watts, covers: "device, from its battery".into() }, 0, "sysfs");
    }
    match counters {
        Ok(counters) => Reading::unknown(format!("{}: one sample tells no power", counters.covers())),
        Err(why) => Reading::unknown(why.as_str()),
    }
}
