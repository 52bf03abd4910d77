//! What budgets count, exactly.

use serde::{Deserialize, Serialize};
use std::ops::{Index, IndexMut};
use tether_protocol::Cost;

/// What has a budget. Latency is bounded for each turn alone and is not added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Usd,
    EnergyJ,
    UplinkBytes,
    DownlinkBytes,
}

impl Resource {
    pub const ALL: [Resource; 4] = [Resource::Usd, Resource::EnergyJ, Resource::UplinkBytes, Resource::DownlinkBytes];

    /// As settings, answers and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Usd => "usd",
            Resource::EnergyJ => "energy_j",
            Resource::UplinkBytes => "uplink_bytes",
            Resource::DownlinkBytes => "downlink_bytes",
        }
    }

    /// Counts in one unit: a nano-dollar is a tenth of a millionth of a cent, far below any price of a token; u64 then
    /// holds 18 billion dollars. A microjoule is far below what any meter resolves.
    pub fn scale(self) -> f64 {
        match self {
            Resource::Usd => 1e9,
            Resource::EnergyJ => 1e6,
            Resource::UplinkBytes | Resource::DownlinkBytes => 1.0,
        }
    }

    /// The nearest count of a measured value; `None` for what is negative or no number.
    pub fn count(self, value: f64) -> Option<u64> {
        let scaled = value * self.scale();
        // Saturates at u64::MAX, which no cap can hold.
        (scaled.is_finite() && scaled >= 0.0).then(|| scaled.round() as u64)
    }

    /// As [`count`](Self::count), rounded up, for what is reserved. Noise of the last digits is not rounded up.
    pub fn count_up(self, value: f64) -> Option<u64> {
        let scaled = value * self.scale();
        if !(scaled.is_finite() && scaled >= 0.0) {
            return None;
        }
        let near = scaled.round();
        Some(if (scaled - near).abs() <= 1e-9 * scaled { near as u64 } else { scaled.ceil() as u64 })
    }

    /// A count in the resource's unit: dollars, joules, bytes.
    pub fn value(self, count: u64) -> f64 {
        count as f64 / self.scale()
    }
}

/// One count for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Amounts(pub [u64; 4]);

/// One count for each resource, in the order of [`Resource::ALL`], where it is known.
pub type Counts = [Option<u64>; 4];

/// The known parts of a cost, as counts.
pub fn counts(cost: &Cost) -> Counts {
    Resource::ALL.map(|resource| match resource {
        Resource::Usd => cost.cost_usd.and_then(|usd| resource.count(usd)),
        Resource::EnergyJ => cost.energy_j.and_then(|joules| resource.count(joules)),
        Resource::UplinkBytes => cost.uplink_bytes,
        Resource::DownlinkBytes => cost.downlink_bytes,
    })
}

/// Counts as a cost; what is not known stays so, and latency has none.
pub fn cost(counts: &Counts) -> Cost {
    let value = |resource: Resource| counts[resource as usize].map(|count| resource.value(count));
    Cost {
        latency_ms: None,
        cost_usd: value(Resource::Usd),
        energy_j: value(Resource::EnergyJ),
        uplink_bytes: counts[Resource::UplinkBytes as usize],
        downlink_bytes: counts[Resource::DownlinkBytes as usize],
    }
}

impl Amounts {
    pub const ZERO: Amounts = Amounts([0; 4]);

    /// As a cost, for records.
    pub fn cost(&self) -> Cost {
        cost(&self.0.map(Some))
    }

    pub(super) fn plus(&mut self, other: &Amounts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

impl Index<Resource> for Amounts {
    type Output = u64;

    fn index(&self, resource: Resource) -> &u64 {
        &self.0[resource as usize]
    }
}

impl IndexMut<Resource> for Amounts {
    fn index_mut(&mut self, resource: Resource) -> &mut u64 {
        &mut self.0[resource as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_and_nonsense_is_unknown() {
        assert_eq!(Resource::Usd.count(0.1), Some(100_000_000));
        // 0.1 + 0.2 is not 0.3 in floating point; in counts it is.
        assert_eq!(Resource::Usd.count(0.1 + 0.2), Resource::Usd.count(0.3));
        assert_eq!(Resource::Usd.count_up(0.3), Some(300_000_000));
        assert_eq!(Resource::Usd.count_up(1.2e-9), Some(2));
        assert_eq!(Resource::Usd.value(123_456_789), 0.123_456_789);
        for nonsense in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!((Resource::EnergyJ.count(nonsense), Resource::EnergyJ.count_up(nonsense)), (None, None));
        }
    }

    #[test]
    fn a_costs_unknown_part_stays_unknown() {
        let cost = Cost { cost_usd: None, energy_j: Some(1.5), ..Cost::ZERO };
        assert_eq!(counts(&cost), [None, Some(1_500_000), Some(0), Some(0)]);
    }

    #[test]
    fn counts_and_costs_are_each_other() {
        let some = [Some(123_456_789), None, Some(7), Some(u64::MAX)];
        assert_eq!(
            cost(&some),
            Cost {
                cost_usd: Some(0.123_456_789),
                energy_j: None,
                uplink_bytes: Some(7),
                downlink_bytes: Some(u64::MAX),
                latency_ms: None
            }
        );
        assert_eq!(counts(&cost(&some)), some);
        assert_eq!(counts(&Amounts([1, 2, 3, 4]).cost()), [1, 2, 3, 4].map(Some));
    }
}
