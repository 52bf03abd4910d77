//! One policy through one mission: the state machine.

use super::arrivals::{Arrival, arrivals};
use super::contender::Contender;
use super::mission::{Mission, satisfaction};
use super::record::{Chosen, record};
use super::tally::{Outcome, Tally, Worth};
use super::truth::{Done, PATIENCE_S, Truth, UNKNOWN_RTT_MS};
use crate::store::{Settling, ratings};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_policies::budget::{Accounts, Amounts, Charge, Prices, Reservation, Resource, counts};
use tether_policies::link::{LinkEstimator, Sample};
use tether_policies::ratings::Ratings;
use tether_policies::tmo::honest::hardware::{ANSWER_TOKENS, BYTES_PER_TOKEN, PROMPT_TOKENS};
use tether_policies::tmo::honest::link::{Costs, IMAGE_BYTES, Link as HonestLink};
use tether_policies::tmo::honest::moment::refused;
use tether_policies::tmo::paper::Weights;
use tether_policies::{Candidate, Observation, PastTurn, Permitted};
use tether_protocol::context::{Battery, Link, LinkState, Load, ViewContext};
use tether_protocol::{Action, Context, Cost, Reading, Route, TurnRecord};

/// Virtual time begins at a midnight (2026-01-01, UTC), so that windows of hours and days begin with the mission.
pub const EPOCH_MS: i64 = 1_767_225_600_000;
/// Taken for the uplink until a transfer has told: a slow LTE.
const UNKNOWN_BITS_PER_S: f64 = 2e6;
/// Below this a link is as good as down; nothing is divided by it.
const LEAST_MBPS: f64 = 0.01;
/// A link that is down is tried again after so long.
const RETRY_S: f64 = 10.0;
/// Held back over the prediction, as in the daemon (`budget/most.rs`).
const HEADROOM: f64 = 1.15;
/// Pictures differ: their bytes lie so far around the prediction, evenly.
const BYTES_SPREAD: f64 = 0.1;
const DOWNLINK_BYTES: u64 = (ANSWER_TOKENS * BYTES_PER_TOKEN) as u64;

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
    let mut tally = Tally::new(EPOCH_MS, mission.length_ms(), &mission.budgets);
    for arrival in &arrivals {
        let Some((record, charges, worth)) = flight.turn(arrival) else {
            tally.unserved(EPOCH_MS + (arrival.at_s * 1e3) as i64, unanswered());
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
    names: Vec<String>,
    link: LinkEstimator,
    failed_s: f64,
    offset_s: f64,
    battery_j: f64,
    /// The battery is drawn up to here.
    drawn_s: f64,
    history: Vec<PastTurn>,
    ratings: Arc<Ratings>,
    caps_exceeded: u64,
}

/// A decision with what holds its cost.
struct Held {
    chosen: Chosen,
    reservation: Reservation,
    /// Whether the device may answer if the cloud is not reached.
    may_fall_back: bool,
}

impl<'a> Flight<'a> {
    fn new(mission: &'a Mission, contender: &'a Contender, offset_s: f64) -> Self {
        Self {
            mission,
            contender,
            accounts: Accounts::new(&mission.budgets, &BTreeMap::new(), EPOCH_MS),
            names: mission.budgets.iter().map(|budget| budget.name.to_string()).collect(),
            link: LinkEstimator::default(),
            failed_s: f64::NEG_INFINITY,
            offset_s,
            battery_j: mission.robot.battery_j,
            drawn_s: 0.0,
            history: Vec::new(),
            ratings: Arc::default(),
            caps_exceeded: 0,
        }
    }

    /// The turn's record, what it cost the budgets, and what it earned; `None`: the battery is empty.
    fn turn(&mut self, arrival: &Arrival) -> Option<(TurnRecord, Vec<Charge>, Worth)> {
        let now_s = arrival.at_s;
        let now_ms = EPOCH_MS + (now_s * 1e3) as i64;
        let turn = &self.mission.data.dialogues[arrival.dialogue].turns[arrival.turn];
        if arrival.turn == 0 {
            self.history.clear();
        }
        self.idle_until(now_s);
        if self.battery_j <= 0.0 {
            return None;
        }
        self.accounts.roll(now_ms);
        let left = self.accounts.accounts().iter().map(|account| account.budget.name.resource.value(account.left()));
        let remaining = self.names.iter().cloned().zip(left).collect();
        let mut observation = self.observe(now_s, turn.task, &turn.association);
        let held = self.decide(now_s, now_ms, &mut observation, arrival.seed);
        let Some(Held { chosen, reservation, may_fall_back }) = held else {
            let record = record(arrival, now_ms, self.policy(), observation, remaining, None, None);
            self.remember(&record);
            return Some((record, Vec::new(), unanswered()));
        };
        let mut chance = ChaCha8Rng::seed_from_u64(arrival.seed);
        let spread = chance.random_range(-BYTES_SPREAD..BYTES_SPREAD);
        let is_rated = chance.random_bool(self.mission.rated_share);
        let judge = self.mission.judge(arrival.dialogue);
        let truth = Truth::new(self.mission, &judge.model, turn, DOWNLINK_BYTES, now_s + self.offset_s, spread);
        let action = chosen.decision.action;
        let place = usize::from(action.0);
        let done = truth.done(place, DOWNLINK_BYTES);
        self.learn(now_s, action, &truth);
        let is_answered = may_fall_back || done.route == action.route();
        let cost = if is_answered { done.cost } else { truth.wasted(place) };
        let charges = self.settle(now_s, reservation, &cost);
        let answer = is_answered.then_some(&done);
        let mut record = record(arrival, now_ms, self.policy(), observation, remaining, Some(&chosen), answer);
        record.measured = cost;
        record.rating = answer.filter(|_| is_rated).map(|done| judge.rating(done.response, &mut chance));
        self.remember(&record);
        Some((record, charges, answer.map_or_else(unanswered, Worth::from)))
    }

    fn policy(&self) -> &str {
        self.contender.policy.name()
    }

    fn remember(&mut self, record: &TurnRecord) {
        let views = record.view_set(&self.mission.space);
        self.history.push(PastTurn { route: record.route, views, task: record.task.clone() });
        ratings::add(Arc::make_mut(&mut self.ratings), record);
    }

    fn idle_until(&mut self, now_s: f64) {
        let passed_s = (now_s - self.drawn_s).max(0.0);
        self.battery_j = (self.battery_j - self.mission.robot.idle_w() * passed_s).max(0.0);
        self.drawn_s = self.drawn_s.max(now_s);
    }

    fn battery_percent(&self) -> f64 {
        100.0 * self.battery_j / self.mission.robot.battery_j
    }

    fn observe(&self, now_s: f64, task: usize, association: &[f64]) -> Observation {
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
        Observation {
            space: self.mission.space.clone(),
            history: self.history.clone(),
            task: Some(self.mission.data.tasks[task].clone()),
            text: String::new(),
            prompt_tokens: PROMPT_TOKENS as u32,
            local_context_tokens: None,
            max_tokens: ANSWER_TOKENS as u32,
            context: Context {
                battery: Reading::known(battery, 0, "replay"),
                link: age_ms.map_or_else(
                    || Reading::unknown("nothing was sent yet"),
                    |age_ms| Reading::known(link, age_ms, "replay"),
                ),
                load: Reading::known(load, 0, "replay"),
                views: views.collect(),
                ..Context::default()
            },
            remaining: Cost::default(),
            prices: Prices::default(),
            ratings: self.ratings.clone(),
            considered: Vec::new(),
            turns_left: None,
            deadline_ms: None,
        }
    }

    /// As `turn/afford.rs` does: the actions within the budgets and the pace, the policy among them, and what is held back.
    fn decide(&mut self, now_s: f64, now_ms: i64, observation: &mut Observation, seed: u64) -> Option<Held> {
        let battery_percent = Some(self.battery_percent());
        let is_down = self.link.state() == LinkState::Down && now_s - self.failed_s < RETRY_S;
        let bits_per_s = self.link.bits_per_s().unwrap_or(UNKNOWN_BITS_PER_S);
        let predicted = self.costs(bits_per_s, self.link.rtt_ms().unwrap_or(UNKNOWN_RTT_MS));
        let candidates: Vec<Candidate> = self
            .mission
            .space
            .actions()
            .filter(|action| !(is_down && action.route() == Route::Cloud))
            .map(|action| Candidate { action, predicted: self.predicted(&predicted, action) })
            .collect();
        observation.considered.clone_from(&candidates);
        let candidates: Vec<Candidate> = candidates
            .into_iter()
            .filter(|candidate| self.accounts.fits(&most(&candidate.predicted), battery_percent).is_ok())
            .collect();
        let on_pace = |candidate: &&Candidate| self.accounts.on_pace(now_ms, &most(&candidate.predicted)).is_ok();
        let paced: Vec<Candidate> = match self.contender.paced {
            true => candidates.iter().filter(on_pace).copied().collect(),
            false => Vec::new(),
        };
        let permitted = Permitted::new(paced).or_else(|_| Permitted::new(candidates)).ok()?;
        if self.contender.paced {
            observation.prices = self.accounts.prices(now_ms);
        }
        observation.remaining = self.remaining();
        let decision = self.contender.policy.try_decide(observation, &permitted, seed).ok()?;
        let reserved = most(&permitted.get(decision.action)?.predicted);
        let mut reservation = self.accounts.reserve(now_ms, reserved, battery_percent).ok()?;
        // The device's side of a fallback is held back as well, before anything is tried.
        let local = most(&self.predicted(&predicted, Action::LOCAL));
        let fallback = match decision.action.route() {
            Route::Local => None,
            Route::Cloud => self.accounts.reserve(now_ms, local, battery_percent).ok(),
        };
        let may_fall_back = fallback.is_some();
        if let Some(fallback) = fallback {
            reservation.join(fallback);
        }
        let reserved = *reservation.amounts();
        Some(Held { chosen: Chosen { permitted, decision, reserved }, reservation, may_fall_back })
    }

    /// Of every action, over an uplink of this rate.
    fn costs(&self, up_bits_per_s: f64, rtt_ms: f64) -> Costs {
        let up_mbps = (up_bits_per_s / 1e6).max(LEAST_MBPS);
        Costs::new(&self.mission.robot.hardware, &HonestLink::Measured { up_mbps, rtt_ms })
    }

    fn predicted(&self, costs: &Costs, action: Action) -> Cost {
        let cloud = action.route() == Route::Cloud;
        let [latency_s, cost_usd, energy_j, uplink_bytes] = costs.of(cloud, self.mission.space.sent(action).len());
        Cost {
            latency_ms: Some(latency_s * 1e3),
            cost_usd: Some(if cloud { cost_usd } else { 0.0 }),
            energy_j: Some(energy_j),
            uplink_bytes: Some(uplink_bytes as u64),
            downlink_bytes: Some(if cloud { DOWNLINK_BYTES } else { 0 }),
        }
    }

    fn remaining(&self) -> Cost {
        let left = |resource: Resource| self.accounts.left(resource);
        Cost {
            latency_ms: None,
            cost_usd: left(Resource::Usd).map(|count| Resource::Usd.value(count)),
            energy_j: left(Resource::EnergyJ).map(|count| Resource::EnergyJ.value(count)),
            uplink_bytes: left(Resource::UplinkBytes),
            downlink_bytes: left(Resource::DownlinkBytes),
        }
    }

    /// What the transfer told about the link.
    fn learn(&mut self, now_s: f64, action: Action, truth: &Truth<'_>) {
        if action.route() == Route::Local {
            return;
        }
        match truth.upload(self.mission.space.sent(action).len()) {
            (bytes, Some(seconds)) => {
                self.link.sent(Sample { at_s: now_s, bytes, seconds: seconds.max(1e-6), app_limited: false });
                self.link.round_trip(truth.rtt_ms);
            }
            (_, None) => {
                self.link.failed();
                // A connection that is lost needs no second failure to count as down.
                if truth.path_died() {
                    self.link.failed();
                }
                self.failed_s = now_s;
            }
        }
    }

    fn settle(&mut self, now_s: f64, reservation: Reservation, cost: &Cost) -> Vec<Charge> {
        let latency_s = cost.latency_ms.unwrap_or(0.0) / 1e3;
        let now_ms = EPOCH_MS + ((now_s + latency_s) * 1e3) as i64;
        let settled = self.accounts.settle(now_ms, reservation, counts(cost));
        let is_over = settled.over != Amounts::ZERO
            || self.accounts.accounts().iter().any(|account| account.held() > account.budget.cap);
        self.caps_exceeded += u64::from(is_over);
        // Beyond what idling draws anyway.
        let above_idle_j = cost.energy_j.unwrap_or(0.0) - self.mission.robot.idle_w() * latency_s;
        self.battery_j = (self.battery_j - above_idle_j.max(0.0)).max(0.0);
        settled.charges
    }
}

/// The most that is held back for a prediction: with headroom, and in the cloud with the time that it may take to find
/// nobody there.
fn most(predicted: &Cost) -> Amounts {
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| (bytes as f64 * HEADROOM).ceil() as u64);
    let seconds = predicted.latency_ms.unwrap_or(0.0) / 1e3;
    let energy_j = predicted.energy_j.unwrap_or(0.0);
    let waiting_w = if seconds > 0.0 { energy_j / seconds } else { 0.0 };
    let wait_j = if predicted.uplink_bytes == Some(0) { 0.0 } else { waiting_w * PATIENCE_S };
    let cost = Cost {
        latency_ms: None,
        cost_usd: predicted.cost_usd,
        energy_j: Some(energy_j * HEADROOM + wait_j),
        uplink_bytes: bytes(predicted.uplink_bytes),
        downlink_bytes: bytes(predicted.downlink_bytes),
    };
    Amounts(counts(&cost).map(|count| count.unwrap_or(0)))
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
