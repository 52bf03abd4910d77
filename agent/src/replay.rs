//! Field tests replayed: hours of a robot in virtual time, over a recorded link, on a battery, under budgets.
//!
//! The decision (a [`Policy`](tether_policies::Policy) among permitted actions), the budgets
//! ([`Accounts`](tether_policies::budget::Accounts)), the link estimator and the ledger's records are the daemon's own;
//! what answers cost and are worth is TMO's honest environment (`policies/src/tmo/honest`), with the uplink taken from
//! the trace. One seed decides everything, and every policy meets the same questions at the same moments. The results
//! are made from the records alone, so that a real ledger gives the same page (`tether report`).

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
