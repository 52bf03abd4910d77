//! The honest environment as a stage: random devices, links, batteries, budgets and numbers of views; the teacher solves
//! what may come, sampled, as a knapsack.

use crate::tmo::data::{Dialogue, Turn};
use crate::tmo::honest::link::Costs;
use crate::tmo::honest::moment::{Moment, actions, limits, refused, spend};
use crate::tmo::honest::response::ResponseModel;
use crate::tmo::honest::scenario::{Scenario, budget};
use crate::tmo::learn::world::Step;
use crate::tmo::mask::{ROUNDING, Reserve, minus};
use crate::tmo::paper::Weights;
use crate::tmo::tether::policy::permit;
use crate::tmo::tether::scene::{Amounts, Facts, HISTORY, KNOWN_TASKS, Past, RESOURCES, Scene};
use crate::tmo::tether::train::stage::{Look, Stage};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tether_protocol::{ActionSpaceError, ViewSet};

/// Continuations that the teacher's expectation is taken over.
const FUTURES: usize = 3;
/// Share of dialogues whose length the policy is not told: it reserves for [`HISTORY`] turns, as the daemon does.
const LENGTH_UNKNOWN: f64 = 0.25;
/// Share of turns whose task is unknown, and of those with a task of another name.
const TASK_UNKNOWN: f64 = 0.05;
/// Share of dialogues in which a route's cost in a resource without a budget is not known, as before the first answer, or
/// where no meter is. Energy is unknown more often.
const COST_UNKNOWN: [f64; RESOURCES] = [0.1, 0.1, 0.4, 0.05];
/// Share of turns whose association nobody tells.
const ASSOCIATION_UNKNOWN: f64 = 0.05;
/// Share of batches with another number of views than the data's; [`VIEWS`] are then as likely.
const OTHER_VIEWS: f64 = 0.3;
const VIEWS: std::ops::RangeInclusive<usize> = 0..=4;
/// Attempts at budgets that can be served; after them there is none.
const ATTEMPTS: usize = 30;

/// What one action of each cost may earn at a coming turn, the best of equals.
type Options = Vec<([f64; RESOURCES], f64)>;

pub struct HonestStage<'a> {
    model: &'a ResponseModel,
    weights: Weights,
    scenario: Scenario,
    /// Whether the number of views, tasks' names and the knowledge of the length, of costs and of association vary.
    vary: bool,
    turns: Vec<&'a Turn>,
    lengths: Vec<usize>,
    actions: Vec<Option<ViewSet>>,
    view_count: usize,

    costs: Costs,
    reserve: Reserve<RESOURCES>,
    length: usize,
    length_known: bool,
    whole: Amounts,
    /// By route (local, cloud) and resource.
    untold: [[bool; RESOURCES]; 2],
    remaining: Amounts,
    history: Vec<Past>,
    moment: Moment,
}

impl<'a> HonestStage<'a> {
    /// Over at least one training dialogue; `model` fitted to these and no others.
    pub fn new(
        training: &[&'a Dialogue],
        model: &'a ResponseModel,
        scenario: Scenario,
        vary: bool,
    ) -> Result<Self, ActionSpaceError> {
        let turns: Vec<&Turn> = training.iter().flat_map(|dialogue| &dialogue.turns).collect();
        let view_count = turns[0].association.len();
        let costs = crate::tmo::honest::scenario::costs(scenario.combinations[0]);
        let (actions, weights) = (actions(view_count)?, Weights::default());
        let moment = Moment::new(None, &turns[0].association, &actions, &costs, model, &weights);
        Ok(HonestStage {
            model,
            weights,
            scenario,
            vary,
            lengths: training.iter().map(|dialogue| dialogue.turns.len()).collect(),
            turns,
            actions,
            view_count,
            costs,
            reserve: Reserve::new([]),
            length: 1,
            length_known: true,
            whole: [None; RESOURCES],
            untold: [[false; RESOURCES]; 2],
            remaining: [None; RESOURCES],
            history: Vec::new(),
            moment,
        })
    }

    /// A turn of the training dialogues, with as many views as are dealt: some of its own, or others' beside them.
    fn see(&self, random: &mut ChaCha8Rng) -> Moment {
        let any = |random: &mut ChaCha8Rng| self.turns[random.random_range(0..self.turns.len())];
        let turn = any(random);
        let task = match self.vary && random.random_bool(TASK_UNKNOWN) {
            true => random.random_bool(0.5).then_some(KNOWN_TASKS),
            false => Some(turn.task),
        };
        let mut association = turn.association.clone();
        while association.len() > self.view_count {
            association.remove(random.random_range(0..association.len()));
        }
        while association.len() < self.view_count {
            let others = &any(random).association;
            association.push(if others.is_empty() { 0.2 } else { others[random.random_range(0..others.len())] });
        }
        let mut moment = Moment::new(task, &association, &self.actions, &self.costs, self.model, &self.weights);
        let unassociated = self.vary && random.random_bool(ASSOCIATION_UNKNOWN);
        for facts in &mut moment.facts {
            let untold = &self.untold[usize::from(facts.cloud)];
            facts.cost.iter_mut().zip(untold).filter(|(_, untold)| **untold).for_each(|(cost, _)| *cost = None);
            facts.association = facts.association.filter(|_| !unassociated || facts.views.is_empty());
        }
        moment
    }

    fn scene(&self) -> Scene<'_> {
        let before = self.history.len();
        let following = if self.length_known { self.length } else { HISTORY.max(before + 1) } - before - 1;
        Scene {
            history: &self.history,
            before,
            task: self.moment.task,
            view_count: self.view_count,
            remaining: self.remaining,
            following: following as u32,
            following_known: self.length_known,
        }
    }

    fn free(&self, cost: [f64; RESOURCES]) -> [f64; RESOURCES] {
        std::array::from_fn(|r| if self.whole[r].is_none() { 0.0 } else { cost[r] })
    }

    fn options(&self, moment: &Moment) -> Options {
        let mut options = Options::new();
        for (facts, &reward) in moment.facts.iter().zip(&moment.rewards) {
            let cost = self.free(self.costs.of(facts.cloud, facts.views.len()));
            match options.iter_mut().find(|option| option.0 == cost) {
                Some(known) => known.1 = known.1.max(reward),
                None => options.push((cost, reward)),
            }
        }
        // The dear ones first: a good sum is found early.
        options.sort_by(|a, b| b.1.total_cmp(&a.1));
        options
    }
}

impl Stage<RESOURCES> for HonestStage<'_> {
    fn deal(&mut self, random: &mut ChaCha8Rng) {
        if !self.vary {
            return;
        }
        let own = self.turns[0].association.len();
        self.view_count = if random.random_bool(OTHER_VIEWS) { random.random_range(VIEWS) } else { own };
        // At most MAX_VIEWS of legal names: the space exists.
        self.actions = actions(self.view_count).unwrap_or_default();
    }

    fn begin(&mut self, random: &mut ChaCha8Rng) {
        self.costs = self.scenario.draw(random);
        self.length = self.lengths[random.random_range(0..self.lengths.len())];
        self.length_known = !(self.vary && random.random_bool(LENGTH_UNKNOWN));
        self.whole = [None; RESOURCES];
        for _ in 0..ATTEMPTS {
            self.whole = budget(&self.costs, self.view_count, self.length, random);
            self.reserve = Reserve::new(self.costs.levels(self.view_count).map(|cost| self.free(cost)));
            if self.reserve.can_finish(limits(&self.whole), self.length as u32) {
                break;
            }
            self.whole = [None; RESOURCES];
        }
        self.reserve = Reserve::new(self.costs.levels(self.view_count).map(|cost| self.free(cost)));
        let whole = self.whole;
        let untold = |random: &mut ChaCha8Rng| {
            // Drawn for every resource, so that a budget changes no other draw.
            let drawn = COST_UNKNOWN.map(|share| random.random_bool(share));
            std::array::from_fn(|r| self.vary && whole[r].is_none() && drawn[r])
        };
        self.untold = [untold(random), untold(random)];
        self.remaining = self.whole;
        self.history.clear();
        self.moment = self.see(random);
    }

    fn look(&self) -> Look {
        let mut open = vec![false; self.moment.facts.len()];
        permit(&self.scene(), &self.moment.facts, &mut open);
        Look::of(&self.scene(), &self.moment.facts, open, 0, Some(self.model))
    }

    fn expected(&mut self, random: &mut ChaCha8Rng) -> Vec<f32> {
        let following = self.scene().following as usize;
        let futures: Vec<Vec<Options>> = (0..if following == 0 { 0 } else { FUTURES })
            .map(|_| (0..following).map(|_| self.options(&self.see(random))).collect())
            .collect();
        let floor = refused(&self.weights);
        let mut known: Vec<([f64; RESOURCES], f64)> = Vec::new();
        let value = |(facts, &reward): (&Facts, &f64)| {
            let left = minus(limits(&self.remaining), self.free(self.costs.of(facts.cloud, facts.views.len())));
            let later = match known.iter().find(|known| known.0 == left) {
                Some(known) => known.1,
                None => {
                    let sum: f64 = futures.iter().map(|future| knapsack(future, left, floor)).sum();
                    let mean = sum / futures.len().max(1) as f64;
                    known.push((left, mean));
                    mean
                }
            };
            (reward + later) as f32
        };
        self.moment.facts.iter().zip(&self.moment.rewards).map(value).collect()
    }

    fn act(&mut self, action: usize, random: &mut ChaCha8Rng) -> Step<RESOURCES> {
        let facts = self.moment.facts[action];
        let before = self.remaining;
        self.remaining = spend(&before, &facts.cost);
        let over = |left: &Amounts, r: usize| match (left[r], self.whole[r]) {
            (Some(left), Some(whole)) if left < 0.0 => -left / whole.max(f64::MIN_POSITIVE),
            _ => 0.0,
        };
        // An empty budget passed is one whole budget passed, not infinitely many.
        let costs = std::array::from_fn(|r| (over(&self.remaining, r) - over(&before, r)).min(1.0) as f32);
        let reward = self.moment.rewards[action] as f32;
        self.history.push(Past { cloud: facts.cloud, views: facts.views, task: self.moment.task });
        let end = self.history.len() >= self.length;
        if !end {
            self.moment = self.see(random);
        }
        Step { reward, costs, end }
    }
}

/// The best sum of rewards of one option for each coming turn within what is left; a turn that nothing fits is refused.
fn knapsack(coming: &[Options], left: [f64; RESOURCES], floor: f64) -> f64 {
    let Some((options, rest)) = coming.split_first() else { return 0.0 };
    let bound: f64 = rest.iter().map(|options| options.first().map_or(floor, |best| best.1)).sum();
    let mut best = f64::NEG_INFINITY;
    for (cost, reward) in options {
        // Options come best first: none of the others can do more.
        if reward + bound <= best {
            break;
        }
        let left = minus(left, *cost);
        if left.iter().all(|&left| left >= -ROUNDING) {
            best = best.max(reward + knapsack(rest, left, floor));
        }
    }
    if best.is_finite() { best } else { floor + knapsack(rest, left, floor) }
}
