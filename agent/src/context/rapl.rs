//! RAPL through powercap (kernel: powercap), on Intel and AMD: `energy_uj`, a counter that wraps at
//! `max_energy_range_uj`. Root reads it; `packaging/` grants it to the service's group.

use super::tree::{entries, name, number, text};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Why a counter that is there cannot be read, and what helps.
const UNREADABLE: &str = "this user may not read RAPL's energy_uj, which is root's alone unless the group tether is let in \
                          (packaging/install.sh --system does; docs/CONTEXT.md, RAPL)";

/// The counters of one moment, by zone, uJ.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counters(BTreeMap<String, (f64, f64)>);

/// # Errors
/// Why there is no counter, in words for `tether status`.
pub fn counters(root: &Path) -> Result<Counters, String> {
    let zones = entries(&root.join("sys/class/powercap"));
    // `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it, `psys` the whole platform.
    let packages = zones.iter().filter(|zone| {
        let name = name(zone);
        name.starts_with("intel-rapl:") && name.matches(':').count() == 1
    });
    let mut found = BTreeMap::new();
    for zone in packages {
        let label = text(&zone.join("name")).unwrap_or_else(|_| name(zone));
        let counter = match text(&zone.join("energy_uj")) {
            Ok(text) => text.parse::<f64>().map_err(|_| format!("{label}: {text:?} is no counter"))?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(format!("{label}: {UNREADABLE}"));
            }
            Err(error) => return Err(format!("{label}: energy_uj: {error}")),
        };
        let range = number(&zone.join("max_energy_range_uj")).unwrap_or(f64::from(u32::MAX));
        found.insert(label, (counter, range));
    }
    // The platform counts everything that the packages count, and more.
    if found.contains_key("psys") {
        found.retain(|label, _| label == "psys");
    }
    if found.is_empty() { Err("no RAPL counters".into()) } else { Ok(Counters(found)) }
}

impl Counters {
    /// Joules since `before`, wraparounds included; `None`: other zones, or a counter that makes no sense.
    pub fn since_j(&self, before: &Counters) -> Option<f64> {
        if !self.0.keys().eq(before.0.keys()) {
            return None;
        }
        let grown = self.0.iter().map(|(label, (now, range))| {
            let (before, _) = before.0[label];
            let grown = if *now >= before { now - before } else { now - before + range };
            (grown >= 0.0).then_some(grown / 1e6)
        });
        grown.sum()
    }

    /// What is counted, such as `package-0`.
    pub fn covers(&self) -> String {
        self.0.keys().cloned().collect::<Vec<_>>().join("+")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counter: f64) -> Counters {
        Counters(BTreeMap::from([("package-0".to_owned(), (counter, 1e9))]))
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        assert_eq!(at(5e6).since_j(&at(2e6)), Some(3.0));
        assert_eq!(at(1e6).since_j(&at(999e6)), Some(2.0));
        assert_eq!(at(1.0).since_j(&Counters::default()), None);
    }
}
