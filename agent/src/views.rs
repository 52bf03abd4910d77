//! What the robot sees and senses: pushed camera frames and sensor readings, newest only, bounded, with their age.
//!
//! [`Views`] is a plain value: the time is an argument, and whoever shares it puts it behind a lock. Nothing here
//! decodes a picture; `image_codec` does, when a frame is about to travel.

mod config;
mod data_url;
mod frame;
mod sensor;
mod snapshot;
#[cfg(test)]
mod tests;

pub use config::{ViewConfig, ViewKind, ViewsConfig, ViewsConfigError};
pub use data_url::{DataUrlError, parse_data_url};
pub use frame::{Frame, FrameInfo};
pub use sensor::SensorError;
pub use snapshot::{LeftOut, Snapshot};

use crate::image_codec::{self, EncodeOptions, ImageError};
use bytes::Bytes;
use sensor::Sensor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_protocol::context::ViewContext;
use tether_protocol::limits::MAX_SENSORS;
use tether_protocol::{ActionSpace, Reading, ViewName};

/// Why a pushed frame or reading was refused. What was held before stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PushError {
    #[error("no view is named {given:?}{}; configured: {known}", nearest.as_ref().map_or(String::new(), |name| format!(" (did you mean {name:?}?)")))]
    UnknownView { given: String, nearest: Option<String>, known: String },
    #[error("view {name} holds sensors, not pictures: push its readings with PUT /v1/sensors/NAME")]
    NotACamera { name: ViewName },
    #[error("no view of kind \"sensors\" is configured: add one to [[views]]")]
    NoSensorView,
    #[error("frame for view {view}: {problem}")]
    Image { view: ViewName, problem: ImageError },
    #[error(transparent)]
    Sensor(#[from] SensorError),
    #[error("{MAX_SENSORS} sensors are held already, the most allowed; {name:?} would be one more")]
    TooManySensors { name: String },
}

/// The newest frame of each camera and the newest reading of each sensor.
#[derive(Debug)]
pub struct Views {
    config: ViewsConfig,
    space: ActionSpace,
    encode: EncodeOptions,
    /// One for each configured view; stays empty for the sensor bundle.
    cameras: Vec<Camera>,
    sensors: BTreeMap<ViewName, Sensor>,
}

#[derive(Debug, Default)]
struct Camera {
    newest: Option<(Arc<Frame>, Instant)>,
    /// Encoded bytes for each sent pixel, as an earlier frame of this camera had them.
    bytes_per_pixel: Option<f64>,
}

impl Views {
    /// `encode` is how frames will be encoded; it only shapes the predicted sizes here.
    pub fn new(config: ViewsConfig, encode: EncodeOptions) -> Result<Self, ViewsConfigError> {
        let space = config.check()?;
        let cameras = config.0.iter().map(|_| Camera::default()).collect();
        Ok(Self { config, space, encode, cameras, sensors: BTreeMap::new() })
    }

    /// The actions that these views give.
    pub fn space(&self) -> &ActionSpace {
        &self.space
    }

    pub fn config(&self) -> &ViewsConfig {
        &self.config
    }

    /// Holds `bytes` (JPEG or PNG, checked but not decoded) as the newest frame of the camera `name`.
    pub fn push_frame(&mut self, name: &str, bytes: Bytes, now: Instant) -> Result<FrameInfo, PushError> {
        let index = self.space.view_index(name).ok_or_else(|| self.unknown_view(name))?;
        let view = &self.config.0[index];
        if view.kind != ViewKind::Camera {
            return Err(PushError::NotACamera { name: view.name.clone() });
        }
        let frame =
            Frame::new(name, bytes, 0).map_err(|problem| PushError::Image { view: view.name.clone(), problem })?;
        let info = FrameInfo::of(&frame);
        self.cameras[index].replace(frame, now, &self.encode);
        Ok(info)
    }

    /// The newest frame of a camera, however old.
    pub fn newest_frame(&self, name: &str) -> Option<Arc<Frame>> {
        let index = self.space.view_index(name)?;
        self.cameras[index].newest.as_ref().map(|(frame, _)| frame.clone())
    }

    /// Holds a reading (any JSON value) as the newest of the sensor `name`.
    pub fn push_sensor(&mut self, name: &str, json: &[u8], now: Instant) -> Result<(), PushError> {
        if self.config.sensors().is_none() {
            return Err(PushError::NoSensorView);
        }
        let (name, sensor) = Sensor::read(name, json, now)?;
        self.forget_old_sensors(now);
        if self.sensors.len() >= MAX_SENSORS && !self.sensors.contains_key(&name) {
            return Err(PushError::TooManySensors { name: name.into() });
        }
        self.sensors.insert(name, sensor);
        Ok(())
    }

    /// What a turn may use now: fresh frames and readings with their ages, and what was left out and why.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (view, camera) in self.config.0.iter().zip(&self.cameras) {
            match view.kind {
                ViewKind::Camera => snapshot.add_camera(view, camera.newest.as_ref(), now),
                ViewKind::Sensors => snapshot.add_sensors(view, &self.sensors, now),
            }
        }
        snapshot
    }

    /// One entry for each configured view, in the action space's order. `attached` is false everywhere: only the
    /// request knows what came with it.
    pub fn view_context(&self, now: Instant) -> Vec<ViewContext> {
        let size = |(view, camera): (&ViewConfig, &Camera)| match view.kind {
            ViewKind::Camera => camera.encoded_bytes(view, &self.encode, now),
            ViewKind::Sensors => self.sensor_bytes(view, now),
        };
        let views = self.config.0.iter().zip(&self.cameras);
        views
            .map(|(view, camera)| ViewContext {
                name: view.name.clone(),
                encoded_bytes: size((view, camera)),
                attached: false,
                is_text: view.kind == ViewKind::Sensors,
                local_only: view.local_only,
                association: None,
            })
            .collect()
    }

    fn sensor_bytes(&self, view: &ViewConfig, now: Instant) -> Reading<u64> {
        let fresh = self.sensors.iter().filter(|(_, sensor)| age(sensor.at, now) <= view.max_age());
        let (bytes, oldest) = fresh.fold((0, None), |(bytes, oldest), (name, sensor)| {
            (bytes + (name.as_str().len() + sensor.json.len()) as u64, oldest.max(Some(age(sensor.at, now))))
        });
        match oldest {
            Some(age) => Reading::known(bytes, millis(age), "its text"),
            None => Reading::unknown("no fresh sensor reading"),
        }
    }

    /// Names of sensors that have been silent for so long that they cannot be shown any more make room for new ones.
    fn forget_old_sensors(&mut self, now: Instant) {
        let Some(max_age) = self.config.sensors().map(ViewConfig::max_age) else { return };
        if self.sensors.len() >= MAX_SENSORS {
            self.sensors.retain(|_, sensor| age(sensor.at, now) <= max_age);
        }
    }

    fn unknown_view(&self, given: &str) -> PushError {
        let names: Vec<&str> = self.space.views().iter().map(ViewName::as_str).collect();
        let given: String = given.chars().take(64).collect();
        let nearest =
            names.iter().max_by(|a, b| strsim::jaro_winkler(a, &given).total_cmp(&strsim::jaro_winkler(b, &given)));
        let nearest = nearest.filter(|name| strsim::jaro_winkler(name, &given) > 0.7).map(|name| (*name).to_owned());
        PushError::UnknownView { given, nearest, known: names.join(", ") }
    }
}

impl Camera {
    fn replace(&mut self, frame: Frame, now: Instant, encode: &EncodeOptions) {
        let sent = self.newest.as_ref().and_then(|(old, _)| old.encoded(encode));
        if let Some(sent) = sent {
            let pixels = f64::from(sent.width) * f64::from(sent.height);
            self.bytes_per_pixel = Some(sent.bytes.len() as f64 / pixels);
        }
        self.newest = Some((Arc::new(frame), now));
    }

    /// Measured if this frame has been encoded already, else predicted.
    fn encoded_bytes(&self, view: &ViewConfig, encode: &EncodeOptions, now: Instant) -> Reading<u64> {
        let Some((frame, at)) = &self.newest else { return Reading::unknown("no frame was pushed") };
        let age = age(*at, now);
        if age > view.max_age() {
            return Reading::unknown(format!("the newest frame is {} old", shown(age)));
        }
        let (bytes, source) = match (frame.encoded(encode), self.bytes_per_pixel) {
            (Some(encoded), _) => (encoded.bytes.len() as u64, "encoded"),
            (None, Some(rate)) => {
                let (width, height) = image_codec::scaled(frame.width, frame.height, encode.max_side_px);
                ((f64::from(width) * f64::from(height) * rate) as u64, "predicted from an earlier frame")
            }
            (None, None) => (image_codec::predict_bytes(frame.width, frame.height, encode), "predicted from its size"),
        };
        Reading::known(bytes, millis(age), source)
    }
}

fn age(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

fn shown(age: Duration) -> String {
    format!("{:.1} s", age.as_secs_f64())
}
