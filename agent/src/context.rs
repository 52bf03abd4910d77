//! What the device knows of itself: battery, power, load. Read by a thread of its own from `/sys` and `/proc`; a turn
//! takes the newest readings with their age and never waits for one.
//!
//! [`metered`] asks NetworkManager. [`supply`], [`hwmon`], [`rapl`] and [`load`] read one moment of a tree; [`sampler`] keeps the newest and adds the
//! energy up. The tree's root is a setting, so that tests read recorded ones.

pub mod hwmon;
pub mod load;
pub mod metered;
pub mod power;
pub mod rapl;
pub mod sampler;
pub mod supply;
pub mod tree;

pub use metered::MeteredWatch;
pub use power::{Now, PowerSource};
pub use sampler::Sampler;

#[cfg(test)]
mod tests;
