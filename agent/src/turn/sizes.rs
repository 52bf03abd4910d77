//! The sizes of a turn: what its request has with and without each view.

use super::attempt::Plan;
use crate::budget::uplink_within;
use crate::cloud::Cloud;
use crate::daemon::{Daemon, Live};
use crate::dialogue::{DialogueMessage, Role, TurnInputs};
use crate::prompt;
use tether_policies::budget::Resource;
use tether_policies::encoding::Bounds;
use tether_policies::upload::Sizes;
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
    let start = Frame::Image(ImageStart { turn_id: plan.turn_id.clone(), index: 0 });
    let start_bytes = start.encode().map_or(0, |frame| frame.len() as u64);
    let empty = TurnRequest {
        turn_id: plan.turn_id.clone(),
        model: plan.cloud_model.clone(),
        deadline_ms: Some(SOME_DEADLINE_MS),
        sampling: plan.sampling.clone(),
        messages: Vec::new(),
        images: Vec::new(),
    };
    let request_bytes = |dialogue: &[DialogueMessage], inputs: &TurnInputs| {
        request(&empty, dialogue, inputs).frame_bytes() as u64 + inputs.frames.len() as u64 * start_bytes
    };
    let views: Vec<TurnInputs> =
        (0..plan.views.context.len()).map(|view| plan.views.chosen(ViewSet::EMPTY.with(view))).collect();
    let (text_bytes, view_bytes) = parts(&dialogue, &views, request_bytes);
    let link = &live.settings.link;
    let deadline_ms = deadline_ms.map_or(f64::INFINITY, |deadline_ms| deadline_ms as f64 * DEADLINE_SHARE);
    let left = daemon.budgets().offer(&[], None).left[Resource::UplinkBytes as usize];
    Sizes {
        text_bytes,
        view_bytes,
        pictures: plan.views.pictures.clone(),
        wire: cloud.wire(),
        bounds: Bounds { upload_ms: link.max_upload_ms.min(deadline_ms), uplink_bytes: left.map(uplink_within) },
    }
}

/// What `bytes` has without views, and what each view adds. A view changes the newest message alone, so that a long dialogue
/// is written once, not once for every view.
fn parts(
    dialogue: &[DialogueMessage],
    views: &[TurnInputs],
    bytes: impl Fn(&[DialogueMessage], &TurnInputs) -> u64,
) -> (u64, Vec<u64>) {
    let nothing = TurnInputs::default();
    let newest: Vec<DialogueMessage> =
        dialogue.iter().rfind(|message| message.role == Role::User).cloned().into_iter().collect();
    let newest_bytes = bytes(&newest, &nothing);
    let added = views.iter().map(|inputs| bytes(&newest, inputs).saturating_sub(newest_bytes));
    (bytes(dialogue, &nothing), added.collect())
}

/// `empty` with a dialogue and its views, as it would travel, but for what is not known yet and has about the same length.
fn request(empty: &TurnRequest, dialogue: &[DialogueMessage], inputs: &TurnInputs) -> TurnRequest {
    let (width, height, byte_count) = SOME_PICTURE;
    let header = |view| ImageHeader { view, format: ImageFormat::Jpeg, width, height, byte_count };
    let images = inputs.frames.iter().filter_map(|frame| ViewName::new(frame.view.clone()).ok()).map(header);
    TurnRequest { messages: prompt::cloud_messages(dialogue, inputs), images: images.collect(), ..empty.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn message(role: Role, text: &str) -> DialogueMessage {
        DialogueMessage { role, text: text.to_owned(), local_only: false }
    }

    fn bytes(dialogue: &[DialogueMessage], inputs: &TurnInputs) -> u64 {
        let empty = TurnRequest {
            turn_id: tether_protocol::TurnId::new("t1").unwrap(),
            model: None,
            deadline_ms: Some(SOME_DEADLINE_MS),
            sampling: tether_protocol::wire::Sampling::default(),
            messages: Vec::new(),
            images: Vec::new(),
        };
        request(&empty, dialogue, inputs).frame_bytes() as u64
    }

    #[test]
    fn a_long_dialogue_is_written_once_and_its_views_add_what_they_add_to_the_whole() {
        let mut dialogue = vec![message(Role::System, "be brief")];
        for turn in 0..40 {
            dialogue.push(message(Role::User, &format!("question {turn} {}", "and so on ".repeat(30))));
            dialogue.push(message(Role::Assistant, &"an answer ".repeat(20)));
        }
        dialogue.push(message(Role::User, "what now?"));
        let sensors = TurnInputs { sensors: vec![("lidar".into(), "[1, 2, 3]".into(), 40)], ..TurnInputs::default() };
        for dialogue in [&dialogue[..], &dialogue[..1], &[]] {
            let written = RefCell::new(0);
            let counted = |dialogue: &[DialogueMessage], inputs: &TurnInputs| {
                *written.borrow_mut() += dialogue.len();
                bytes(dialogue, inputs)
            };
            let views = [sensors.clone(), TurnInputs::default(), sensors.clone()];
            let (text, added) = parts(dialogue, &views, counted);
            assert_eq!(text, bytes(dialogue, &TurnInputs::default()));
            assert!(*written.borrow() <= dialogue.len() + views.len() + 1, "{}", written.borrow());
            for (inputs, added) in views.iter().zip(added) {
                // The whole frame's length may take three bytes more than the newest message's.
                let whole = bytes(dialogue, inputs) - text;
                assert!(whole.abs_diff(added) <= 3, "{whole} {added}");
            }
        }
    }
}
