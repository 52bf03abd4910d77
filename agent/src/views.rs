//! What the robot sees and senses: pushed camera frames and sensor readings, newest only, bounded, with their age.
//!
//! [`Views`] is a plain value: the time is an argument, and whoever shares it puts it behind a lock. Nothing here
//! decodes a picture; `image_codec` does, when a frame is about to travel.

mod config;
mod data_url;
#[cfg(feature = "v4l2")]
pub mod device;
pub mod folder;
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
use std::path::PathBuf;
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
    /// The forms in which frames may travel, the configured one first.
    ladder: Vec<EncodeOptions>,
    /// One for each configured view; stays empty for the sensor bundle.
    cameras: Vec<Camera>,
    sensors: BTreeMap<ViewName, Sensor>,
}

#[derive(Debug)]
struct Camera {
    newest: Option<(Arc<Frame>, Instant)>,
    /// For each form that an earlier frame was encoded in: its bytes over those that [`image_codec::predict_bytes`] says.
    ratios: Vec<Option<f64>>,
}

impl Views {
    /// `encode` is how frames will be encoded; it only shapes the predicted sizes here.
    pub fn new(config: ViewsConfig, encode: EncodeOptions) -> Result<Self, ViewsConfigError> {
        let space = config.check()?;
        let ladder = encode.ladder();
        let camera = || Camera { newest: None, ratios: vec![None; ladder.len()] };
        let cameras = config.0.iter().map(|_| camera()).collect();
        Ok(Self { config, space, ladder, cameras, sensors: BTreeMap::new() })
    }

    /// The actions that these views give.
    pub fn space(&self) -> &ActionSpace {
        &self.space
    }

    pub fn config(&self) -> &ViewsConfig {
        &self.config
    }

    /// The cameras whose pictures lie in folders: name, folder, and how old a picture may be.
    pub fn folders(&self) -> Vec<(ViewName, PathBuf, Duration)> {
        let of = |view: &ViewConfig| Some((view.name.clone(), view.folder.clone()?, view.max_age()));
        self.config.0.iter().filter_map(of).collect()
    }

    /// The cameras that are read from their devices.
    #[cfg(feature = "v4l2")]
    pub fn devices(&self) -> Vec<(ViewName, PathBuf)> {
        let of = |view: &ViewConfig| Some((view.name.clone(), view.device.clone()?));
        self.config.0.iter().filter_map(of).collect()
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
        self.cameras[index].replace(frame, now, &self.ladder);
        Ok(info)
    }

    /// The newest frame of a camera, however old.
    pub fn newest_frame(&self, name: &str) -> Option<Arc<Frame>> {
        let index = self.space.view_index(name)?;
        self.cameras[index].newest.as_ref().map(|(frame, _)| frame.clone())
    }

    /// The newest frame of a camera of which no size is known yet, so that somebody may encode it: what its later frames have
    /// is predicted from that.
    pub fn unmeasured(&self, name: &str) -> Option<Arc<Frame>> {
        let index = self.space.view_index(name)?;
        let (view, camera) = (&self.config.0[index], &self.cameras[index]);
        let (frame, _) = camera.newest.as_ref()?;
        let wanted = !view.local_only && camera.ratios.iter().all(Option::is_none);
        (wanted && frame.encoded(&self.ladder[0]).is_none()).then(|| frame.clone())
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
            ViewKind::Camera => camera.encoded_bytes(view, &self.ladder, now),
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

    /// For each configured view, what its fresh frame has or will have in each form, the configured one first; empty where
    /// there is no picture.
    pub fn picture_bytes(&self, now: Instant) -> Vec<Vec<u64>> {
        let views = self.config.0.iter().zip(&self.cameras);
        let sizes = |(view, camera): (&ViewConfig, &Camera)| match camera.fresh(view, now) {
            Ok((frame, _)) => (0..self.ladder.len()).map(|rung| camera.size(frame, &self.ladder, rung).0).collect(),
            Err(_) => Vec::new(),
        };
        views.map(sizes).collect()
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
    fn replace(&mut self, frame: Frame, now: Instant, ladder: &[EncodeOptions]) {
        if let Some((old, _)) = &self.newest {
            for (options, ratio) in ladder.iter().zip(&mut self.ratios) {
                if let Some(sent) = old.encoded(options) {
                    let predicted = image_codec::predict_bytes(old.width, old.height, options);
                    *ratio = Some(sent.bytes.len() as f64 / predicted as f64);
                }
            }
        }
        self.newest = Some((Arc::new(frame), now));
    }

    /// The newest frame and its age, or why there is none to send.
    fn fresh(&self, view: &ViewConfig, now: Instant) -> Result<(&Frame, Duration), String> {
        let Some((frame, at)) = &self.newest else { return Err("no frame was pushed".into()) };
        let age = age(*at, now);
        if age > view.max_age() {
            return Err(format!("the newest frame is {} old", shown(age)));
        }
        Ok((frame, age))
    }

    /// Measured if this frame has been encoded already, else predicted.
    fn encoded_bytes(&self, view: &ViewConfig, ladder: &[EncodeOptions], now: Instant) -> Reading<u64> {
        match self.fresh(view, now) {
            Ok((frame, age)) => {
                let (bytes, source) = self.size(frame, ladder, 0);
                Reading::known(bytes, millis(age), source)
            }
            Err(why) => Reading::unknown(why),
        }
    }

    /// Bytes of a frame in the form `rung` of the ladder. What an earlier frame had in the nearest form is the best guess.
    fn size(&self, frame: &Frame, ladder: &[EncodeOptions], rung: usize) -> (u64, &'static str) {
        if let Some(encoded) = frame.encoded(&ladder[rung]) {
            return (encoded.bytes.len() as u64, "encoded");
        }
        let predicted = image_codec::predict_bytes(frame.width, frame.height, &ladder[rung]);
        let known = self.ratios.iter().enumerate().filter_map(|(at, ratio)| Some((at.abs_diff(rung), (*ratio)?)));
        match known.min_by_key(|(distance, _)| *distance) {
            Some((_, ratio)) => ((predicted as f64 * ratio).round() as u64, "predicted from an earlier frame"),
            None => (predicted, "predicted from its size"),
        }
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
