//! Cloud answers, and the costs of every action on one device and link.

use crate::tmo::honest::hardware::{ANSWER_TOKENS, Hardware, PROMPT_TOKENS};
use crate::tmo::paper::{NETWORKS, Network, Profile, VIEWS};
use crate::tmo::tether::scene::RESOURCES;
use tether_protocol::limits::MAX_VIEWS;

/// A camera's picture as JPEG, 640 x 480 at usual quality, and a dialogue's text with its framing (M4A1: 0.9 kB a turn,
/// two turns before the middle one). Both guessed once, the same for every policy.
pub const IMAGE_BYTES: f64 = 100e3;
pub const TEXT_BYTES: f64 = 2e3;
/// What the device draws while it waits, as a share of its full power (idle figures of the Jetson data sheets are a
/// quarter to a half).
pub const IDLE_SHARE: f64 = 0.35;
const USD_PER_J: f64 = 0.1668 / 3.6e6;

/// A way to the cloud.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// One of the published tables.
    Table(Network),
    /// The published wired times, which hold the cloud model's own, and a measured uplink before them.
    Measured { up_mbps: f64, rtt_ms: f64 },
}

impl Link {
    /// Seconds of a cloud answer with this many views.
    pub fn cloud_s(&self, views: usize) -> f64 {
        match self {
            Link::Table(network) => beyond(&network.latency_s, views),
            Link::Measured { up_mbps, rtt_ms } => {
                beyond(&NETWORKS[0].latency_s, views) + rtt_ms / 1e3 + uplink_bytes(views) * 8.0 / (up_mbps * 1e6)
            }
        }
    }

    /// Watts of the radio, taken to be on until the answer is complete: LTE and 5G stay in their tail state. Orders of
    /// magnitude from measurement papers (Huang et al., MobiSys 2012; Narayanan et al., SIGCOMM 2021).
    fn radio_w(&self) -> f64 {
        match self {
            Link::Table(network) => match network.name {
                "Wired" => 0.5,
                "5G" => 3.0,
                "4G" => 2.5,
                _ => 1.2,
            },
            Link::Measured { .. } => 1.2,
        }
    }

    /// Watts of a device that waits for the cloud.
    pub fn waiting_w(&self, hardware: &Hardware) -> f64 {
        hardware.device.power_w * IDLE_SHARE + self.radio_w()
    }
}

/// Bytes of a cloud turn with this many views.
pub fn uplink_bytes(views: usize) -> f64 {
    TEXT_BYTES + IMAGE_BYTES * views as f64
}

/// A published table, with its last step repeated beyond its three views.
fn beyond(table: &[f64], views: usize) -> f64 {
    let last = table.len() - 1;
    let step = table[last] - table[last - 1];
    table[views.min(last)] + step * views.saturating_sub(last) as f64
}

/// Seconds, USD, joules and uplink bytes of every action on one device and link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    pub local: [f64; RESOURCES],
    /// By number of views.
    pub cloud: [[f64; RESOURCES]; MAX_VIEWS + 1],
}

impl Costs {
    pub fn new(hardware: &Hardware, link: &Link) -> Costs {
        let local_s = hardware.local_s(PROMPT_TOKENS, ANSWER_TOKENS);
        let local_j = hardware.local_j(PROMPT_TOKENS, ANSWER_TOKENS);
        let usd = Profile::default().usage_usd;
        let waiting_w = link.waiting_w(hardware);
        let cloud = |views: usize| {
            let latency_s = link.cloud_s(views);
            [latency_s, beyond(&usd[1..=VIEWS + 1], views), waiting_w * latency_s, uplink_bytes(views)]
        };
        Costs { local: [local_s, local_j * USD_PER_J, local_j, 0.0], cloud: std::array::from_fn(cloud) }
    }

    pub fn of(&self, cloud: bool, views: usize) -> [f64; RESOURCES] {
        if cloud { self.cloud[views] } else { self.local }
    }

    /// The cost of every kind of action there is with this many views: local, then the cloud with 0 to all.
    pub fn levels(&self, view_count: usize) -> impl Iterator<Item = [f64; RESOURCES]> + Clone + '_ {
        std::iter::once(self.local).chain(self.cloud[..=view_count].iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::honest::hardware::HARDWARE;

    #[test]
    fn published_links_are_the_published_numbers_and_go_on_beyond_three_views() {
        let costs = Costs::new(&HARDWARE[3], &Link::Table(NETWORKS[0]));
        assert_eq!(costs.cloud[1][..2], [4.76134, 0.00500]);
        assert!((costs.cloud[4][0] - (2.0 * 6.98211 - 6.24569)).abs() < 1e-9);
        assert_eq!(costs.local[3], 0.0);
        assert_eq!(costs.levels(3).count(), 5);
    }

    #[test]
    fn a_slow_uplink_makes_views_dear() {
        let of = |up_mbps| Costs::new(&HARDWARE[3], &Link::Measured { up_mbps, rtt_ms: 50.0 });
        // 100 kB over 0.5 Mbit/s are 1.6 s each.
        let (slow, fast) = (of(0.5), of(50.0));
        assert!(slow.cloud[3][0] - fast.cloud[3][0] > 4.0);
        assert_eq!(slow.cloud[3][3], fast.cloud[3][3]);
    }
}
