//! What the device knows of its link, battery, power and load, as gauges. What is unknown has no sample.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use tether_protocol::Reading;
use tether_protocol::context::{Battery, Link, LinkState, Machine, Power};

type Labels = Vec<(&'static str, &'static str)>;
type Known = Family<Labels, Gauge<f64, AtomicU64>>;

/// The newest readings, when somebody asks.
pub(crate) struct Readings {
    pub link: Reading<Link>,
    pub probe_bytes: u64,
    pub battery: Reading<Battery>,
    pub power: Reading<Power>,
    pub machine: Reading<Machine>,
}

#[derive(Default)]
pub(super) struct Surroundings {
    link_up: Known,
    link_degraded: Known,
    link_metered: Known,
    link_rtt: Known,
    link_loss: Known,
    link_uplink: Known,
    probe_bytes: Known,
    battery: Known,
    on_mains: Known,
    power: Known,
    processors: Known,
    memory_pressure: Known,
    temperature: Known,
}

impl Surroundings {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, family: &Known| registry.register(name, help, family.clone());
        add("link_up", "Whether the gateway can be reached", &self.link_up);
        add("link_degraded", "Whether the link is slow or lossy", &self.link_degraded);
        add("link_metered", "Whether bytes cost money there", &self.link_metered);
        add("link_rtt_seconds", "Smoothed round trip", &self.link_rtt);
        add("link_loss_ratio", "Packets lost of those sent", &self.link_loss);
        let uplink = "What sends got: the median, and the ends of the interval of nine in ten";
        add("link_uplink_bits_per_second", uplink, &self.link_uplink);
        add("link_probe_bytes", "Sent only to know the rate", &self.probe_bytes);
        add("battery_ratio", "Charge", &self.battery);
        add("battery_on_mains", "Whether the device is on mains", &self.on_mains);
        add("power_watts", "Drawn by what is measured", &self.power);
        add("processors_ratio", "Busy share of all processors", &self.processors);
        add("memory_pressure_ratio", "Time in which something waited for memory", &self.memory_pressure);
        add("temperature_celsius", "Of the hottest zone", &self.temperature);
    }

    pub(super) fn set(&self, readings: &Readings) {
        let one = |family: &Known, value: Option<f64>| tell(family, [(Vec::new(), value)]);
        let flag = |truth: bool| f64::from(u8::from(truth));
        let link = readings.link.value();
        one(&self.link_up, link.map(|link| flag(link.state != LinkState::Down)));
        one(&self.link_degraded, link.map(|link| flag(link.state == LinkState::Degraded)));
        one(&self.link_metered, link.and_then(|link| link.metered).map(flag));
        one(&self.link_rtt, link.and_then(|link| link.rtt_ms).map(|rtt_ms| rtt_ms / 1e3));
        one(&self.link_loss, link.and_then(|link| link.loss_ratio));
        let bound = |name, value: fn(&Link) -> Option<f64>| (vec![("bound", name)], link.and_then(value));
        tell(
            &self.link_uplink,
            [
                bound("low", |link| link.uplink_low_bits_per_s),
                bound("median", |link| link.uplink_bits_per_s),
                bound("high", |link| link.uplink_high_bits_per_s),
            ],
        );
        one(&self.probe_bytes, Some(readings.probe_bytes as f64));
        let battery = readings.battery.value();
        one(&self.battery, battery.map(|battery| battery.percent / 100.0));
        one(&self.on_mains, battery.map(|battery| flag(battery.on_ac)));
        one(&self.power, readings.power.value().map(|power| power.watts));
        let machine = readings.machine.value();
        one(&self.processors, machine.and_then(|machine| machine.cpu_ratio));
        one(&self.memory_pressure, machine.and_then(|machine| machine.memory_pressure_ratio));
        one(&self.temperature, machine.and_then(|machine| machine.temperature_c));
    }
}

fn tell<const N: usize>(family: &Known, samples: [(Labels, Option<f64>); N]) {
    family.clear();
    for (labels, value) in samples {
        if let Some(value) = value {
            family.get_or_create(&labels).set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_has_no_sample() {
        let (surroundings, mut registry) = (Surroundings::default(), Registry::with_prefix("tether"));
        surroundings.register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let link = Link { rtt_ms: Some(20.0), uplink_low_bits_per_s: Some(1e6), ..Link::in_state(LinkState::Degraded) };
        let mut readings = Readings {
            link: Reading::known(link, 0, "test"),
            probe_bytes: 7,
            battery: Reading::unknown("none"),
            power: Reading::unknown("none"),
            machine: Reading::unknown("none"),
        };
        surroundings.set(&readings);
        let told = text(&registry);
        for line in [
            "tether_link_up{} 1.0",
            "tether_link_degraded{} 1.0",
            "tether_link_rtt_seconds{} 0.02",
            "tether_link_uplink_bits_per_second{bound=\"low\"} 1000000.0",
            "tether_link_probe_bytes{} 7.0",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} in {told}");
        }
        assert!(!told.lines().any(|line| line.starts_with("tether_battery_ratio{")), "{told}");
        readings.link = Reading::unknown("gone");
        surroundings.set(&readings);
        assert!(!text(&registry).contains("tether_link_up{} 1"), "an old value is not told again");
    }
}
