//! What every action of one turn does cost and earn over the recorded link, known to nobody before it is taken.

use super::mission::Mission;
use tether_policies::tmo::data::Turn;
use tether_policies::tmo::honest::hardware::ANSWER_TOKENS;
use tether_policies::tmo::honest::link::{Costs, Link as HonestLink};
use tether_policies::tmo::honest::moment::Moment;
use tether_policies::tmo::honest::response::ResponseModel;
use tether_policies::tmo::paper::Weights;
use tether_policies::trace::Trace;
use tether_protocol::limits::MAX_VIEWS;
use tether_protocol::{Cost, Route};

/// How long the cloud may take to be reached before the local model answers: `policy.cloud_patience_ms`' default.
pub const PATIENCE_S: f64 = 15.0;
/// A path on which nothing moves for so long is given up sooner: the connection's probes go unanswered.
const DEAD_S: f64 = 2.0;
const STEP_S: f64 = 0.5;
/// Where a trace has no round trip: a usual LTE.
pub const UNKNOWN_RTT_MS: f64 = 80.0;

/// A cloud answer with some number of views.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Try {
    uplink_bytes: u64,
    downlink_bytes: u64,
    /// `None`: longer than anybody waits.
    upload_s: Option<f64>,
    /// The answer came in time.
    reached: bool,
}

/// What an action comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    pub cost: Cost,
    pub reward: f64,
    /// On the data's scale.
    pub response: f64,
    pub route: Route,
}

pub struct Truth<'a> {
    moment: Moment,
    judge: &'a ResponseModel,
    costs: Costs,
    tries: [Try; MAX_VIEWS + 1],
    /// When an upload that is still under way is given up.
    pub patience_s: f64,
    pub rtt_ms: f64,
}

impl<'a> Truth<'a> {
    /// `at_s` is the trace's time; `uplink_bytes` those of a turn with each number of views.
    pub fn new(
        mission: &'a Mission,
        judge: &'a ResponseModel,
        turn: &Turn,
        at_s: f64,
        uplink_bytes: impl Fn(usize) -> u64,
    ) -> Truth<'a> {
        let rtt_ms = mission.trace.rtt_ms(at_s).unwrap_or(UNKNOWN_RTT_MS);
        // Without the time that the upload takes: that comes from the trace.
        let link = HonestLink::Measured { up_mbps: f64::INFINITY, rtt_ms };
        let mut costs = Costs::new(&mission.robot.hardware, &link);
        let waiting_w = link.waiting_w(&mission.robot.hardware);
        let mut tries = [Try::default(); MAX_VIEWS + 1];
        let patience_s = patience_s(&mission.trace, at_s);
        for (views, try_) in tries.iter_mut().enumerate().take(mission.data.view_count + 1) {
            let uplink_bytes = uplink_bytes(views);
            let downlink_bytes = mission.sizes.wire.downlink_bytes(ANSWER_TOKENS as u32, uplink_bytes);
            let upload_s = mission.trace.send_s(at_s, uplink_bytes);
            let travel_s = upload_s.zip(mission.trace.receive_s(at_s, downlink_bytes)).map(|(up, down)| up + down);
            let in_time = |seconds: &f64| *seconds + rtt_ms / 1e3 <= patience_s;
            let (upload_s, travel_s) = (upload_s.filter(in_time), travel_s.filter(in_time));
            *try_ = Try { uplink_bytes, downlink_bytes, upload_s, reached: travel_s.is_some() };
            let cost = &mut costs.cloud[views];
            match travel_s {
                Some(travel_s) => {
                    cost[0] += travel_s;
                    cost[2] = waiting_w * cost[0];
                    cost[3] = uplink_bytes as f64;
                }
                // What was sent was sent for nothing, and then the device answers.
                None => {
                    let local = costs.local;
                    let bytes = uplink_bytes as f64;
                    *cost = [patience_s + local[0], local[1], waiting_w * patience_s + local[2], bytes];
                }
            }
        }
        let weights = Weights::default();
        let moment = Moment::new(Some(turn.task), &turn.association, &mission.actions, &costs, judge, &weights);
        Truth { moment, judge, costs, tries, patience_s, rtt_ms }
    }

    /// Seconds that the views' bytes take; `None`: longer than anybody waits.
    pub fn upload_s(&self, views: usize) -> Option<f64> {
        self.tries[views].upload_s
    }

    /// Whether the path was found dead, rather than slow.
    pub fn path_died(&self) -> bool {
        self.patience_s < PATIENCE_S
    }

    /// The action at this place of the action space.
    pub fn done(&self, place: usize) -> Done {
        let facts = &self.moment.facts[place];
        let views = facts.views.len();
        let Try { uplink_bytes, downlink_bytes, reached, .. } = self.tries[views];
        let reached = !facts.cloud || reached;
        let [latency_s, cost_usd, energy_j, _] = self.costs.of(facts.cloud, views);
        let in_cloud = facts.cloud && reached;
        let cost = Cost {
            latency_ms: Some(latency_s * 1e3),
            cost_usd: match (facts.cloud, reached) {
                // A local answer's electricity comes from the battery, not from a purse.
                (false, _) => Some(0.0),
                (true, true) => Some(cost_usd),
                // Whether the cloud charges for what it got nobody tells: the books take what was reserved.
                (true, false) => None,
            },
            energy_j: Some(energy_j),
            uplink_bytes: Some(if facts.cloud { uplink_bytes } else { 0 }),
            downlink_bytes: Some(if in_cloud { downlink_bytes } else { 0 }),
        };
        let (reward, views) = match reached {
            true => (self.moment.rewards[place], views),
            false => (self.moment.rewards[0] - Weights::default().latency * self.later(latency_s), 0),
        };
        let response = self.judge.predict(self.moment.task, in_cloud, views);
        let route = if in_cloud { Route::Cloud } else { Route::Local };
        Done { cost, reward, response, route }
    }

    /// Of a cloud action that reached nobody where the device may not answer either.
    pub fn wasted(&self, done: &Done) -> Cost {
        let less = |whole: Option<f64>, part: f64| whole.map(|whole| (whole - part).max(0.0));
        Cost {
            latency_ms: less(done.cost.latency_ms, self.costs.local[0] * 1e3),
            energy_j: less(done.cost.energy_j, self.costs.local[2]),
            ..done.cost
        }
    }

    /// How much worse than a local answer's a latency is, on the reward's scale: over the range of this turn's actions.
    fn later(&self, latency_s: f64) -> f64 {
        let all = || self.moment.facts.iter().filter_map(|facts| facts.cost[0]);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        if high > low { (latency_s - self.costs.local[0]) / (high - low) } else { 0.0 }
    }
}

/// How long an upload that begins at `at_s` may take: until nothing has moved for [`DEAD_S`], and not beyond [`PATIENCE_S`].
fn patience_s(trace: &Trace, at_s: f64) -> f64 {
    let (mut passed_s, mut still_s) = (0.0, 0.0);
    while passed_s < PATIENCE_S && still_s < DEAD_S {
        still_s = if trace.up_bits_per_s(at_s + passed_s) > 0.0 { 0.0 } else { still_s + STEP_S };
        passed_s += STEP_S;
    }
    passed_s.min(PATIENCE_S)
}
