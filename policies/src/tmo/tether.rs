//! The tether policy: one network for every device, link, budget and number of views.
//!
//! A scorer shared by all actions ([`network`]) looks at the dialogue and at what *this* action would cost
//! ([`scene`]); a mask ([`crate::tmo::mask`]) permits only what still fits every budget for the turns that may follow;
//! the best score among the permitted wins ([`policy`]). [`config`] and [`weights`] are its two files.
//!
//! Nothing here needs burn, allocates per decision (the words of [`crate::Decision`] excepted), asks an estimator or
//! holds a row of training data.

pub mod config;
pub mod network;
pub mod policy;
pub mod scene;
#[cfg(feature = "train")]
pub mod train;
pub mod weights;
pub mod worth;

pub use config::{Config, WhenNothingFits};
pub use network::Network;
pub use policy::{BUILT_IN, Choice, TetherPolicy};
pub use scene::{Facts, Past, RESOURCES, Scene, TASKS};
pub use weights::LoadError;
