//! The sizes of a turn: what its request has with and without each view.

use super::attempt::Plan;
use crate::budget::uplink_within;
use crate::cloud::Cloud;
use crate::daemon::{Daemon, Live};
use crate::dialogue::{DialogueMessage, TurnInputs};
use crate::prompt;
use crate::upload::Sizes;
use tether_policies::budget::Resource;
use tether_policies::encoding::Bounds;
use tether_protocol::wire::{Frame, ImageFormat, ImageHeader, ImageStart, TurnRequest};
use tether_protocol::{ViewName, ViewSet};

/// Of a deadline, at most this share may go into the upload.
const DEADLINE_SHARE: f64 = 0.25;
/// A deadline and a picture's announcement have as many bytes whatever they are, nearly.
const SOME_DEADLINE_MS: u32 = 60_000;
const SOME_PICTURE: (u32, u32, u32) = (640, 480, 30_000);

pub(super) fn sizes(daemon: &Daemon, live: &Live, cloud: &Cloud, plan: &Plan, deadline_ms: Option<u64>) -> Sizes {
    let dialogue: Vec<DialogueMessage> =
        plan.dialogue.messages.iter().filter(|message| !message.local_only).cloned().collect();
    let request_bytes = |inputs: &TurnInputs| request(plan, &dialogue, inputs).frame_bytes() as u64;
    let text_bytes = request_bytes(&TurnInputs::default());
    let start = Frame::Image(ImageStart { turn_id: plan.turn_id.clone(), index: 0 });
    let start_bytes = start.encode().map_or(0, |frame| frame.len() as u64);
    let of_view = |view: usize| {
        let inputs = plan.views.chosen(ViewSet::EMPTY.with(view));
        let own_stream = if inputs.frames.is_empty() { 0 } else { start_bytes };
        request_bytes(&inputs).saturating_sub(text_bytes) + own_stream
    };
    let link = &live.settings.link;
    let deadline_ms = deadline_ms.map_or(f64::INFINITY, |deadline_ms| deadline_ms as f64 * DEADLINE_SHARE);
    let left = daemon.budgets().offer(&[], None).left[Resource::UplinkBytes as usize];
    Sizes {
        text_bytes,
        view_bytes: (0..plan.views.context.len()).map(of_view).collect(),
        pictures: plan.views.pictures.clone(),
        wire: cloud.wire(),
        bounds: Bounds { upload_ms: link.max_upload_ms.min(deadline_ms), uplink_bytes: left.map(uplink_within) },
    }
}

/// The request as it would travel, but for what is not known yet and has about the same length.
fn request(plan: &Plan, dialogue: &[DialogueMessage], inputs: &TurnInputs) -> TurnRequest {
    let (width, height, byte_count) = SOME_PICTURE;
    let header = |view| ImageHeader { view, format: ImageFormat::Jpeg, width, height, byte_count };
    let images = inputs.frames.iter().filter_map(|frame| ViewName::new(frame.view.clone()).ok()).map(header);
    TurnRequest {
        turn_id: plan.turn_id.clone(),
        model: plan.cloud_model.clone(),
        deadline_ms: Some(SOME_DEADLINE_MS),
        sampling: plan.sampling.clone(),
        messages: prompt::cloud_messages(dialogue, inputs),
        images: images.collect(),
    }
}
