//! The environment without the published one's faults, and the default.
//!
//! - [`hardware`]: a local answer takes as long as its arithmetic and its memory traffic do, checked against the
//!   dialogues' own measured times.
//! - [`link`]: what a cloud answer costs in seconds, USD, joules and bytes, on the published links or a measured one.
//! - [`response`]: how good an answer is, with shrinkage, judged on dialogues that it was not fitted to.
//! - [`moment`]: one turn's actions with their costs and rewards; [`play`] a policy through whole dialogues, where the
//!   next observation follows the action taken, under four budgets at once; [`scenario`] draws profiles and budgets.

pub mod hardware;
pub mod link;
pub mod moment;
pub mod play;
pub mod response;
pub mod scenario;
