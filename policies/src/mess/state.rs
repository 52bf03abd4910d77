//! The learned state on its way to and from a file: versioned, and checked before it is believed.
//!
//! A router is deterministic, so a log of its calls after a snapshot (`route`, `answered`, `rate` with their arguments)
//! replays to the same decisions (JSON gives back a float to within its last bit).

use super::router::Router;
use serde::{Deserialize, Serialize};

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// The name of the encoder whose features were learned on.
    encoder: String,
    router: Router,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the saved router state is of version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("the saved router state was learned with encoder {saved:?}, {current:?} is in use")]
    Encoder { saved: String, current: String },
    #[error("the saved router state is damaged: {0}")]
    Damaged(String),
}

impl Router {
    pub fn snapshot(&self, encoder: &str) -> Snapshot {
        Snapshot { version: VERSION, encoder: encoder.to_owned(), router: self.clone() }
    }

    pub fn restore(snapshot: Snapshot, encoder: &str) -> Result<Self, SnapshotError> {
        if snapshot.version != VERSION {
            return Err(SnapshotError::Version(snapshot.version));
        }
        if snapshot.encoder != encoder {
            return Err(SnapshotError::Encoder { saved: snapshot.encoder, current: encoder.to_owned() });
        }
        let mut router = snapshot.router;
        if !router.is_sound() {
            return Err(SnapshotError::Damaged("a number in it is out of range".to_owned()));
        }
        router.tenants.rebuild_order();
        Ok(router)
    }
}

impl Snapshot {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a snapshot has only string keys and finite numbers")
    }

    pub fn from_json(text: &str) -> Result<Self, SnapshotError> {
        serde_json::from_str(text).map_err(|error| SnapshotError::Damaged(error.to_string()))
    }
}
