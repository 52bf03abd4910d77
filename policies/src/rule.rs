//! The short documented rule, for who wants to foresee every choice:
//!
//! 1. Only one route permitted: take it.
//! 2. The prompt does not fit the local model's context: cloud, text only.
//! 3. Battery at or below [`LOW_BATTERY_PERCENT`], off mains, and the link is up: cloud, with the views the prompt
//!    is about. A local answer of a few hundred tokens costs tens of joules, a radio's burst a few.
//! 4. The prompt is about views (attached to it, or named in its text) and some of them can be sent: cloud with
//!    those views. The local models that tether runs do not see; sensor readings they read, so those alone are no
//!    reason.
//! 5. The link is down or degraded, or none of the above: local.

use crate::decision::{Decision, Permitted, Policy};
use crate::fixed::cloud_with;
use crate::observation::Observation;
use tether_protocol::context::LinkState;
use tether_protocol::{Action, ViewSet};

/// Below this a robot should rather spend the radio than the processor.
pub const LOW_BATTERY_PERCENT: f64 = 15.0;

/// Words that make every camera relevant.
const LOOKING: [&str; 10] =
    ["see", "look", "looking", "camera", "image", "picture", "photo", "show", "visible", "describe"];

#[derive(Debug, Clone, Copy, Default)]
pub struct Rule;

impl Policy for Rule {
    fn name(&self) -> &str {
        "rule-1"
    }

    fn decide(&self, observation: &Observation, permitted: &Permitted, _: u64) -> Decision {
        let wanted = views_in_question(observation);
        let cloud = cloud_with(observation, permitted, wanted);
        let Some(cloud) = cloud else {
            return Decision::certain(permitted.first().action, "only_one_route", "no cloud action is permitted");
        };
        if !permitted.contains(Action::LOCAL) {
            return Decision::certain(cloud, "only_one_route", "local is not permitted");
        }
        if let Some(context_tokens) = observation.local_context_tokens
            && observation.prompt_tokens.saturating_add(1) > context_tokens
        {
            let detail = format!("{} prompt tokens, local context {context_tokens}", observation.prompt_tokens);
            return Decision::certain(cloud, "prompt_too_long", detail);
        }
        let link = observation.context.link.value().map(|link| link.state);
        if matches!(link, Some(LinkState::Down | LinkState::Degraded)) {
            return Decision::certain(Action::LOCAL, "link_not_up", "the link to the cloud is down or degraded");
        }
        if let Some(battery) = observation.context.battery.value()
            && !battery.on_ac
            && battery.percent <= LOW_BATTERY_PERCENT
        {
            return Decision::certain(cloud, "battery_low", format!("battery at {:.0} %", battery.percent));
        }
        let sent = observation.space.sent(cloud);
        let views = &observation.context.views;
        if (0..views.len()).any(|view| sent.contains(view) && !views[view].is_text) {
            let names: Vec<String> = observation.space.names(sent).iter().map(|name| name.to_string()).collect();
            return Decision::certain(cloud, "views_needed", format!("the prompt is about {}", names.join(", ")));
        }
        Decision::certain(Action::LOCAL, "local_good_enough", "a text turn that fits the local model")
    }
}

/// The views that came with the request; else those whose name is in the text; else, if the text is about looking,
/// all that have something to send.
fn views_in_question(observation: &Observation) -> ViewSet {
    let views = &observation.context.views;
    let set = |keep: &dyn Fn(usize) -> bool| {
        (0..views.len()).filter(|&v| keep(v)).fold(ViewSet::EMPTY, |set, view| set.with(view))
    };
    let asked = views_asked_for(observation);
    if asked.is_empty() && words(&observation.text).any(|word| LOOKING.contains(&word)) {
        return set(&|v| views[v].encoded_bytes.value().is_some());
    }
    asked
}

/// The views that came with the request; else those whose name is in the text. Allocates nothing.
pub fn views_asked_for(observation: &Observation) -> ViewSet {
    let views = &observation.context.views;
    let set = |keep: &dyn Fn(usize) -> bool| {
        (0..views.len()).filter(|&v| keep(v)).fold(ViewSet::EMPTY, |set, view| set.with(view))
    };
    let attached = set(&|v| views[v].attached);
    if !attached.is_empty() {
        return attached;
    }
    set(&|v| words(&observation.text).any(|word| word.eq_ignore_ascii_case(views[v].name.as_str())))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
}
