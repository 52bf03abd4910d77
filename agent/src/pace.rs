//! How the two sides have answered lately, to predict what the next answer takes and costs. Pure: time is an argument.
//!
//! `cloud latency = upload + wait + (tokens - 1) x time per token`
//!
//! Wait, time per token, length, price and the tokens of a picture are running means over earlier answers; each is
//! unknown until it was seen once. The wait depends on how many pictures a model has to look at, so each number of them
//! has its own; one that was never sent is taken to relate to the nearest that was (of two, to that of fewer pictures) as
//! TMO's whole answers over a wire do ([`NETWORKS`]). The upload is the link's business ([`upload_ms`]). Which of a
//! gateway's models answers is its own choice, so the means are over all of them.

use std::time::{Duration, Instant};
use tether_policies::link::send_time;
use tether_policies::tmo::paper::{NETWORKS, VIEWS};
use tether_protocol::Route;
use tether_protocol::context::Link;

/// Least weight of a new observation, as TCP's of a round trip (RFC 6298): about the last eight answers count.
const LEAST_WEIGHT: f64 = 1.0 / 8.0;
/// Tokens that an answer is taken to have before the first one was seen. A guess: a few sentences.
const EXPECTED_ANSWER_TOKENS: f64 = 128.0;
/// Numbers of pictures with a wait of their own: 0 to 2, and 3 or more.
const COUNTS: usize = VIEWS + 1;
/// Without an answer for so long, what was measured of the wait is no ground for not asking: a cold start is over then.
pub const FRESH: Duration = Duration::from_secs(60);

/// One complete answer of the cloud.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answered {
    /// What the link took for the request, or was predicted to take.
    pub upload_ms: f64,
    /// From sending to the first token.
    pub first_token_ms: f64,
    /// From sending to the end.
    pub total_ms: f64,
    /// The text's tokens as they were estimated before the turn.
    pub estimated_tokens: u32,
    pub images: u32,
    /// As the cloud counted them; `None`: it did not.
    pub counted: Option<Counted>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    pub prompt_tokens: u32,
    pub answer_tokens: u32,
    pub cost_usd: Option<f64>,
}

/// Running estimates.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    waits: [Wait; COUNTS],
    per_token_ms: Mean,
    /// By route: local, cloud.
    answer_tokens: [Mean; 2],
    per_token_usd: Mean,
    /// The cloud's count of a text over our estimate.
    tokens_ratio: Mean,
    image_tokens: Mean,
}

/// From the end of the upload to the first token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Wait {
    ms: Mean,
    newest: Option<Instant>,
    /// What was known before somebody waited in vain, until an answer comes.
    before: Option<Mean>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Mean {
    value: f64,
    count: u32,
}

impl Mean {
    fn observe(&mut self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.count = self.count.saturating_add(1);
        self.value += (1.0 / f64::from(self.count)).max(LEAST_WEIGHT) * (value - self.value);
    }

    fn get(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }
}

impl Pace {
    /// Learns from an answer of the cloud.
    pub fn cloud_answered(&mut self, answered: &Answered, now: Instant) {
        // The cloud is quick again, maybe: who waited in vain with another number of pictures, some time ago, says no more.
        for wait in &mut self.waits {
            let stale = wait.newest.is_none_or(|newest| now.saturating_duration_since(newest) >= FRESH);
            if let Some(before) = wait.before.take_if(|_| stale) {
                wait.ms = before;
            }
        }
        let wait = &mut self.waits[place(answered.images)];
        wait.ms.observe((answered.first_token_ms - answered.upload_ms).max(0.0));
        (wait.newest, wait.before) = (Some(now), None);
        let Some(Counted { prompt_tokens, answer_tokens, cost_usd }) = answered.counted else { return };
        self.answer_tokens[1].observe(f64::from(answer_tokens));
        // The first token is in the wait.
        if answer_tokens > 1 {
            let rest_ms = answered.total_ms - answered.first_token_ms;
            self.per_token_ms.observe(rest_ms / f64::from(answer_tokens - 1));
        }
        let tokens = f64::from(prompt_tokens) + f64::from(answer_tokens);
        if let Some(cost_usd) = cost_usd
            && tokens > 0.0
        {
            self.per_token_usd.observe(cost_usd / tokens);
        }
        let estimated = f64::from(answered.estimated_tokens);
        if answered.images == 0 && estimated > 0.0 {
            self.tokens_ratio.observe(f64::from(prompt_tokens) / estimated);
        } else if answered.images > 0 {
            let text = estimated * self.tokens_ratio.get().unwrap_or(1.0);
            self.image_tokens.observe((f64::from(prompt_tokens) - text).max(0.0) / f64::from(answered.images));
        }
    }

    /// Nobody waited any longer for the first token, after the upload: it takes at least so long.
    pub fn cloud_kept_waiting(&mut self, waited_ms: f64, images: u32, now: Instant) {
        let is_news = self.wait_ms(images).is_none_or(|known_ms| waited_ms > known_ms);
        let wait = &mut self.waits[place(images)];
        if is_news {
            wait.before.get_or_insert(wait.ms);
            wait.ms.observe(waited_ms);
        }
        wait.newest = Some(now);
    }

    /// The nearest number of pictures that was seen, with its wait.
    fn nearest(&self, images: u32) -> Option<(usize, &Wait)> {
        let seen = self.waits.iter().enumerate().filter(|(_, wait)| wait.ms.get().is_some());
        seen.min_by_key(|(count, _)| count.abs_diff(place(images)))
    }

    fn wait_ms(&self, images: u32) -> Option<f64> {
        let published_s = &NETWORKS[0].latency_s;
        let (count, wait) = self.nearest(images)?;
        Some(wait.ms.value * published_s[place(images)] / published_s[count])
    }

    pub fn local_answered(&mut self, answer_tokens: u32) {
        self.answer_tokens[0].observe(f64::from(answer_tokens));
    }

    /// Tokens that an answer will have.
    pub fn answer_tokens(&self, route: Route, max_tokens: u32) -> f64 {
        let seen = self.answer_tokens[usize::from(route == Route::Cloud)].get();
        seen.unwrap_or(EXPECTED_ANSWER_TOKENS).clamp(1.0, f64::from(max_tokens.max(1)))
    }

    /// From sending to the end; unknown before the first answer.
    pub fn cloud_latency_ms(&self, upload_ms: f64, images: u32, answer_tokens: f64) -> Option<f64> {
        // Answers of one token have taught no rate; then none is added.
        let answer_ms = self.per_token_ms.get().unwrap_or(0.0) * (answer_tokens - 1.0).max(0.0);
        Some(upload_ms + self.wait_ms(images)? + answer_ms)
    }

    /// Whether the cloud's latency with so many pictures was measured lately.
    pub fn is_fresh(&self, images: u32, now: Instant) -> bool {
        let newest = self.nearest(images).and_then(|(_, wait)| wait.newest);
        newest.is_some_and(|newest| now.saturating_duration_since(newest) < FRESH)
    }

    /// What the cloud will count for a prompt. `assumed`: tokens of a picture before one was counted.
    pub fn prompt_tokens(&self, estimated_tokens: u32, images: u32, assumed: u32) -> f64 {
        let text = f64::from(estimated_tokens) * self.tokens_ratio.get().unwrap_or(1.0);
        text + f64::from(images) * self.image_tokens.get().unwrap_or(f64::from(assumed))
    }

    /// Where no prices are configured: what a token has cost so far, of prompts and answers alike.
    pub fn cost_usd(&self, tokens: f64) -> Option<f64> {
        Some(self.per_token_usd.get()? * tokens)
    }
}

/// Which wait is that of so many pictures.
fn place(images: u32) -> usize {
    (images as usize).min(COUNTS - 1)
}

/// What the link takes for a request of this size. Where its rate is not measured the upload is in the wait, whatever its
/// size.
pub fn upload_ms(link: Option<&Link>, uplink_bytes: u64) -> f64 {
    let Some(link) = link else { return 0.0 };
    match send_time(link, uplink_bytes) {
        Some(time) => time.median_s * 1e3,
        None => link.rtt_ms.unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A cloud that waits 300 ms, takes 20 ms and 1e-6 USD a token, counts 5 tokens for our 4, and 200 for a picture.
    fn answered(upload_ms: f64, images: u32, answer_tokens: u32) -> Answered {
        let first_token_ms = upload_ms + 300.0;
        let prompt_tokens = 125 + 200 * images;
        let cost_usd = Some(1e-6 * f64::from(prompt_tokens + answer_tokens));
        Answered {
            upload_ms,
            first_token_ms,
            total_ms: first_token_ms + 20.0 * f64::from(answer_tokens - 1),
            estimated_tokens: 100,
            images,
            counted: Some(Counted { prompt_tokens, answer_tokens, cost_usd }),
        }
    }

    #[test]
    fn before_the_first_answer_nothing_is_known() {
        let pace = Pace::default();
        assert_eq!((pace.cloud_latency_ms(0.0, 0, 10.0), pace.cost_usd(10.0)), (None, None));
        assert_eq!(pace.answer_tokens(Route::Cloud, 40), 40.0);
        assert_eq!(pace.answer_tokens(Route::Local, 4_000), EXPECTED_ANSWER_TOKENS);
        assert_eq!(pace.prompt_tokens(100, 2, 1_000), 2_100.0);
        assert!(!pace.is_fresh(0, Instant::now()));
    }

    #[test]
    fn what_is_learned_on_one_link_predicts_another() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for tokens in [10, 40, 80, 20, 60, 30, 50, 70] {
            // The first one without a picture, which tells how the text counts.
            pace.cloud_answered(&answered(5.0, (tokens / 10 + 2) % 3, tokens), now);
        }
        // 1,080 ms of upload, 300 ms wait, 100 tokens at 20 ms.
        let predicted = pace.cloud_latency_ms(1_080.0, 1, 101.0).unwrap();
        assert!((predicted - (1_080.0 + 300.0 + 2_000.0)).abs() < 1.0, "{predicted}");
        assert!((pace.cost_usd(1_000.0).unwrap() - 1e-3).abs() < 1e-9);
        assert!((pace.prompt_tokens(100, 2, 1_000) - 525.0).abs() < 1e-6, "{}", pace.prompt_tokens(100, 2, 1_000));
        // Eight answers of 45 tokens in the mean.
        assert!((pace.answer_tokens(Route::Cloud, 500) - 45.0).abs() < 1e-9);
        assert_eq!(pace.answer_tokens(Route::Local, 500), EXPECTED_ANSWER_TOKENS);
    }

    #[test]
    fn a_cold_start_is_forgotten_and_does_not_bar_the_cloud_for_ever() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.cloud_answered(&Answered { first_token_ms: 30_000.0, ..answered(0.0, 0, 2) }, now);
        assert!(pace.cloud_latency_ms(0.0, 0, 1.0).unwrap() >= 30_000.0 && pace.is_fresh(0, now + FRESH / 2));
        assert!(!pace.is_fresh(0, now + FRESH));
        (0..30).for_each(|_| pace.cloud_answered(&answered(0.0, 0, 2), now));
        assert!(pace.cloud_latency_ms(0.0, 0, 1.0).unwrap() < 1_500.0);
    }

    #[test]
    fn each_number_of_pictures_has_its_own_wait() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let with = |images, wait_ms: f64| Answered { first_token_ms: wait_ms, ..answered(0.0, images, 1) };
        pace.cloud_answered(&with(0, 300.0), now);
        pace.cloud_answered(&with(3, 900.0), now + FRESH);
        let waits = [0, 1, 2, 3, 9].map(|images| pace.cloud_latency_ms(0.0, images, 1.0).unwrap());
        // One picture from none, two from three, as TMO measured them.
        let of = |seen_ms: f64, images: usize, seen: usize| {
            seen_ms * NETWORKS[0].latency_s[images] / NETWORKS[0].latency_s[seen]
        };
        assert_eq!(waits, [300.0, of(300.0, 1, 0), of(900.0, 2, 3), 900.0, 900.0]);
        assert!(!pace.is_fresh(0, now + FRESH) && pace.is_fresh(2, now + FRESH));
        pace.cloud_kept_waiting(5_000.0, 3, now);
        assert_eq!(pace.cloud_latency_ms(0.0, 0, 1.0), Some(300.0));
    }

    #[test]
    fn waiting_in_vain_raises_the_wait_and_never_lowers_it() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.cloud_kept_waiting(5_000.0, 0, now);
        assert_eq!(pace.cloud_latency_ms(0.0, 0, 100.0), Some(5_000.0));
        pace.cloud_kept_waiting(1_000.0, 0, now);
        assert_eq!(pace.cloud_latency_ms(0.0, 0, 100.0), Some(5_000.0));
    }

    #[test]
    fn one_bad_hour_with_two_pictures_is_forgotten_once_the_cloud_answers_with_one() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let wait_ms = |pace: &Pace| pace.cloud_latency_ms(0.0, 2, 1.0).unwrap();
        (0..3).for_each(|_| pace.cloud_answered(&answered(0.0, 2, 1), now));
        pace.cloud_kept_waiting(15_000.0, 2, now);
        pace.cloud_kept_waiting(15_000.0, 2, now);
        let slow_ms = wait_ms(&pace);
        pace.cloud_answered(&answered(0.0, 1, 1), now + FRESH / 2);
        assert!(slow_ms > 3_000.0 && wait_ms(&pace) == slow_ms);
        pace.cloud_answered(&answered(0.0, 1, 1), now + FRESH);
        assert_eq!(wait_ms(&pace), 300.0);
        // What was never answered follows the nearest again.
        pace.cloud_kept_waiting(15_000.0, 3, now + FRESH);
        pace.cloud_answered(&answered(0.0, 1, 1), now + 2 * FRESH);
        assert!(pace.cloud_latency_ms(0.0, 3, 1.0).unwrap() < 400.0);
    }

    #[test]
    fn tokens_that_nobody_counted_teach_no_price() {
        let mut pace = Pace::default();
        pace.cloud_answered(&Answered { counted: None, ..answered(0.0, 1, 9) }, Instant::now());
        assert_eq!(pace.cloud_latency_ms(0.0, 1, 9.0), Some(300.0));
        assert_eq!((pace.cost_usd(1.0), pace.prompt_tokens(10, 1, 700)), (None, 710.0));
    }

    proptest! {
        #[test]
        fn no_observation_makes_a_prediction_that_is_no_number(
            seen in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>(), any::<u32>(), any::<u32>(), 0u32..5), 1..20),
            max_tokens in any::<u32>(), upload_ms in 0.0f64..1e7,
        ) {
            let mut pace = Pace::default();
            for (upload_ms, first_token_ms, total_ms, prompt_tokens, answer_tokens, images) in seen {
                let counted = Some(Counted { prompt_tokens, answer_tokens, cost_usd: Some(total_ms) });
                let estimated_tokens = prompt_tokens / 2;
                let answered = Answered { upload_ms, first_token_ms, total_ms, estimated_tokens, images, counted };
                pace.cloud_answered(&answered, Instant::now());
            }
            let tokens = pace.answer_tokens(Route::Cloud, max_tokens);
            prop_assert!((1.0..=f64::from(max_tokens.max(1))).contains(&tokens), "{tokens}");
            let latency_ms = pace.cloud_latency_ms(upload_ms, 2, tokens);
            prop_assert!(latency_ms.is_none_or(|latency_ms| latency_ms >= 0.0), "{latency_ms:?}");
            prop_assert!(pace.prompt_tokens(10, 1, 10).is_finite());
        }
    }
}
