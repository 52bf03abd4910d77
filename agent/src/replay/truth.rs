//! What every action of one turn does cost and earn over the recorded link, known to nobody before it is taken.

use super::mission::Mission;
use tether_policies::tmo::data::Turn;
use tether_policies::tmo::honest::link::{Costs, Link as HonestLink, uplink_bytes};
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
    bytes: u64,
    /// `None`: longer than anybody waits.
    upload_s: Option<f64>,
}

/// What an action comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    pub cost: Cost,
    pub reward: f64,
    /// On the data's scale.
    pub response: f64,
    pub route: Route,
    pub views: usize,
}

pub struct Truth<'a> {
    moment: Moment,
    judge: &'a ResponseModel,
    costs: Costs,
    tries: [Try; MAX_VIEWS + 1],
    /// When an upload that is still under way is given up.
    patience_s: f64,
    pub rtt_ms: f64,
}

impl<'a> Truth<'a> {
    /// `at_s` is the trace's time; `spread` how far pictures' bytes lie from the usual.
    pub fn new(
        mission: &'a Mission,
        judge: &'a ResponseModel,
        turn: &Turn,
        downlink_bytes: u64,
        at_s: f64,
        spread: f64,
    ) -> Truth<'a> {
        let rtt_ms = mission.trace.rtt_ms(at_s).unwrap_or(UNKNOWN_RTT_MS);
        // Without the time that the upload takes: that comes from the trace.
        let mut costs = Costs::new(&mission.robot.hardware, &HonestLink::Measured { up_mbps: f64::INFINITY, rtt_ms });
        let mut tries = [Try::default(); MAX_VIEWS + 1];
        let patience_s = patience_s(&mission.trace, at_s);
        let receive_s = mission.trace.receive_s(at_s, downlink_bytes);
        for (views, try_) in tries.iter_mut().enumerate().take(mission.data.view_count + 1) {
            let bytes = (uplink_bytes(views) * (1.0 + spread)) as u64;
            let upload_s = mission.trace.send_s(at_s, bytes);
            let upload_s = upload_s.zip(receive_s).map(|(up, down)| up + down).filter(|s| *s <= patience_s);
            *try_ = Try { bytes, upload_s };
            let waiting_w = costs.cloud[views][2] / costs.cloud[views][0];
            let cost = &mut costs.cloud[views];
            match upload_s {
                Some(upload_s) => {
                    cost[0] += upload_s;
                    cost[2] = waiting_w * cost[0];
                }
                // What was sent was sent for nothing, and then the device answers.
                None => {
                    let local = costs.local;
                    *cost = [patience_s + local[0], local[1], waiting_w * patience_s + local[2], bytes as f64];
                }
            }
            cost[3] = bytes as f64;
        }
        let weights = Weights::default();
        let moment = Moment::new(Some(turn.task), &turn.association, &mission.actions, &costs, judge, &weights);
        Truth { moment, judge, costs, tries, patience_s, rtt_ms }
    }

    /// Seconds that the views' bytes take, and how many bytes they are; no seconds where nobody was reached.
    pub fn upload(&self, views: usize) -> (u64, Option<f64>) {
        (self.tries[views].bytes, self.tries[views].upload_s)
    }

    /// Whether the path was found dead, rather than slow.
    pub fn path_died(&self) -> bool {
        self.patience_s < PATIENCE_S
    }

    /// The action at this place of the action space.
    pub fn done(&self, place: usize, downlink_bytes: u64) -> Done {
        let facts = &self.moment.facts[place];
        let views = facts.views.len();
        let reached = !facts.cloud || self.tries[views].upload_s.is_some();
        let costs = self.costs.of(facts.cloud, views);
        let [latency_s, cost_usd, energy_j, uplink_bytes] = costs;
        let in_cloud = facts.cloud && reached;
        let cost = Cost {
            latency_ms: Some(latency_s * 1e3),
            // A local answer's electricity comes from the battery, not from a purse.
            cost_usd: Some(if in_cloud { cost_usd } else { 0.0 }),
            energy_j: Some(energy_j),
            uplink_bytes: Some(uplink_bytes as u64),
            downlink_bytes: Some(if in_cloud { downlink_bytes } else { 0 }),
        };
        let (reward, views) = match reached {
            true => (self.moment.rewards[place], views),
            false => (self.moment.rewards[0] - Weights::default().latency * self.later(latency_s), 0),
        };
        let response = self.judge.predict(self.moment.task, in_cloud, views);
        let route = if in_cloud { Route::Cloud } else { Route::Local };
        Done { cost, reward, response, route, views }
    }

    /// As [`done`](Self::done), of a cloud action that reached nobody where the device may not answer either.
    pub fn wasted(&self, place: usize) -> Cost {
        let cost = self.done(place, 0).cost;
        let less = |whole: Option<f64>, part: f64| whole.map(|whole| (whole - part).max(0.0));
        Cost {
            latency_ms: less(cost.latency_ms, self.costs.local[0] * 1e3),
            energy_j: less(cost.energy_j, self.costs.local[2]),
            ..cost
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
