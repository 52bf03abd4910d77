//! Answers from the cloud.

use super::{Finished, Step};
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
    pub encode: EncodeOptions,
    /// Of each of the inputs' frames in that form, before it is encoded.
    pub estimated_bytes: Vec<u64>,
    /// As predicted.
    pub upload: Upload,
    pub deadline: Instant,
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

impl CloudRun {
    /// Encodes the images and sends the turn.
    ///
    /// # Errors
    /// An image is damaged, or the cloud refuses or cannot be reached.
    pub(crate) async fn begin(cloud: &Arc<Cloud>, inputs: CloudInputs) -> Result<Self, ApiError> {
        let deadline = inputs.deadline;
        let mut upload = inputs.upload.clone();
        let (request, images, pictures) = tokio::task::spawn_blocking(move || write(inputs))
            .await
            .map_err(|error| ApiError::server(500, "internal", error.to_string()))??;
        let model = request.model.clone().unwrap_or_else(|| "cloud".into());
        let any_images = !images.is_empty();
        let prompt_tokens = u32::try_from(request.text_bytes().div_ceil(4)).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens, completion_tokens: 0 };
        let stream = cloud.turn(CloudTurn { request, images, deadline }).await.map_err(|error| cloud_error(&error))?;
        upload.pictures = pictures;
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

type Written = (TurnRequest, Vec<Bytes>, Vec<SentPicture>);

fn write(inputs: CloudInputs) -> Result<Written, ApiError> {
    // The caller has left them out already; nothing private passes here even if it had not.
    let dialogue: Vec<DialogueMessage> = inputs.dialogue.into_iter().filter(|message| !message.local_only).collect();
    let (mut headers, mut images): (Vec<ImageHeader>, Vec<Bytes>) = (Vec::new(), Vec::new());
    let mut pictures = Vec::new();
    for (at, frame) in inputs.inputs.frames.iter().enumerate() {
        let view = ViewName::new(frame.view.clone());
        let view = view.map_err(|error| ApiError::server(500, "internal", error.to_string()))?;
        let encoded = image_codec::prepare(frame, &inputs.encode)
            .map_err(|error| ApiError::refused(400, "invalid_image", format!("view {view}: {error}")))?;
        pictures.push(SentPicture {
            view: view.clone(),
            max_side_px: inputs.encode.max_side_px,
            jpeg_quality: inputs.encode.jpeg_quality,
            estimated_bytes: inputs.estimated_bytes.get(at).copied().unwrap_or(0),
            bytes: encoded.bytes.len() as u64,
        });
        headers.push(encoded.header(view));
        images.push(encoded.bytes);
    }
    let left = inputs.deadline.saturating_duration_since(Instant::now()).as_millis();
    let request = TurnRequest {
        turn_id: inputs.turn_id,
        model: inputs.model,
        deadline_ms: Some(u32::try_from(left).unwrap_or(u32::MAX).max(1)),
        sampling: inputs.sampling,
        messages: prompt::cloud_messages(&dialogue, &inputs.inputs),
        images: headers,
    };
    Ok((request, images, pictures))
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
