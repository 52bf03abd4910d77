//! Answers from the cloud.

use super::{Finished, Step};
use crate::budget::guard::{UPLINK, used_up};
use crate::cloud::{Cloud, CloudError, CloudStream, CloudTurn};
use crate::dialogue::{DialogueMessage, TurnInputs};
use crate::image_codec::{self, EncodeOptions};
use crate::prompt;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tether_protocol::api::ApiError;
use tether_protocol::record::{SentPicture, Upload, Usage};
use tether_protocol::wire::{ErrorCode, ImageHeader, Sampling, TurnEvent, TurnRequest, Vision, WireError};
use tether_protocol::{TurnId, ViewName};

/// Everything that may leave the device with one turn.
pub(crate) struct CloudInputs {
    pub turn_id: TurnId,
    pub model: Option<String>,
    pub sampling: Sampling,
    pub dialogue: Vec<DialogueMessage>,
    pub inputs: TurnInputs,
    /// How the inputs' frames may travel: as predicted, and smaller.
    pub forms: Vec<PictureForm>,
    /// As predicted.
    pub upload: Upload,
    pub deadline: Instant,
}

/// A form for the frames of a turn.
pub(crate) struct PictureForm {
    pub encode: EncodeOptions,
    /// Of each frame, before it is encoded.
    pub estimated_bytes: Vec<u64>,
}

/// A turn whose every byte is known.
pub(crate) struct WrittenTurn {
    pub turn: CloudTurn,
    upload: Upload,
}

/// An answer that the cloud is making.
pub struct CloudRun {
    stream: CloudStream,
    model: String,
    /// Whether any image travels.
    any_images: bool,
    vision: Option<Vision>,
    /// As far as it can be told from here: a token for four bytes of text up, and one for each piece that came.
    usage: Usage,
    address: String,
    upload: Upload,
}

impl CloudInputs {
    /// Encodes the images in one of the forms.
    ///
    /// # Errors
    /// An image is damaged.
    pub(crate) async fn write(self: &Arc<Self>, form: usize) -> Result<WrittenTurn, ApiError> {
        let inputs = self.clone();
        tokio::task::spawn_blocking(move || write(&inputs, &inputs.forms[form]))
            .await
            .map_err(|error| ApiError::server(500, "internal", error.to_string()))?
    }
}

impl CloudRun {
    /// Sends the turn.
    ///
    /// # Errors
    /// The cloud refuses or cannot be reached.
    pub(crate) async fn begin(cloud: &Arc<Cloud>, written: WrittenTurn) -> Result<Self, ApiError> {
        let WrittenTurn { turn, upload } = written;
        let model = turn.request.model.clone().unwrap_or_else(|| "cloud".into());
        let any_images = !turn.images.is_empty();
        let prompt_tokens = u32::try_from(turn.request.text_bytes().div_ceil(4)).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens, completion_tokens: 0 };
        let stream = cloud.turn(turn).await.map_err(|error| cloud_error(&error))?;
        Ok(Self { stream, model, any_images, vision: None, usage, address: cloud.address(), upload })
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn vision(&self) -> Option<Vision> {
        self.vision.filter(|_| self.any_images)
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        self.stream.bytes.travelled()
    }

    /// What went up, as far as it is known by now.
    pub(super) fn upload(&self) -> Upload {
        Upload { measured_ms: self.stream.bytes.upload_ms(), ..self.upload.clone() }
    }

    pub(super) async fn next(&mut self) -> Step {
        loop {
            match self.stream.events.recv().await {
                Some(TurnEvent::Error(_)) | None if self.stream.bytes.is_cut() => {
                    return Step::Failed(used_up(UPLINK));
                }
                Some(TurnEvent::Accepted(accepted)) => {
                    self.model = accepted.model;
                    self.vision = Some(accepted.vision);
                }
                Some(TurnEvent::Text(text)) if text.is_empty() => {}
                Some(TurnEvent::Text(text)) => {
                    self.usage.completion_tokens += 1;
                    return Step::Text(text);
                }
                Some(TurnEvent::Done(done)) => {
                    return Step::Done(Finished {
                        finish_reason: done.finish_reason,
                        usage: done.usage,
                        usage_estimated: done.usage_estimated,
                        cost_usd: Some(done.cost_usd),
                        dropped_messages: done.dropped_messages,
                        queue_ms: Some(f64::from(done.queue_ms)),
                        cached_tokens: None,
                    });
                }
                Some(TurnEvent::Error(error)) => return Step::Failed(wire_error(&error)),
                None => {
                    let message = format!("the connection to {} broke", self.address);
                    return Step::Failed(ApiError::server(502, "cloud_unreachable", message));
                }
            }
        }
    }
}

fn write(inputs: &CloudInputs, form: &PictureForm) -> Result<WrittenTurn, ApiError> {
    // The caller has left them out already; nothing private passes here even if it had not.
    let dialogue: Vec<DialogueMessage> =
        inputs.dialogue.iter().filter(|message| !message.local_only).cloned().collect();
    let (mut headers, mut images): (Vec<ImageHeader>, Vec<Bytes>) = (Vec::new(), Vec::new());
    let mut pictures = Vec::new();
    for (at, frame) in inputs.inputs.frames.iter().enumerate() {
        let view = ViewName::new(frame.view.clone());
        let view = view.map_err(|error| ApiError::server(500, "internal", error.to_string()))?;
        let encoded = image_codec::prepare(frame, &form.encode)
            .map_err(|error| ApiError::refused(400, "invalid_image", format!("view {view}: {error}")))?;
        pictures.push(SentPicture {
            view: view.clone(),
            max_side_px: form.encode.max_side_px,
            jpeg_quality: form.encode.jpeg_quality,
            estimated_bytes: form.estimated_bytes.get(at).copied().unwrap_or(0),
            bytes: encoded.bytes.len() as u64,
        });
        headers.push(encoded.header(view));
        images.push(encoded.bytes);
    }
    let left = inputs.deadline.saturating_duration_since(Instant::now()).as_millis();
    let request = TurnRequest {
        turn_id: inputs.turn_id.clone(),
        model: inputs.model.clone(),
        deadline_ms: Some(u32::try_from(left).unwrap_or(u32::MAX).max(1)),
        sampling: inputs.sampling.clone(),
        messages: prompt::cloud_messages(&dialogue, &inputs.inputs),
        images: headers,
    };
    let turn = CloudTurn { request, images, deadline: inputs.deadline, most_up_bytes: None };
    Ok(WrittenTurn { turn, upload: Upload { pictures, ..inputs.upload.clone() } })
}

pub(crate) fn cloud_error(error: &CloudError) -> ApiError {
    match error {
        CloudError::Unreachable { .. } => ApiError::server(502, "cloud_unreachable", error.to_string()),
        CloudError::Untrusted { .. } => ApiError::server(502, "cloud_untrusted", error.to_string()),
        CloudError::Refused(wire) => wire_error(wire),
        CloudError::Deadline => ApiError::server(504, "deadline_exceeded", error.to_string()),
        CloudError::Config(_) => ApiError::server(503, "cloud_unavailable", error.to_string()),
    }
}

fn wire_error(error: &WireError) -> ApiError {
    let message = format!("the cloud: {}", error.message);
    let retry_after_s = error.retry_after_ms.map_or(1, |ms| ms.div_ceil(1_000)).max(1);
    match error.code {
        ErrorCode::BadRequest => ApiError::refused(400, "cloud_refused", message),
        ErrorCode::Unauthorized => ApiError::server(502, "cloud_unauthorized", message),
        ErrorCode::UnknownModel => ApiError::refused(404, "model_not_found", message).with_param("model"),
        ErrorCode::NoVision => ApiError::refused(400, "no_vision", message),
        ErrorCode::ContextFull => {
            let message = format!("{message}; send less, or name a model with a larger context (cloud/NAME)");
            ApiError::bad_request("messages", "context_length_exceeded", message)
        }
        ErrorCode::Overloaded => ApiError::busy(429, "cloud_overloaded", message, retry_after_s),
        ErrorCode::DeadlineExceeded => ApiError::server(504, "deadline_exceeded", message),
        ErrorCode::Draining => ApiError::busy(503, "cloud_draining", message, retry_after_s),
        ErrorCode::BackendFailed | ErrorCode::Internal => ApiError::server(502, "cloud_failed", message),
    }
}
