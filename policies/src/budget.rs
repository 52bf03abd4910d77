//! Budgets: what may be spent of money, energy and bytes, each within a window of time.
//!
//! Two layers. *Hard caps* by reserve-then-settle ([`Accounts`]): before a turn begins, the most that it may cost is
//! reserved; after it, what it did cost is settled. What is spent and what is reserved together never exceed a cap,
//! and no reservation that fits is refused. *Pacing* ([`pacing`]): spending is held to a straight line over the
//! window by shadow prices, virtual queues as in MESS+ (arXiv 2505.19947, section 3), and the last tenth is left for
//! turns that cannot wait.
//!
//! Everything counts in whole units ([`Resource::count`]): nano-dollars, microjoules, bytes. Pure: the time is an
//! argument, in milliseconds since the Unix epoch, made monotonic by [`Clock`].

pub mod account;
pub mod accounts;
pub mod amount;
pub mod offer;
pub mod pacing;
pub mod window;

pub use account::{Account, Budget, BudgetName, Spending, UnknownBudget};
pub use accounts::{Accounts, Charge, Refused, Reservation, Settled, Why};
pub use amount::{Amounts, Counts, Resource, cost, counts};
pub use offer::{Most, Offer};
pub use pacing::{Price, Prices};
pub use window::{Clock, Window};
