//! What the robot sees and senses: pushed camera frames and sensor readings, newest only, bounded, with their age.

use serde::{Deserialize, Serialize};
use tether_protocol::ViewName;
use tether_protocol::wire::ImageFormat;

/// `[[views]]`: the named views, in the order of the action space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewsConfig(pub Vec<ViewConfig>);

/// One view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    pub name: ViewName,
    pub kind: ViewKind,
    /// Privacy: this view never leaves the device.
    #[serde(default)]
    pub local_only: bool,
    /// Older than this it is left out.
    #[serde(default = "default_max_age_ms")]
    pub max_age_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewKind {
    Camera,
    /// All pushed sensors together.
    Sensors,
}

fn default_max_age_ms() -> u64 {
    10_000
}

impl Default for ViewsConfig {
    fn default() -> Self {
        let view = |name: &str, kind| ViewConfig {
            name: ViewName::new(name).expect("a legal name"),
            kind,
            local_only: false,
            max_age_ms: default_max_age_ms(),
        };
        let cameras = ["front", "side", "overhead"].map(|name| view(name, ViewKind::Camera));
        Self(cameras.into_iter().chain([view("sensors", ViewKind::Sensors)]).collect())
    }
}

/// One encoded picture, checked (size, magic number, dimensions) but not decoded.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The view it belongs to; data URLs without a view are named `image1`, `image2`, ...
    pub view: String,
    pub format: ImageFormat,
    pub width: u32,
    pub height: u32,
    pub bytes: bytes::Bytes,
    /// Age at the time of the request.
    pub age_ms: u64,
}
