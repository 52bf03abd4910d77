//! What all turns together cost.

use super::{Store, StoreError};
use rusqlite::params;
use tether_policies::budget::Resource;

/// The settled turns of one route since a moment, refused ones with the local ones. Sums hold what is known; `unknown`
/// counts turns with a part that is not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteTotals {
    pub cloud: bool,
    pub turns: u64,
    pub unknown: u64,
    pub usd: f64,
    pub energy_j: f64,
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
    pub rated: u64,
    /// The mean of the ratings.
    pub rating: Option<f64>,
}

impl Store {
    /// Totals by route, of turns that started at or after `since_ms`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn totals(&self, since_ms: i64) -> Result<Vec<RouteTotals>, StoreError> {
        self.call(move |db| {
            let mut query = db.prepare_cached(
                "SELECT cloud, count(*), sum(usd IS NULL OR energy IS NULL OR uplink IS NULL OR downlink IS NULL),
                 coalesce(sum(usd), 0), coalesce(sum(energy), 0), coalesce(sum(uplink), 0), coalesce(sum(downlink), 0),
                 count(rating), avg(rating) FROM turns WHERE open = 0 AND started_ms >= ?1 GROUP BY cloud ORDER BY cloud",
            )?;
            let count = |value: i64| value.unsigned_abs();
            let rows = query.query_map(params![since_ms], |row| {
                Ok(RouteTotals {
                    cloud: row.get(0)?,
                    turns: count(row.get(1)?),
                    unknown: count(row.get(2)?),
                    usd: Resource::Usd.value(count(row.get(3)?)),
                    energy_j: Resource::EnergyJ.value(count(row.get(4)?)),
                    uplink_bytes: count(row.get(5)?),
                    downlink_bytes: count(row.get(6)?),
                    rated: count(row.get(7)?),
                    rating: row.get(8)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
