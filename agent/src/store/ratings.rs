//! What people said of earlier answers, as the policy takes it.

use super::turns::{raw, record};
use super::{Store, StoreError};
use tether_policies::ratings::Ratings;
use tether_protocol::record::Outcome;
use tether_protocol::{Route, TurnRecord, ViewName};

/// The newest rated turns that are summed up at a start: older ones would hardly count any more.
const MAX_RATED: u32 = 1_000;

impl Store {
    /// The ratings of the newest rated turns, in the turns' order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn ratings(&self) -> Result<Ratings, StoreError> {
        self.call(|db| {
            let mut query = db.prepare(
                "SELECT record, rating FROM turns JOIN records USING (id) WHERE rating IS NOT NULL AND open = 0
                 ORDER BY id DESC LIMIT ?1",
            )?;
            let rows = query.query_map([MAX_RATED], raw)?.collect::<Result<Vec<_>, _>>()?;
            let mut ratings = Ratings::default();
            for row in rows.into_iter().rev() {
                add(&mut ratings, &record(row)?);
            }
            Ok(ratings)
        })
        .await
    }
}

/// Adds the rating of a turn, if it has one and somebody was asked. Sensors' readings are text: what counts are the
/// pictures that travelled.
pub(crate) fn add(ratings: &mut Ratings, turn: &TurnRecord) {
    let is_text = |name: &ViewName| turn.context.views.iter().any(|view| view.name == *name && view.is_text);
    let pictures = turn.views.iter().filter(|name| !is_text(name)).count();
    let asked = !matches!(turn.outcome, Outcome::Refused { .. });
    if let Some(rating) = turn.rating.filter(|_| asked) {
        ratings.add(turn.task.as_deref(), turn.route == Route::Cloud, pictures, rating);
    }
}
