//! The views of a turn: pushed frames and sensors that are fresh, and the images that came with the request.
//!
//! Every image takes the place of a view, so that the policy and the privacy settings govern it. An attached image
//! that names no camera takes the first free camera that may travel, else the first free one.

use super::dialogue::Dialogue;
use crate::daemon::{Daemon, Live};
use crate::dialogue::TurnInputs;
use crate::image_codec::{self, EncodeOptions};
use crate::views::{Frame, PushError, Snapshot, ViewConfig, ViewKind, parse_data_url};
use std::sync::Arc;
use std::time::Instant;
use tether_policies::upload::Sizes;
use tether_protocol::api::{ApiError, AttachedImage};
use tether_protocol::context::ViewContext;
use tether_protocol::limits::MAX_SENSORS;
use tether_protocol::{Reading, ViewName, ViewSet};

pub(super) struct TurnViews {
    /// One for each configured view, in the action space's order.
    pub context: Vec<ViewContext>,
    /// What each view's picture has in each form in which it may travel; empty where there is none.
    pub pictures: Vec<Vec<u64>>,
    frames: Vec<Option<Arc<Frame>>>,
    sensors: Vec<(String, String, u64)>,
    sensor_view: Option<usize>,
    /// An attached image or reading stands for a view that never leaves the device: then nothing of this turn does.
    pub attached_private: bool,
}

impl TurnViews {
    /// # Errors
    /// 400 for an attached image that is not one, is too large, or has no camera to stand for.
    pub(super) async fn gather(
        daemon: &Daemon,
        live: &Live,
        dialogue: &mut Dialogue,
        readings: &[(ViewName, String)],
    ) -> Result<Self, ApiError> {
        let now = Instant::now();
        let (snapshot, context, pictures) = {
            let views = daemon.views();
            (views.snapshot(now), views.view_context(now), views.picture_bytes(now))
        };
        let config = &live.settings.views.0;
        let mut views = Self::pushed(config, snapshot, context, pictures);
        views.attach_readings(readings)?;
        let attached = std::mem::take(&mut dialogue.attached);
        if !attached.is_empty() {
            let encode = live.settings.images;
            let decoded = tokio::task::spawn_blocking(move || decode(attached, encode)).await;
            let decoded = decoded.map_err(|error| ApiError::server(500, "internal", error.to_string()))??;
            for image in decoded {
                views.attach(config, image)?;
            }
        }
        Ok(views)
    }

    fn pushed(config: &[ViewConfig], snapshot: Snapshot, context: Vec<ViewContext>, pictures: Vec<Vec<u64>>) -> Self {
        let mut frames = vec![None; config.len()];
        for frame in snapshot.frames {
            if let Some(place) = config.iter().position(|view| view.name.as_str() == frame.view) {
                frames[place] = Some(frame);
            }
        }
        let sensor_view = config.iter().position(|view| view.kind == ViewKind::Sensors);
        Self { context, pictures, frames, sensors: snapshot.sensors, sensor_view, attached_private: false }
    }

    fn attach(&mut self, config: &[ViewConfig], image: Decoded) -> Result<(), ApiError> {
        let place = self.place(config, &image)?;
        let context = &mut self.context[place];
        context.attached = true;
        context.encoded_bytes = Reading::known(image.sizes[0], 0, "encoded");
        self.attached_private |= context.local_only;
        self.pictures[place] = image.sizes;
        self.frames[place] = Some(Arc::new(image.frame));
        Ok(())
    }

    /// Readings of the request come before pushed ones of the same name, and nothing but this turn gets to see them.
    fn attach_readings(&mut self, readings: &[(ViewName, String)]) -> Result<(), ApiError> {
        if readings.is_empty() {
            return Ok(());
        }
        let refused = |message: String| Err(ApiError::bad_request("tether.sensors", "invalid_value", message));
        let Some(view) = self.sensor_view else {
            return refused(PushError::NoSensorView.to_string());
        };
        self.sensors.retain(|(pushed, ..)| readings.iter().all(|(given, _)| given.as_str() != pushed));
        self.sensors.extend(readings.iter().map(|(name, json)| (name.to_string(), json.clone(), 0)));
        self.sensors.sort();
        if self.sensors.len() > MAX_SENSORS {
            return refused(format!(
                "{} sensors with those that were pushed, at most {MAX_SENSORS}",
                self.sensors.len()
            ));
        }
        let bytes = self.sensors.iter().map(|(name, json, _)| (name.len() + json.len()) as u64).sum();
        let oldest_ms = self.sensors.iter().map(|(.., age_ms)| *age_ms).max().unwrap_or(0);
        let context = &mut self.context[view];
        context.attached = true;
        context.encoded_bytes = Reading::known(bytes, oldest_ms, "its text");
        self.attached_private |= context.local_only;
        Ok(())
    }

    fn place(&self, config: &[ViewConfig], image: &Decoded) -> Result<usize, ApiError> {
        let refused = |message: String| Err(ApiError::bad_request(image.param.clone(), "no_such_camera", message));
        let is_camera = |view: &usize| config[*view].kind == ViewKind::Camera;
        let free = |view: &usize| is_camera(view) && !self.context[*view].attached;
        if image.named {
            let name = &image.frame.view;
            let found = (0..config.len()).find(|&view| config[view].name.as_str() == name);
            return match found.filter(is_camera) {
                Some(view) if free(&view) => Ok(view),
                Some(_) => refused(format!("two images are attached for camera {name}")),
                None => {
                    let known: Vec<&str> =
                        (0..config.len()).filter(is_camera).map(|view| config[view].name.as_str()).collect();
                    refused(format!("no camera is named {name}; configured: {}", known.join(", ")))
                }
            };
        }
        let may_travel = (0..config.len()).find(|view| free(view) && !config[*view].local_only);
        match may_travel.or_else(|| (0..config.len()).find(free)) {
            Some(view) => Ok(view),
            None => {
                let cameras = (0..config.len()).filter(is_camera).count();
                refused(format!("each image needs a camera of its own, and {cameras} are configured ([[views]])"))
            }
        }
    }

    /// What travels with a cloud action.
    pub(super) fn chosen(&self, views: ViewSet) -> TurnInputs {
        let frames = self.frames.iter().enumerate().filter(|(view, _)| views.contains(*view));
        let sensors = self.sensor_view.is_some_and(|view| views.contains(view));
        TurnInputs {
            frames: frames.filter_map(|(_, frame)| frame.clone()).collect(),
            sensors: if sensors { self.sensors.clone() } else { Vec::new() },
        }
    }

    /// Of the pictures that [`chosen`](Self::chosen) returns, in their order: what each was taken to have.
    pub(super) fn estimated_bytes(&self, views: ViewSet, sizes: &Sizes, rung: usize) -> Vec<u64> {
        let frames = self.frames.iter().enumerate().filter(|(view, frame)| views.contains(*view) && frame.is_some());
        frames.map(|(view, _)| sizes.picture_bytes(view, rung)).collect()
    }

    /// What the local model is told about: everything.
    pub(super) fn all(&self) -> TurnInputs {
        TurnInputs { frames: self.frames.iter().flatten().cloned().collect(), sensors: self.sensors.clone() }
    }

    /// Whether a local prompt holds readings that must never leave the device, or tells that there is a picture which
    /// must not, so that its answer must not either.
    pub(super) fn any_private(&self) -> bool {
        let private = |view: usize| self.context[view].local_only;
        let sensors = !self.sensors.is_empty() && self.sensor_view.is_some_and(private);
        sensors || self.frames.iter().enumerate().any(|(view, frame)| frame.is_some() && private(view))
    }
}

struct Decoded {
    frame: Frame,
    /// Whether the request said which camera it is from.
    named: bool,
    /// In each form: measured in the first one, predicted from it in the others.
    sizes: Vec<u64>,
    param: String,
}

/// Decodes and re-encodes at once: a damaged image is the client's error whoever answers.
fn decode(attached: Vec<AttachedImage>, encode: EncodeOptions) -> Result<Vec<Decoded>, ApiError> {
    let ladder = encode.ladder();
    let decode = |(i, image): (usize, AttachedImage)| {
        let AttachedImage { url, view, param } = image;
        let refused = |error: String| ApiError::bad_request(param.clone(), "invalid_image", error);
        let unnamed = format!("image{}", i + 1);
        let frame = parse_data_url(&url, view.as_ref().map_or(&unnamed, |view| view.as_str()));
        let frame = frame.map_err(|error| refused(error.to_string()))?;
        let encoded = image_codec::prepare(&frame, &encode).map_err(|error| refused(error.to_string()))?;
        let named = frame.view != unnamed;
        let bytes = encoded.bytes.len() as u64;
        let predicted = |options: &EncodeOptions| image_codec::predict_bytes(frame.width, frame.height, options);
        let ratio = bytes as f64 / predicted(&encode) as f64;
        let smaller = ladder.iter().skip(1).map(|options| (predicted(options) as f64 * ratio).round() as u64);
        let sizes = std::iter::once(bytes).chain(smaller).collect();
        Ok(Decoded { frame, named, sizes, param })
    };
    attached.into_iter().enumerate().map(decode).collect()
}
