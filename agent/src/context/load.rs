//! How busy the machine is: processors, memory pressure, temperature.

use super::tree::{entries, name, number, text};
use std::path::Path;
use tether_protocol::context::Machine;

/// Servers have some dozens. Each is a call into a driver, which may ask a slow bus.
pub(super) const MAX_ZONES: usize = 256;

/// Of `/proc/stat`: ticks so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

pub fn ticks(root: &Path) -> Option<Ticks> {
    let stat = text(&root.join("proc/stat")).ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4).unwrap_or(&0));
    let all = ticks.iter().take(8).fold(0u64, |sum, tick| sum.saturating_add(*tick));
    Some(Ticks { busy: all.saturating_sub(idle), all })
}

/// What the machine does now. `before` are the ticks of the sample before.
pub fn machine(root: &Path, before: Option<Ticks>, now: Option<Ticks>) -> Machine {
    let cpu_ratio = before.zip(now).and_then(|(before, now)| {
        let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some((now.busy.saturating_sub(before.busy) as f64 / all as f64).min(1.0))
    });
    Machine { cpu_ratio, memory_pressure_ratio: pressure(root), temperature_c: temperature(root) }
}

/// The share of the last ten seconds in which something waited for memory (PSI, `some avg10`).
fn pressure(root: &Path) -> Option<f64> {
    let text = text(&root.join("proc/pressure/memory")).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse::<f64>().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// The hottest of the first [`MAX_ZONES`] zones.
fn temperature(root: &Path) -> Option<f64> {
    // Beside them are cooling devices, one for each processor and more.
    let zones =
        entries(&root.join("sys/class/thermal")).into_iter().filter(|path| name(path).starts_with("thermal_zone"));
    let degrees = zones.take(MAX_ZONES).filter_map(|zone| Some(number(&zone.join("temp"))? / 1e3));
    // A zone that is switched off reads 0 or far below.
    degrees.filter(|celsius| (1.0..=150.0).contains(celsius)).reduce(f64::max)
}
