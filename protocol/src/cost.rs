//! What a turn costs, predicted or measured.

use serde::{Deserialize, Serialize};

/// The five resources that a turn spends. `None` means unknown, which is not zero: a sum with an unknown part is
/// unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    pub latency_ms: Option<f64>,
    pub cost_usd: Option<f64>,
    pub energy_j: Option<f64>,
    pub uplink_bytes: Option<u64>,
    pub downlink_bytes: Option<u64>,
}

impl Cost {
    /// Nothing spent, and known to be so.
    pub const ZERO: Cost = Cost {
        latency_ms: Some(0.0),
        cost_usd: Some(0.0),
        energy_j: Some(0.0),
        uplink_bytes: Some(0),
        downlink_bytes: Some(0),
    };
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        fn sum<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            Some(a? + b?)
        }
        Cost {
            latency_ms: sum(self.latency_ms, other.latency_ms),
            cost_usd: sum(self.cost_usd, other.cost_usd),
            energy_j: sum(self.energy_j, other.energy_j),
            uplink_bytes: sum(self.uplink_bytes, other.uplink_bytes),
            downlink_bytes: sum(self.downlink_bytes, other.downlink_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_part_makes_the_sum_unknown() {
        let turn = Cost { latency_ms: Some(10.0), cost_usd: None, ..Cost::ZERO };
        let sum = turn + Cost { latency_ms: Some(5.0), ..Cost::ZERO };
        assert_eq!(sum.latency_ms, Some(15.0));
        assert_eq!(sum.cost_usd, None);
    }
}
