//! The learned state on its way to and from a file: versioned, and checked before it is believed.
//!
//! A router is deterministic, so a log of its calls after a snapshot (`route`, `answered`, `rate` with their arguments)
//! replays to the same decisions (JSON gives back a float to within its last bit).

use super::pending::Pending;
use super::router::Router;
use super::tenant::Tenant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// The name of the encoder whose features were learned on.
    encoder: String,
    router: Router,
}

/// One tenant's part of a snapshot: its level, its queue and its place on the ladder, and its turns that can be rated.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TenantPart {
    /// When it was used last, and how it stands; `None` where it was forgotten and turns of it are left.
    tenant: Option<(u64, Tenant)>,
    turns: BTreeMap<String, Pending>,
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
    /// Takes the tenants out, so that each may be kept in a place of its own. What stays is common to all.
    pub fn take_tenants(&mut self) -> BTreeMap<String, TenantPart> {
        let mut parts = BTreeMap::<String, TenantPart>::new();
        for (name, tenant) in self.router.tenants.take_all() {
            parts.entry(name).or_default().tenant = Some(tenant);
        }
        for (turn, pending) in self.router.pending.take_all() {
            parts.entry(pending.tenant.clone()).or_default().turns.insert(turn, pending);
        }
        parts
    }

    /// Puts them back. Who is missing begins anew, and its turns can no longer be rated.
    pub fn put_tenants(&mut self, parts: impl IntoIterator<Item = (String, TenantPart)>) {
        let mut turns = BTreeMap::new();
        for (name, part) in parts {
            if let Some(tenant) = part.tenant {
                self.router.tenants.put(name, tenant);
            }
            turns.extend(part.turns);
        }
        self.router.pending.put_all(turns);
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a snapshot has only string keys and finite numbers")
    }

    pub fn from_json(text: &str) -> Result<Self, SnapshotError> {
        serde_json::from_str(text).map_err(|error| SnapshotError::Damaged(error.to_string()))
    }
}
