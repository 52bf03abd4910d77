//! `[[views]]`: which cameras there are, and whether sensors travel as a bundle.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tether_protocol::{ActionSpace, ActionSpaceError, ViewName};

/// A camera at 1 frame a second may miss ten: an older picture shows a scene that has changed.
const CAMERA_MAX_AGE_MS: u64 = 10_000;
/// Batteries and grippers report when something changes; a minute is a guess.
const SENSORS_MAX_AGE_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewKind {
    #[default]
    Camera,
    /// All sensors together, as text.
    Sensors,
}

/// One `[[views]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    pub name: ViewName,
    #[serde(default)]
    pub kind: ViewKind,
    /// Privacy: this view never leaves the device.
    #[serde(default)]
    pub local_only: bool,
    /// Older frames or readings are left out; 10 s for cameras and 60 s for sensors if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Of a camera: the newest picture in this folder is its frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Of a camera: its Video4Linux device, such as `/dev/video0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
}

impl ViewConfig {
    pub fn max_age(&self) -> Duration {
        let default_ms = match self.kind {
            ViewKind::Camera => CAMERA_MAX_AGE_MS,
            ViewKind::Sensors => SENSORS_MAX_AGE_MS,
        };
        Duration::from_millis(self.max_age_ms.unwrap_or(default_ms))
    }
}

/// All `[[views]]`, in the order that the action space keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewsConfig(pub Vec<ViewConfig>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewsConfigError {
    #[error(transparent)]
    Space(#[from] ActionSpaceError),
    #[error("views {first} and {second} are both of kind \"sensors\": one bundle holds all sensors")]
    TwoSensorViews { first: ViewName, second: ViewName },
    #[error("view {0} is of kind \"sensors\": only a camera has a folder of pictures or a device")]
    FolderOfSensors(ViewName),
    #[error("view {0}: `folder` and `device` are two sources of one camera's pictures; keep one")]
    FolderAndDevice(ViewName),
    #[error(
        "view {0} has a device, but this program was built without Video4Linux: build it with `--features v4l2`, or write its pictures into a `folder`"
    )]
    NoVideo(ViewName),
}

impl ViewsConfig {
    /// Checks the names and the count.
    pub fn check(&self) -> Result<ActionSpace, ViewsConfigError> {
        let mut bundles = self.0.iter().filter(|view| view.kind == ViewKind::Sensors);
        if let (Some(first), Some(second)) = (bundles.next(), bundles.next()) {
            let (first, second) = (first.name.clone(), second.name.clone());
            return Err(ViewsConfigError::TwoSensorViews { first, second });
        }
        for view in &self.0 {
            let name = || view.name.clone();
            match (view.kind, &view.folder, &view.device) {
                (ViewKind::Sensors, Some(_), _) | (ViewKind::Sensors, _, Some(_)) => {
                    return Err(ViewsConfigError::FolderOfSensors(name()));
                }
                (_, Some(_), Some(_)) => return Err(ViewsConfigError::FolderAndDevice(name())),
                (_, _, Some(_)) if cfg!(not(feature = "v4l2")) => return Err(ViewsConfigError::NoVideo(name())),
                _ => {}
            }
        }
        Ok(ActionSpace::new(self.0.iter().map(|view| view.name.clone()).collect())?)
    }

    /// The sensor bundle, if one is configured.
    pub fn sensors(&self) -> Option<&ViewConfig> {
        self.0.iter().find(|view| view.kind == ViewKind::Sensors)
    }
}

impl Default for ViewsConfig {
    /// Three cameras (TMO's setup) and the sensor bundle.
    fn default() -> Self {
        let view = |name: &str, kind| ViewConfig {
            name: ViewName::new(name).expect("the default names are legal"),
            kind,
            local_only: false,
            max_age_ms: None,
            folder: None,
            device: None,
        };
        let cameras = ["front", "side", "overhead"].map(|name| view(name, ViewKind::Camera));
        Self(cameras.into_iter().chain([view("sensors", ViewKind::Sensors)]).collect())
    }
}
