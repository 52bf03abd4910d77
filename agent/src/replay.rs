//! Field tests replayed: hours of a robot in virtual time, over a recorded link, on a battery, under budgets.
//!
//! A turn goes through the daemon's own stages: what is permitted ([`permit`](crate::permit)), what each action would cost
//! ([`features`](crate::features)), the form of its pictures ([`upload`](tether_policies::upload)), what the budgets allow
//! ([`Priced`](crate::budget::Priced)), the policy, the accounts, the link estimator and the record. What answers do cost and
//! are worth is TMO's honest environment (`policies/src/tmo/honest`), with the uplink taken from the trace. One seed decides
//! everything, and every policy meets the same questions at the same moments. The results are made from the records
//! alone, so that a real ledger gives the same page (`tether report`).

pub mod arrivals;
pub mod contender;
pub mod flight;
pub mod log;
pub mod mission;
pub mod page;
mod record;
pub mod tally;
pub mod truth;

pub use contender::Contender;
pub use flight::{Flown, fly};
pub use mission::{Mission, MissionError, Robot};
pub use tally::{Outcome, Point, Tally};

#[cfg(test)]
mod tests;
