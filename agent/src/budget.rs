//! Budgets in the daemon: the accounts of all turns, kept exact over crashes and power cuts.
//!
//! `policies/src/budget` does the arithmetic. Here are the clock, the lease file ([`lease`]), the syncing
//! ([`keeper`]), the most that a turn may cost ([`mod@most`]), which actions are within the budgets ([`priced`]), what cuts
//! a turn that would cost more ([`guard`]), and joules ([`energy`]). `docs/BUDGETS.md` says what is promised.

pub mod energy;
pub mod guard;
pub mod keeper;
pub mod lease;
pub mod most;
pub mod priced;

pub use energy::{Energy, EnergyMeter};
pub use guard::Guard;
pub use keeper::{Keeper, SetError};
pub use most::{Asked, most, most_downlink, most_uplink, uplink_within};
pub use priced::Priced;
