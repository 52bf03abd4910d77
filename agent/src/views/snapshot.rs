//! What one turn may use of the views.

use super::config::ViewConfig;
use super::frame::Frame;
use super::sensor::Sensor;
use super::{age, millis, shown};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tether_protocol::ViewName;

/// A view (or one sensor) that has nothing fresh to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub name: ViewName,
    pub reason: String,
}

/// The views at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Fresh frames with their ages, in the order of the configured views.
    pub frames: Vec<Arc<Frame>>,
    /// Fresh readings as `(name, JSON text, age in ms)`, sorted by name.
    pub sensors: Vec<(String, String, u64)>,
    pub left_out: Vec<LeftOut>,
}

impl Snapshot {
    pub(super) fn add_camera(&mut self, view: &ViewConfig, newest: Option<&(Arc<Frame>, Instant)>, now: Instant) {
        let Some((frame, at)) = newest else { return self.leave_out(&view.name, "no frame was pushed".into()) };
        let age = age(*at, now);
        if age > view.max_age() {
            let reason = format!("its frame is {} old, at most {} are allowed", shown(age), shown(view.max_age()));
            return self.leave_out(&view.name, reason);
        }
        self.frames.push(Arc::new(frame.with_age(millis(age))));
    }

    pub(super) fn add_sensors(&mut self, view: &ViewConfig, sensors: &BTreeMap<ViewName, Sensor>, now: Instant) {
        if sensors.is_empty() {
            self.leave_out(&view.name, "no sensor reading was pushed".into());
        }
        for (name, sensor) in sensors {
            let age = age(sensor.at, now);
            if age > view.max_age() {
                let allowed = shown(view.max_age());
                self.leave_out(name, format!("its reading is {} old, at most {allowed} are allowed", shown(age)));
            } else {
                self.sensors.push((name.to_string(), sensor.json.clone(), millis(age)));
            }
        }
    }

    fn leave_out(&mut self, name: &ViewName, reason: String) {
        self.left_out.push(LeftOut { name: name.clone(), reason });
    }
}
