//! The contracts of tether: the vocabulary that every crate shares (readings, costs, actions, turn records),
//! the types of the Unix-socket API, and the frames that cross to the cloud over QUIC.
//!
//! Nothing here does I/O, and nothing here knows tokio, candle or burn. Units are SI and stand last in a name.

pub mod action;
pub mod api;
pub mod context;
pub mod cost;
pub mod id;
pub mod limits;
pub mod openai;
pub mod reading;
pub mod record;
pub mod wire;

pub use action::{Action, ActionSpace, ActionSpaceError, Route, ViewSet};
pub use context::Context;
pub use cost::Cost;
pub use id::{IdError, SessionId, TurnId, ViewName};
pub use reading::Reading;
pub use record::{Reason, TurnRecord};
