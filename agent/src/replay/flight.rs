//! One policy through one mission: the state machine.

use super::arrivals::{Arrival, arrivals};
use super::contender::Contender;
use super::mission::{Mission, satisfaction};
use super::record::{answered, begin};
use super::tally::{Outcome, Tally, Worth};
use super::truth::{Done, Truth};
use crate::budget::{Asked, Priced, uplink_within};
use crate::features::{Known, candidates, observe, past_turn};
use crate::image_codec::EncodeOptions;
use crate::pace::{Answered, Counted, Pace};
use crate::permit::{self, Means, permitted};
use crate::record::refusal;
use crate::store::{Settling, ratings};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_policies::budget::{Accounts, Amounts, Charge, Reservation, Resource, cost, counts};
use tether_policies::link::{LinkEstimator, Sample};
use tether_policies::ratings::Ratings;
use tether_policies::tmo::data::Turn;
use tether_policies::tmo::honest::hardware::{ANSWER_TOKENS, PROMPT_TOKENS};
use tether_policies::tmo::honest::link::IMAGE_BYTES;
use tether_policies::tmo::honest::moment::refused;
use tether_policies::tmo::paper::Weights;
use tether_policies::upload::{Sizes, predicted};
use tether_policies::{Candidate, Decision, Observation, PastTurn, Permitted};
use tether_protocol::api::RouteChoice;
use tether_protocol::context::{Battery, Link, LinkState, Load, ViewContext};
use tether_protocol::record::{SentPicture, Upload, Usage};
use tether_protocol::{Action, Context, Cost, Reading, Route, TurnRecord, ViewSet};

/// Virtual time begins at a midnight (2026-01-01, UTC), so that windows of hours and days begin with the mission.
pub const EPOCH_MS: i64 = 1_767_225_600_000;
/// A link that is down is tried again after so long.
const RETRY_S: f64 = 10.0;
/// Pictures differ: their bytes lie so far around the prediction, evenly.
const BYTES_SPREAD: f64 = 0.1;
/// Everything may be chosen from.
const ANY: permit::Asked<'static> = permit::Asked { route: RouteChoice::Auto, views: None, local_only: None };

/// A turn for a ledger: its record, and what it cost the budgets.
pub type Flown = (TurnRecord, Settling);

/// Flies `contender` through `mission`. The trace begins at a moment that the seed decides, and loops. `keep` is handed
/// every turn as the ledger would hold it.
///
/// # Errors
/// What `keep` returns.
pub fn fly<E>(
    mission: &Mission,
    contender: &Contender,
    trace_name: &str,
    seed: u64,
    keep: &mut dyn FnMut(Flown) -> Result<(), E>,
) -> Result<Outcome, E> {
    let lengths: Vec<usize> = mission.data.dialogues.iter().map(|dialogue| dialogue.turns.len()).collect();
    let arrivals = arrivals(&lengths, mission.end_s(), mission.turns_per_hour, seed);
    let offset_s = ChaCha8Rng::seed_from_u64(seed ^ 0x7ace).random_range(0.0..mission.trace.duration_s());
    let mut flight = Flight::new(mission, contender, offset_s);
    let mut tally = Tally::new(EPOCH_MS, mission.length_ms(), &mission.settings.budgets);
    for arrival in &arrivals {
        let Some((record, charges, worth)) = flight.turn(arrival) else {
            tally.unserved(at_ms(arrival.at_s), unanswered());
            continue;
        };
        let at_s = arrival.at_s + offset_s;
        tally.turn(&record, Some(worth), Some(mission.trace.up_bits_per_s(at_s) / 1e6));
        keep((record, Settling { charges, ..Settling::default() }))?;
    }
    flight.idle_until(mission.end_s());
    let mut outcome = tally.end(Some(flight.battery_percent()));
    outcome.policy = contender.name.clone();
    outcome.trace = trace_name.to_owned();
    outcome.seed = seed;
    outcome.caps_exceeded += flight.caps_exceeded;
    Ok(outcome)
}

struct Flight<'a> {
    mission: &'a Mission,
    contender: &'a Contender,
    accounts: Accounts,
    link: LinkEstimator,
    failed_s: f64,
    pace: Pace,
    sizes: Sizes,
    offset_s: f64,
    battery_j: f64,
    /// The battery is drawn up to here.
    drawn_s: f64,
    history: Vec<PastTurn>,
    ratings: Arc<Ratings>,
    caps_exceeded: u64,
    /// Virtual time counts from here where instants are compared.
    begun: Instant,
}

/// What was known and what was left, and the decision.
struct Decided {
    observation: Observation,
    remaining: BTreeMap<String, f64>,
    /// `None`: nothing fits the budgets.
    held: Option<Held>,
}

/// A decision with what holds its cost.
struct Held {
    decision: Decision,
    permitted: Permitted,
    reservation: Reservation,
    /// What the device's own answer would reserve, where it may answer.
    local: Option<Amounts>,
}

impl<'a> Flight<'a> {
    fn new(mission: &'a Mission, contender: &'a Contender, offset_s: f64) -> Self {
        Self {
            mission,
            contender,
            accounts: Accounts::new(&mission.settings.budgets, &BTreeMap::new(), EPOCH_MS),
            link: LinkEstimator::default(),
            failed_s: f64::NEG_INFINITY,
            pace: Pace::default(),
            sizes: mission.sizes.clone(),
            offset_s,
            battery_j: mission.robot.battery_j,
            drawn_s: 0.0,
            history: Vec::new(),
            ratings: Arc::default(),
            caps_exceeded: 0,
            begun: Instant::now(),
        }
    }

    /// The turn's record, what it cost the budgets, and what it earned; `None`: the battery is empty.
    fn turn(&mut self, arrival: &Arrival) -> Option<(TurnRecord, Vec<Charge>, Worth)> {
        let (now_s, now_ms) = (arrival.at_s, at_ms(arrival.at_s));
        let turn = &self.mission.data.dialogues[arrival.dialogue].turns[arrival.turn];
        if arrival.turn == 0 {
            self.history.clear();
        }
        self.idle_until(now_s);
        if self.battery_j <= 0.0 {
            return None;
        }
        let Decided { observation, remaining, held } = self.decide(now_s, turn, arrival.seed);
        let policy = self.contender.policy.name();
        let begin = |decision: &Decision, candidates: &[Candidate]| {
            begin(arrival, now_ms, policy, &observation, remaining, decision, candidates)
        };
        let (record, charges, worth) = match held {
            None => {
                let none = Decision::certain(Action::LOCAL, "budget_exhausted", "no action fits the budgets");
                let outcome = refusal(&observation.considered, None);
                return Some((TurnRecord { outcome, ..begin(&none, &[]) }, Vec::new(), unanswered()));
            }
            Some(held) => {
                let record = begin(&held.decision, held.permitted.candidates());
                self.execute(arrival, turn, &observation, held, record)
            }
        };
        self.history.push(past_turn(&record, &self.mission.space));
        ratings::add(Arc::make_mut(&mut self.ratings), &record);
        Some((record, charges, worth))
    }

    fn idle_until(&mut self, now_s: f64) {
        let passed_s = (now_s - self.drawn_s).max(0.0);
        self.battery_j = (self.battery_j - self.mission.robot.idle_w() * passed_s).max(0.0);
        self.drawn_s = self.drawn_s.max(now_s);
    }

    fn battery_percent(&self) -> f64 {
        100.0 * self.battery_j / self.mission.robot.battery_j
    }

    fn context(&self, now_s: f64, association: &[f64]) -> Context {
        let robot = &self.mission.robot;
        let battery = Battery {
            percent: self.battery_percent(),
            on_ac: false,
            power_w: Some(robot.idle_w()),
            energy_j: Some(self.battery_j),
        };
        let interval = self.link.interval_bits_per_s(now_s);
        let link = Link {
            rtt_ms: self.link.rtt_ms(),
            uplink_bits_per_s: self.link.bits_per_s(),
            uplink_low_bits_per_s: interval.map(|(low, _)| low),
            uplink_high_bits_per_s: interval.map(|(_, high)| high),
            ..Link::in_state(self.link.state())
        };
        let rate = |prompt: f64, answer: f64| Some(1.0 / robot.hardware.local_s(prompt, answer));
        let load = Load { queue: 0, prefill_tokens_per_s: rate(1.0, 0.0), decode_tokens_per_s: rate(0.0, 1.0) };
        let views = self.mission.space.views().iter().zip(association).map(|(name, &association)| ViewContext {
            name: name.clone(),
            encoded_bytes: Reading::known(IMAGE_BYTES as u64, 0, "replay"),
            attached: false,
            is_text: false,
            local_only: false,
            association: Some(association),
        });
        let age_ms = self.link.age_s(now_s).map(|age_s| (age_s * 1e3) as u64);
        Context {
            battery: Reading::known(battery, 0, "replay"),
            link: age_ms.map_or_else(
                || Reading::unknown("nothing was sent yet"),
                |age_ms| Reading::known(link, age_ms, "replay"),
            ),
            load: Reading::known(load, 0, "replay"),
            views: views.collect(),
            ..Context::default()
        }
    }

    /// The daemon's stages (`turn.rs`, `turn/afford.rs`) one after another: permit, predict, see what the budgets allow,
    /// let the policy choose, and reserve.
    fn decide(&mut self, now_s: f64, turn: &Turn, seed: u64) -> Decided {
        let (Mission { space, settings, .. }, now_ms) = (self.mission, at_ms(now_s));
        let context = self.context(now_s, &turn.association);
        let means = Means {
            local: Ok(()),
            cloud: Ok(()),
            link_down: self.link.state() == LinkState::Down && now_s - self.failed_s < RETRY_S,
            pictures: Ok(()),
        };
        let actions = permitted(space, &context.views, ANY, means).unwrap_or_default();
        self.accounts.roll(now_ms);
        self.sizes.bounds.uplink_bytes = self.accounts.left(Resource::UplinkBytes).map(uplink_within);
        let known = Known {
            space,
            context,
            past: &self.history,
            task: Some(self.mission.data.tasks[turn.task].clone()),
            text: "",
            prompt_tokens: Some(PROMPT_TOKENS as u32),
            travelling_text_bytes: self.sizes.text_bytes,
            local_context_tokens: None,
            max_tokens: ANSWER_TOKENS as u32,
            deadline_ms: None,
            prices: settings.prices,
            image_tokens: settings.image_tokens,
            pace: self.pace,
            ratings: self.ratings.clone(),
            sizes: Some(&self.sizes),
            power_w: (settings.energy.local_power_w, settings.energy.cloud_power_w),
        };
        let mut observation = observe(&known);
        let Ok(permitted) = Permitted::new(candidates(&known, &observation, &actions)) else {
            return Decided { observation, remaining: self.accounts.remaining(), held: None };
        };
        observation.considered = permitted.candidates().to_vec();
        let asked = Asked {
            settings,
            load: observation.context.load.value(),
            prompt_tokens: observation.prompt_tokens,
            max_tokens: observation.max_tokens,
            text_bytes: self.sizes.text_bytes,
            // A question and its answer each.
            messages: 2 * self.history.len() as u64 + 1,
        };
        let priced = Priced::new(&asked, &self.accounts, &observation, permitted);
        let battery_percent = Some(self.battery_percent());
        let offer = self.accounts.offer(now_ms, priced.most(), battery_percent, self.contender.paced);
        observation.prices = offer.prices.clone();
        observation.remaining = cost(&offer.left);
        let held = priced.choice(&offer, true).and_then(|permitted| {
            let mut decision = self.contender.policy.decide(&observation, &permitted, seed);
            let amounts = priced.most_of(decision.action);
            let reservation = self.accounts.reserve(now_ms, amounts, battery_percent).ok()?;
            priced.explain(&offer, &permitted, false, &mut decision);
            let local = permitted.contains(Action::LOCAL).then(|| priced.most_of(Action::LOCAL));
            Some(Held { decision, permitted, reservation, local })
        });
        Decided { observation, remaining: offer.remaining, held }
    }

    /// What comes of the decision: the record's end, what it cost the budgets, and what it earned.
    fn execute(
        &mut self,
        arrival: &Arrival,
        turn: &Turn,
        observation: &Observation,
        mut held: Held,
        mut record: TurnRecord,
    ) -> (TurnRecord, Vec<Charge>, Worth) {
        let mission = self.mission;
        let (action, link) = (record.action, observation.context.link.value());
        let sent = mission.space.sent(action);
        let mut chance = ChaCha8Rng::seed_from_u64(arrival.seed);
        let spread = 1.0 + chance.random_range(-BYTES_SPREAD..BYTES_SPREAD);
        let is_rated = chance.random_bool(mission.rated_share);
        let uplink_bytes = |views: usize| {
            let some = (0..views).fold(ViewSet::EMPTY, ViewSet::with);
            (self.sizes.form(some, link).uplink_bytes as f64 * spread) as u64
        };
        let judge = mission.judge(arrival.dialogue);
        let truth = Truth::new(mission, &judge.model, turn, arrival.at_s + self.offset_s, uplink_bytes);
        let done = truth.done(usize::from(action.0));
        if action.route() == Route::Cloud {
            record.views = mission.space.names(sent);
            let measured_ms = truth.upload_s(sent.len()).map(|upload_s| upload_s * 1e3 + truth.rtt_ms);
            record.upload = Some(Upload { measured_ms, ..self.upload(sent, link, spread) });
        }
        let mut is_answered = true;
        if done.route != action.route() {
            is_answered = self.fall_back(arrival.at_s + truth.patience_s, &mut held);
            if is_answered {
                record.route = Route::Local;
                record.fallback = Some("the cloud was not reached in time".to_owned());
            }
        }
        record.measured = if is_answered { done.cost } else { truth.wasted(&done) };
        record.reserved = Some(held.reservation.amounts().cost());
        let charges = self.settle(arrival.at_s, held.reservation, &record.measured);
        if is_answered {
            answered(&mut record, &done);
            record.rating = is_rated.then(|| judge.rating(done.response, &mut chance));
        }
        self.learn(arrival.at_s, &truth, &record);
        (record, charges, if is_answered { Worth::from(&done) } else { unanswered() })
    }

    /// The pictures as they travel.
    fn upload(&self, sent: ViewSet, link: Option<&Link>, spread: f64) -> Upload {
        let form = self.sizes.form(sent, link);
        let EncodeOptions { max_side_px, jpeg_quality } = self.mission.ladder[form.rung];
        let pictures = sent.iter().map(|view| {
            let estimated_bytes = self.sizes.picture_bytes(view, form.rung);
            let bytes = (estimated_bytes as f64 * spread) as u64;
            let view = self.mission.space.views()[view].clone();
            SentPicture { view, max_side_px, jpeg_quality, estimated_bytes, bytes }
        });
        Upload { pictures: pictures.collect(), ..predicted(link, form.uplink_bytes) }
    }

    /// As in the daemon, the device's side is reserved when the cloud was not reached, because what was sent may be due all
    /// the same. Says whether the device may answer.
    fn fall_back(&mut self, now_s: f64, held: &mut Held) -> bool {
        let battery_percent = Some(self.battery_percent());
        let reserve = |local| self.accounts.reserve(at_ms(now_s), local, battery_percent).ok();
        let reservation = held.local.and_then(reserve);
        let is_held = reservation.is_some();
        reservation.into_iter().for_each(|reservation| held.reservation.join(reservation));
        is_held
    }

    /// What the turn told about the link and about how both sides answer.
    fn learn(&mut self, now_s: f64, truth: &Truth<'_>, record: &TurnRecord) {
        let now = self.begun + Duration::from_secs_f64(now_s);
        let Usage { prompt_tokens, completion_tokens: answer_tokens } = record.usage;
        if record.route == Route::Local && answer_tokens > 0 {
            self.pace.local_answered(answer_tokens);
        }
        let (Some(upload), is_reached) = (&record.upload, record.route == Route::Cloud && answer_tokens > 0) else {
            return;
        };
        let views = record.views.len();
        match truth.upload_s(views).filter(|_| is_reached) {
            Some(seconds) => {
                let bytes = record.measured.uplink_bytes.unwrap_or(0);
                self.link.sent(Sample { at_s: now_s, bytes, seconds: seconds.max(1e-6), app_limited: false });
                self.link.round_trip(truth.rtt_ms);
                // The published times are those of whole answers.
                let total_ms = record.measured.latency_ms.unwrap_or(0.0);
                let answered = Answered {
                    upload_ms: upload.measured_ms.unwrap_or(0.0),
                    first_token_ms: total_ms,
                    total_ms,
                    estimated_tokens: prompt_tokens,
                    images: views as u32,
                    counted: Some(Counted { prompt_tokens, answer_tokens, cost_usd: record.measured.cost_usd }),
                };
                self.pace.cloud_answered(&answered, now);
            }
            None => {
                self.link.failed();
                // A connection that is lost needs no second failure to count as down. (A link that is too slow says nothing of
                // how long the cloud's models take.)
                if truth.path_died() {
                    self.link.failed();
                }
                self.failed_s = now_s;
            }
        }
    }

    fn settle(&mut self, now_s: f64, reservation: Reservation, cost: &Cost) -> Vec<Charge> {
        let latency_s = cost.latency_ms.unwrap_or(0.0) / 1e3;
        let settled = self.accounts.settle(at_ms(now_s + latency_s), reservation, counts(cost));
        let is_over = settled.over != Amounts::ZERO
            || self.accounts.accounts().iter().any(|account| account.held() > account.budget.cap);
        self.caps_exceeded += u64::from(is_over);
        // Beyond what idling draws anyway.
        let above_idle_j = cost.energy_j.unwrap_or(0.0) - self.mission.robot.idle_w() * latency_s;
        self.battery_j = (self.battery_j - above_idle_j.max(0.0)).max(0.0);
        settled.charges
    }
}

fn at_ms(virtual_s: f64) -> i64 {
    EPOCH_MS + (virtual_s * 1e3) as i64
}

impl From<&Done> for Worth {
    fn from(done: &Done) -> Worth {
        Worth { reward: done.reward, rating: satisfaction(done.response) }
    }
}

/// What a turn is worth that nobody answers.
fn unanswered() -> Worth {
    Worth { reward: refused(&Weights::default()), rating: 0.0 }
}
