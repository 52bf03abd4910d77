//! MESS+ (arXiv 2505.19947): the least cost at a guaranteed satisfaction, one model of a zoo per request, learned
//! online from ratings. [`Published`] is the paper's; [`Router`] is ours. `docs/MESS.md` explains both.
//!
//! Nothing here knows a clock, a socket or a source of randomness: the time and a uniform number are arguments.

pub mod bound;
pub mod features;
mod guard;
mod head;
mod lru;
mod model;
mod params;
mod pending;
mod price;
mod published;
mod router;
mod state;
pub mod static_mix;
mod tenant;

pub use features::{Encoder, HashedEncoder, RequestFeatures};
pub use model::{ModelSpec, TokenPrice};
pub use params::Params;
pub use published::{Published, PublishedChoice, PublishedParams};
pub use router::{
    Answer, Call, Choice, Decision, LabelOutcome, ModelStatus, RateError, Reason, RouteError, Router, ZooError,
};
pub use state::{Snapshot, SnapshotError, TenantPart};
pub use tenant::{TenantConfig, TenantError, TenantStatus};
