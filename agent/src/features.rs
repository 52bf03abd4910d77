//! What a policy sees of a turn, and what each action would cost. Pure.

use crate::config::TokenPrices;
use crate::pace::{Pace, upload_ms};
use std::sync::Arc;
use tether_policies::budget::Prices;
use tether_policies::ratings::Ratings;
use tether_policies::upload::Sizes;
use tether_policies::{Candidate, Observation, PastTurn};
use tether_protocol::{Action, ActionSpace, Context, Cost, Route, TurnRecord, ViewSet};

/// Bytes of a token of English, for text that no local tokenizer has seen.
const BYTES_PER_TOKEN: u64 = 4;

/// What is known before the decision, gathered by the earlier stages.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    pub space: &'a ActionSpace,
    pub context: Context,
    /// Settled turns of this dialogue, oldest first.
    pub past: &'a [PastTurn],
    pub task: Option<String>,
    /// The newest user message.
    pub text: &'a str,
    /// Counted by the local model's tokenizer, if there is one.
    pub prompt_tokens: Option<u32>,
    /// Text that would travel with a cloud turn.
    pub travelling_text_bytes: u64,
    pub local_context_tokens: Option<u32>,
    pub max_tokens: u32,
    pub deadline_ms: Option<u64>,
    /// Where the cloud's prices are configured.
    pub prices: Option<TokenPrices>,
    /// Tokens that a picture is taken to count for until the cloud has counted one.
    pub image_tokens: u32,
    /// How both sides have answered lately.
    pub pace: Pace,
    /// What people said of earlier answers.
    pub ratings: Arc<Ratings>,
    /// What would travel; `None`: there is no cloud.
    pub sizes: Option<&'a Sizes>,
    /// W of the local model and of a cloud turn, where they are configured.
    pub power_w: (Option<f64>, Option<f64>),
}

/// What a policy sees of an earlier turn. What an attempt sent that came to nothing told the answer nothing.
pub fn past_turn(turn: &TurnRecord, space: &ActionSpace) -> PastTurn {
    let views = if turn.route == Route::Cloud { turn.view_set(space) } else { ViewSet::EMPTY };
    PastTurn { route: turn.route, views, task: turn.task.clone() }
}

pub fn observe(known: &Known<'_>) -> Observation {
    Observation {
        space: known.space.clone(),
        history: known.past.to_vec(),
        task: known.task.clone(),
        text: known.text.to_lowercase(),
        prompt_tokens: known.prompt_tokens.unwrap_or_else(|| estimated_tokens(known.travelling_text_bytes)),
        local_context_tokens: known.local_context_tokens,
        max_tokens: known.max_tokens,
        context: known.context.clone(),
        remaining: Cost::default(),
        prices: Prices::default(),
        ratings: known.ratings.clone(),
        considered: Vec::new(),
        turns_left: None,
        deadline_ms: known.deadline_ms,
    }
}

/// Each permitted action with its predicted cost.
pub fn candidates(known: &Known<'_>, observation: &Observation, permitted: &[Action]) -> Vec<Candidate> {
    let predict = |&action: &Action| match action.route() {
        Route::Local => Candidate { action, predicted: local_cost(known, observation) },
        Route::Cloud => Candidate { action, predicted: cloud_cost(known, observation, action) },
    };
    permitted.iter().map(predict).collect()
}

/// Unknown until the model's rates have been measured. Waiting is not in it beyond one expected answer for each
/// job in the queue, because nobody knows how long the others' answers get.
fn local_cost(known: &Known<'_>, observation: &Observation) -> Cost {
    let answer_tokens = known.pace.answer_tokens(Route::Local, observation.max_tokens);
    let seconds = observation.context.load.value().and_then(|load| {
        let decode_s = answer_tokens / load.decode_tokens_per_s?;
        let prefill_s = f64::from(observation.prompt_tokens) / load.prefill_tokens_per_s?;
        Some((prefill_s, decode_s, f64::from(load.queue)))
    });
    Cost {
        latency_ms: seconds.map(|(prefill_s, decode_s, queue)| (prefill_s + decode_s * (1.0 + queue)) * 1e3),
        cost_usd: Some(0.0),
        // Waiting for others' answers is theirs.
        energy_j: seconds
            .zip(known.power_w.0)
            .map(|((prefill_s, decode_s, _), power_w)| power_w * (prefill_s + decode_s)),
        uplink_bytes: Some(0),
        downlink_bytes: Some(0),
    }
}

/// Bytes are predicted from the encoded sizes and what the wire adds, latency from the link and from earlier answers; USD
/// from the configured prices or, where there are none, from what earlier answers cost; energy as power over that time.
fn cloud_cost(known: &Known<'_>, observation: &Observation, action: Action) -> Cost {
    let pace = &known.pace;
    let answer_tokens = pace.answer_tokens(Route::Cloud, observation.max_tokens);
    let views = observation.space.sent(action);
    let has_size = |view: usize| observation.context.views[view].encoded_bytes.value().is_some();
    let link = observation.context.link.value();
    let sizes = known.sizes.filter(|_| views.iter().all(has_size));
    let uplink_bytes = sizes.map(|sizes| sizes.form(views, link).uplink_bytes);
    let images = observation.images(action);
    let prompt_tokens = pace.prompt_tokens(observation.prompt_tokens, images, known.image_tokens);
    let usd = |prices: TokenPrices| {
        let tokens = prices.prompt * prompt_tokens + prices.completion * answer_tokens;
        tokens + prices.request + prices.image * f64::from(images)
    };
    let latency_ms =
        uplink_bytes.and_then(|bytes| pace.cloud_latency_ms(upload_ms(link, bytes), images, answer_tokens));
    Cost {
        latency_ms,
        cost_usd: known.prices.map(usd).or_else(|| pace.cost_usd(prompt_tokens + answer_tokens)),
        energy_j: latency_ms.zip(known.power_w.1).map(|(latency_ms, power_w)| power_w * latency_ms / 1e3),
        uplink_bytes,
        downlink_bytes: sizes
            .zip(uplink_bytes)
            .map(|(sizes, bytes)| sizes.wire.downlink_bytes(answer_tokens.round() as u32, bytes)),
    }
}

fn estimated_tokens(bytes: u64) -> u32 {
    u32::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::{Answered, Counted};
    use tether_policies::encoding::Bounds;
    use tether_policies::wire::Wire;
    use tether_protocol::context::{Link, LinkState, Load, ViewContext};
    use tether_protocol::{Reading, ViewName, ViewSet};

    /// 2,000 bytes of text and two pictures of 10,000 (5,000 in a smaller form) over HTTP, which makes them a third larger.
    fn sizes() -> Sizes {
        Sizes {
            text_bytes: 2_000,
            view_bytes: vec![0, 0],
            pictures: vec![vec![9_000, 4_500]; 2],
            wire: Wire::Http,
            bounds: Bounds { upload_ms: 1_000.0, uplink_bytes: None },
        }
    }

    fn known<'a>(space: &'a ActionSpace, sizes: &'a Sizes) -> Known<'a> {
        let views = space.views().iter().map(|name| ViewContext {
            is_text: false,
            name: name.clone(),
            encoded_bytes: Reading::known(10_000, 5, "encoded"),
            attached: false,
            local_only: false,
            association: None,
        });
        let load = Load { queue: 1, prefill_tokens_per_s: Some(1_000.0), decode_tokens_per_s: Some(50.0) };
        Known {
            space,
            context: Context { load: Reading::known(load, 0, "worker"), views: views.collect(), ..Context::default() },
            past: &[],
            task: None,
            text: "What do you SEE?",
            prompt_tokens: Some(500),
            travelling_text_bytes: 2_000,
            local_context_tokens: Some(2_048),
            max_tokens: 100,
            deadline_ms: None,
            prices: Some(TokenPrices { prompt: 1e-6, completion: 2e-6, request: 1e-5, image: 2e-5 }),
            image_tokens: 250,
            pace: Pace::default(),
            ratings: Arc::default(),
            sizes: Some(sizes),
            power_w: (Some(10.0), Some(3.0)),
        }
    }

    fn space() -> ActionSpace {
        ActionSpace::new(["front", "side"].map(|name| ViewName::new(name).unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn costs_follow_the_measured_rates_and_the_encoded_sizes() {
        let space = space();
        let sizes = sizes();
        let mut known = known(&space, &sizes);
        let observation = observe(&known);
        assert_eq!(observation.text, "what do you see?");
        let both = space.cloud(ViewSet(3));
        let candidates = candidates(&known, &observation, &[Action::LOCAL, both]);
        // 500 prompt tokens at 1000/s, then two answers of 100 tokens at 50/s: 0.5 s + 4 s.
        assert_eq!(candidates[0].predicted.latency_ms, Some(4_500.0));
        assert_eq!(candidates[0].predicted.uplink_bytes, Some(0));
        assert_eq!(candidates[0].predicted.energy_j, Some(25.0));
        assert_eq!(candidates[1].predicted.uplink_bytes, Some(26_512));
        // 500 of text and two pictures of 250, 100 of the answer, one request, two pictures.
        assert!((candidates[1].predicted.cost_usd.unwrap() - (1e-3 + 2e-4 + 5e-5)).abs() < 1e-12);
        assert_eq!((candidates[1].predicted.latency_ms, candidates[1].predicted.energy_j), (None, None));
        // 26,512 bytes at 150 kbit/s take 1.4 s, which is too long.
        let slow = Link { rtt_ms: Some(0.0), uplink_bits_per_s: Some(150e3), ..Link::in_state(LinkState::Up) };
        known.context.link = Reading::known(slow, 0, "test");
        let smaller = super::candidates(&known, &observe(&known), &[both]);
        assert_eq!(smaller[0].predicted.uplink_bytes, Some(2_000 + 12_000 + 512));
    }

    #[test]
    fn an_earlier_answer_of_the_cloud_predicts_latency_energy_and_usd() {
        let space = space();
        let sizes = sizes();
        let mut known = known(&space, &sizes);
        known.prices = None;
        let counted = Counted { prompt_tokens: 500, answer_tokens: 100, cost_usd: Some(6e-4) };
        let answered = Answered {
            upload_ms: 0.0,
            first_token_ms: 200.0,
            total_ms: 200.0 + 99.0 * 10.0,
            estimated_tokens: 500,
            images: 0,
            counted: Some(counted),
        };
        known.pace.cloud_answered(&answered, std::time::Instant::now());
        let observation = observe(&known);
        let predicted = candidates(&known, &observation, &[space.cloud(ViewSet::EMPTY)])[0].predicted;
        assert_eq!((predicted.latency_ms, predicted.energy_j), (Some(1_190.0), Some(3.0 * 1.19)));
        assert!((predicted.cost_usd.unwrap() - 6e-4).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_measured_is_unknown() {
        let space = space();
        let sizes = sizes();
        let mut known = known(&space, &sizes);
        known.context.load = Reading::unknown("no local model");
        known.context.views[1].encoded_bytes = Reading::unknown("no frame");
        known.prompt_tokens = None;
        let observation = observe(&known);
        assert_eq!(observation.prompt_tokens, 500);
        let actions = [Action::LOCAL, space.cloud(ViewSet(2))];
        let candidates = candidates(&known, &observation, &actions);
        assert_eq!(candidates[0].predicted.latency_ms, None);
        assert_eq!(candidates[1].predicted.uplink_bytes, None);
    }
}
