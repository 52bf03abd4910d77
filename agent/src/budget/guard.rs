//! A turn that would cost more than was reserved is cut off.

use super::most::LocalOrCloud;
use std::time::{Duration, Instant};
use tether_policies::budget::{Accounts, Amounts, Resource};
use tether_protocol::api::ApiError;

/// How often a turn that brings nothing is looked at; the shares of the datagrams are as old.
pub const GUARD_INTERVAL: Duration = Duration::from_millis(50);
/// What may still cross after a turn is cut: its reset, acknowledgements, packets on their way, and what a busy machine sends
/// before the count is looked at (975 bytes beyond 4 KiB were seen on a link that loses two in five).
const TAIL_BYTES: u64 = 8 * 1024;

/// What [`used_up`] calls it.
pub const UPLINK: &str = "uplink bytes";

/// Where to cut. Without limits nothing is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    uplink_bytes: Option<u64>,
    downlink_bytes: Option<u64>,
    /// When the energy is used up at the configured power.
    until: Option<Instant>,
}

impl Guard {
    /// What may go up; `None`: nothing limits it.
    pub fn uplink_bytes(&self) -> Option<u64> {
        self.uplink_bytes
    }

    /// When to stop waiting for whoever has not begun to answer, if energy limits that.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// For what is reserved, where budgets limit it.
    pub fn new(
        reserved: &Amounts,
        accounts: &Accounts,
        route: LocalOrCloud,
        power_w: Option<f64>,
        now: Instant,
    ) -> Self {
        let bytes = |resource| {
            let limited = accounts.limits(resource) && route == LocalOrCloud::Cloud;
            limited.then(|| reserved[resource].saturating_sub(TAIL_BYTES))
        };
        let energy_j = Resource::EnergyJ.value(reserved[Resource::EnergyJ]);
        let seconds = power_w.filter(|power_w| *power_w > 0.0 && accounts.limits(Resource::EnergyJ));
        let seconds = seconds.map(|power_w| (energy_j / power_w).min(86_400.0));
        Self {
            uplink_bytes: bytes(Resource::UplinkBytes),
            downlink_bytes: bytes(Resource::DownlinkBytes),
            until: seconds.map(|seconds| now + Duration::from_secs_f64(seconds)),
        }
    }

    pub fn is_needed(&self) -> bool {
        self.uplink_bytes.is_some() || self.downlink_bytes.is_some() || self.until.is_some()
    }

    /// # Errors
    /// 429 `insufficient_quota`: the turn is at the end of what was reserved for it.
    pub fn check(&self, now: Instant, (up, down): (u64, u64)) -> Result<(), ApiError> {
        let over = |bytes: u64, limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
        let what = if over(up, self.uplink_bytes) {
            UPLINK
        } else if over(down, self.downlink_bytes) {
            "downlink bytes"
        } else if self.until.is_some_and(|until| now > until) {
            "energy"
        } else {
            return Ok(());
        };
        Err(used_up(what))
    }
}

/// 429: the turn has come to the end of this resource.
pub fn used_up(what: &str) -> ApiError {
    insufficient(format!("the turn was cut off: it used up the {what} reserved for it"), None)
}

/// 429 in OpenAI's words; `retry_after_s` where waiting alone helps.
pub fn insufficient(message: String, retry_after_s: Option<u32>) -> ApiError {
    let mut error = ApiError::refused(429, "insufficient_quota", message);
    error.object.kind = "insufficient_quota".into();
    error.retry_after_s = retry_after_s;
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tether_policies::budget::{Budget, BudgetName, Window};

    #[test]
    fn a_turn_is_cut_at_what_was_reserved_and_only_where_a_budget_is() {
        let budget = |resource| {
            let name = BudgetName { resource, window: Window::Day };
            Budget { name, cap: 1_000_000_000, mission_ms: None, floor_percent: None }
        };
        let budgets = [budget(Resource::UplinkBytes), budget(Resource::EnergyJ)];
        let accounts = Accounts::new(&budgets, &BTreeMap::new(), 0);
        let reserved = Amounts([0, 30_000_000, 20_000, 20_000]);
        let now = Instant::now();
        let guard = Guard::new(&reserved, &accounts, LocalOrCloud::Cloud, Some(10.0), now);
        assert!(guard.check(now, (20_000 - TAIL_BYTES, u64::MAX)).is_ok());
        let error = guard.check(now, (20_001 - TAIL_BYTES, 0)).unwrap_err();
        assert_eq!(
            (error.status, error.code(), error.object.kind.as_str()),
            (429, "insufficient_quota", "insufficient_quota")
        );
        assert!(guard.check(now + Duration::from_millis(2_990), (0, 0)).is_ok());
        assert!(guard.check(now + Duration::from_millis(3_010), (0, 0)).is_err());
        let local = Guard::new(&reserved, &accounts, LocalOrCloud::Local, None, now);
        assert!(!local.is_needed());
    }
}
