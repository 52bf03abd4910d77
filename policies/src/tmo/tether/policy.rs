//! A decision: score, mask, choose, and say why.

use crate::decision::{Candidate, Decision, Permitted, Policy, Refusal};
use crate::observation::Observation;
use crate::ratings::Ratings;
use crate::rule::views_asked_for;
use crate::tmo::honest::response::{LEVELS, level};
use crate::tmo::mask::{Reserve, minus};
use crate::tmo::tether::config::{Config, WhenNothingFits};
use crate::tmo::tether::network::Network;
use crate::tmo::tether::scene::{
    Amounts, Facts, HISTORY, MAX_ACTION_INPUTS, MAX_TURN_INPUTS, Past, RESOURCES, Ranges, Scene, amounts,
};
use crate::tmo::tether::weights::LoadError;
use crate::tmo::tether::worth::{corrections, immediate};
use tether_protocol::limits::MAX_VIEWS;
use tether_protocol::{Reason, Route, ViewSet};

/// Actions of four views, and of as many as there may be. The buffers of a decision come in these two sizes.
const FEW: usize = 1 + (1 << 4);
pub const MAX_ACTIONS: usize = 1 + (1 << MAX_VIEWS);

/// The two files of the policy that comes with the program.
pub const BUILT_IN: (&str, &[u8]) =
    (include_str!("../../../artifacts/tether-tmo.json"), include_bytes!("../../../artifacts/tether-tmo.safetensors"));

/// Why an action was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Nothing else was permitted.
    Only,
    /// The best score of all, or a draw by the scores.
    Score,
    /// The best score among those that fit the budgets; another would have scored better.
    Budget { preferred: usize },
    /// The best score among those that can take the whole question; another would have scored better.
    Whole { preferred: usize },
    /// Nothing fits the budgets.
    LeastOvershoot,
}

/// What beside the network decides.
struct Terms<'a> {
    /// Whether an action may be taken; the others are there to be compared with.
    allowed: &'a dyn Fn(usize) -> bool,
    /// What each action is worth beyond its score, in units of reward: what ratings tell, less its shadow price.
    beyond: &'a dyn Fn(usize) -> f64,
    /// Whether shadow prices stand for all that is limited, and the network is not to count it a second time.
    paced: bool,
    /// Whether an action can take the whole question: its length, and the pictures that it is about.
    whole: &'a dyn Fn(usize) -> bool,
}

/// The chosen action's place among those given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    pub index: usize,
    pub propensity: f64,
    pub basis: Basis,
}

/// No action fits the budgets together with the turns that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no action fits the budgets for this turn and the {following} that follow")]
pub struct NothingFits {
    pub following: u32,
}

/// The learned policy of a config and its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct TetherPolicy {
    config: Config,
    network: Network,
}

impl TetherPolicy {
    /// Reads both files; either is refused whole if anything in it does not fit.
    pub fn load(config: &str, weights: &[u8]) -> Result<TetherPolicy, LoadError> {
        Self::new(Config::parse(config)?, weights)
    }

    /// The policy that comes with the program: trained on M4A1 for every device, link and budget. Its card is beside it
    /// in `policies/artifacts`.
    pub fn built_in() -> Result<TetherPolicy, LoadError> {
        Self::load(BUILT_IN.0, BUILT_IN.1)
    }

    pub fn new(config: Config, weights: &[u8]) -> Result<TetherPolicy, LoadError> {
        let network = Network::read(&config, weights)?;
        Ok(TetherPolicy { config, network })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same network with other settings of its use; what it was trained for stays.
    #[must_use]
    pub fn with(mut self, temperature: f64, when_nothing_fits: WhenNothingFits) -> TetherPolicy {
        self.config.temperature = temperature;
        self.config.when_nothing_fits = when_nothing_fits;
        self
    }

    /// Scores all `actions` into `scores` and chooses one of them. Allocates nothing.
    ///
    /// # Panics
    /// If there is no action, more than [`MAX_ACTIONS`], or another number of scores.
    pub fn choose(
        &self,
        scene: &Scene<'_>,
        actions: &[Facts],
        seed: u64,
        scores: &mut [f32],
    ) -> Result<Choice, NothingFits> {
        let terms = Terms { allowed: &|_| true, beyond: &|_| 0.0, paced: false, whole: &|_| true };
        let mut shares = [0.0; MAX_ACTIONS];
        let shares = &mut shares[..actions.len()];
        self.choose_or(self.config.when_nothing_fits, scene, actions, &terms, seed, scores, shares)
    }

    /// `shares` are all 0 before; the probability of each action after.
    #[expect(clippy::too_many_arguments, reason = "buffers are the caller's, so that nothing is allocated")]
    fn choose_or(
        &self,
        when_nothing_fits: WhenNothingFits,
        scene: &Scene<'_>,
        actions: &[Facts],
        terms: &Terms<'_>,
        seed: u64,
        scores: &mut [f32],
        shares: &mut [f64],
    ) -> Result<Choice, NothingFits> {
        assert!(!actions.is_empty() && actions.len() == scores.len(), "{} actions", actions.len());
        let ranges = Ranges::over(actions);
        match &self.config.responses {
            Some(_) if terms.paced => scores.fill(0.0),
            _ => self.score_by_network(scene, actions, &ranges, scores),
        }
        self.add_immediate(scene, actions, &ranges, scores);
        // Scores are in units of reward, as shadow prices are.
        scores.iter_mut().enumerate().for_each(|(n, score)| *score += (terms.beyond)(n) as f32);
        let mut open = [false; MAX_ACTIONS];
        let open = &mut open[..actions.len()];
        permit(scene, actions, open);
        open.iter_mut().enumerate().for_each(|(n, open)| *open &= (terms.allowed)(n));
        if !open.contains(&true) {
            return match when_nothing_fits {
                WhenNothingFits::Refuse => Err(NothingFits { following: scene.following }),
                WhenNothingFits::LeastOvershoot => {
                    let index = least_overshoot(scene, actions, terms.allowed, scores);
                    shares[index] = 1.0;
                    Ok(Choice { index, propensity: 1.0, basis: Basis::LeastOvershoot })
                }
            };
        }
        let within = best(scores, |n| open[n]);
        if (0..open.len()).any(|n| open[n] && (terms.whole)(n)) {
            open.iter_mut().enumerate().for_each(|(n, open)| *open &= (terms.whole)(n));
        }
        let index = pick(scores, open, self.config.temperature, seed, shares);
        let preferred = best(scores, |_| true);
        let basis = match open.iter().filter(|&&open| open).count() {
            1 if actions.len() == 1 => Basis::Only,
            _ if !open[within] => Basis::Whole { preferred: within },
            _ if !open[preferred] => Basis::Budget { preferred },
            _ => Basis::Score,
        };
        Ok(Choice { index, propensity: shares[index], basis })
    }

    /// What ratings add to the value of an action of each level.
    fn corrections(&self, ratings: &Ratings, task: Option<usize>) -> [f64; LEVELS] {
        match &self.config.responses {
            Some(trained) => corrections(trained, ratings, |name| self.config.task(name), task),
            None => [0.0; LEVELS],
        }
    }

    /// The value of each action, budgets or not: the network's score, beside what it earns at once where the config has
    /// the responses for that. Allocates nothing.
    pub fn score(&self, scene: &Scene<'_>, actions: &[Facts], scores: &mut [f32]) {
        let ranges = Ranges::over(actions);
        self.score_by_network(scene, actions, &ranges, scores);
        self.add_immediate(scene, actions, &ranges, scores);
    }

    fn score_by_network(&self, scene: &Scene<'_>, actions: &[Facts], ranges: &Ranges, scores: &mut [f32]) {
        let slots = self.config.view_slots;
        let (turn, action) = self.config.inputs();
        let mut turn_inputs = [0.0; MAX_TURN_INPUTS];
        let mut action_inputs = [0.0; MAX_ACTION_INPUTS];
        let turn_inputs = &mut turn_inputs[..turn];
        let action_inputs = &mut action_inputs[..action];
        scene.write(slots, turn_inputs);
        let write = |n: usize, out: &mut [f32]| actions[n].write(scene, ranges, slots, out);
        if actions.len() <= FEW {
            self.network.score::<FEW>(turn_inputs, action_inputs, write, scores);
        } else {
            self.network.score::<MAX_ACTIONS>(turn_inputs, action_inputs, write, scores);
        }
    }

    fn add_immediate(&self, scene: &Scene<'_>, actions: &[Facts], ranges: &Ranges, scores: &mut [f32]) {
        let Some(trained) = &self.config.responses else { return };
        let at_once = |facts: &Facts| immediate(trained, scene.task, facts, ranges);
        scores.iter_mut().zip(actions).for_each(|(score, facts)| *score += at_once(facts));
    }

    fn decide_or(
        &self,
        when_nothing_fits: WhenNothingFits,
        observation: &Observation,
        permitted: &Permitted,
        seed: u64,
    ) -> Result<Decision, NothingFits> {
        if permitted.candidates().len().max(observation.considered.len()) <= FEW {
            self.decide_among::<FEW>(when_nothing_fits, observation, permitted, seed)
        } else {
            self.decide_among::<MAX_ACTIONS>(when_nothing_fits, observation, permitted, seed)
        }
    }

    fn decide_among<const N: usize>(
        &self,
        when_nothing_fits: WhenNothingFits,
        observation: &Observation,
        permitted: &Permitted,
        seed: u64,
    ) -> Result<Decision, NothingFits> {
        let candidates = match observation.considered.as_slice() {
            [] => permitted.candidates(),
            considered => considered,
        };
        let mut history = [Past { cloud: false, views: ViewSet::EMPTY, task: None }; HISTORY];
        let recent = &observation.history[observation.history.len().saturating_sub(HISTORY)..];
        for (past, turn) in history.iter_mut().zip(recent) {
            let task = turn.task.as_deref().map(|name| self.config.task(name));
            *past = Past { cloud: turn.route == Route::Cloud, views: turn.views, task };
        }
        let before = observation.history.len();
        let assumed = self.config.max_turns.saturating_sub(1 + before.try_into().unwrap_or(u32::MAX));
        let scene = Scene {
            history: &history[..recent.len()],
            before,
            task: observation.task.as_deref().map(|name| self.config.task(name)),
            view_count: observation.space.views().len(),
            remaining: amounts(&observation.remaining),
            following: observation.turns_left.unwrap_or(assumed),
            following_known: observation.turns_left.is_some(),
        };
        let nothing = Facts { cloud: false, views: ViewSet::EMPTY, association: None, cost: [None; RESOURCES] };
        let mut facts = [nothing; N];
        for (facts, candidate) in facts.iter_mut().zip(candidates) {
            let views = observation.space.sent(candidate.action);
            *facts = Facts {
                cloud: candidate.action.route() == Route::Cloud,
                views,
                association: association(observation, views),
                cost: amounts(&candidate.predicted),
            };
        }
        let mut scores = [0.0; N];
        let scores = &mut scores[..candidates.len()];
        let facts = &facts[..candidates.len()];
        let corrections = self.corrections(&observation.ratings, scene.task);
        let told = |n: usize| corrections[level(facts[n].cloud, pictures(observation, facts[n].views).len())];
        let beyond = |n: usize| told(n) - observation.prices.of(&candidates[n].predicted);
        let long = observation.local_context_tokens.is_some_and(|tokens| observation.prompt_tokens >= tokens);
        let asked = pictures(observation, views_asked_for(observation));
        let whole =
            |n: usize| if asked.is_empty() { facts[n].cloud || !long } else { asked.is_subset_of(facts[n].views) };
        let allowed = |n: usize| permitted.contains(candidates[n].action);
        let paced = observation.prices.cover(&observation.remaining);
        let terms = Terms { allowed: &allowed, beyond: &beyond, paced, whole: &whole };
        let mut shares = [0.0; N];
        let shares = &mut shares[..candidates.len()];
        let choice = self.choose_or(when_nothing_fits, &scene, facts, &terms, seed, scores, shares)?;
        let permitted_ones = || (0..candidates.len()).filter(|&n| allowed(n));
        Ok(Decision {
            action: candidates[choice.index].action,
            reason: reason(&choice, observation, candidates, scores, told),
            propensity: choice.propensity,
            probabilities: Some(permitted_ones().map(|n| shares[n]).collect()),
            values: Some(permitted_ones().map(|n| f64::from(scores[n])).collect()),
        })
    }
}

impl Policy for TetherPolicy {
    fn name(&self) -> &str {
        &self.config.name
    }

    /// As [`Policy::try_decide`]; where that refuses, the least overshoot.
    fn decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Decision {
        self.decide_or(WhenNothingFits::LeastOvershoot, observation, permitted, seed).unwrap_or_else(|refusal| {
            // The least overshoot always exists; this keeps the signature honest without a panic.
            Decision::certain(permitted.first().action, "over_budget", refusal.to_string())
        })
    }

    fn try_decide(&self, observation: &Observation, permitted: &Permitted, seed: u64) -> Result<Decision, Refusal> {
        self.decide_or(self.config.when_nothing_fits, observation, permitted, seed)
            .map_err(|refusal| Refusal { code: "budget_exhausted", detail: refusal.to_string() })
    }
}

/// Marks the actions that fit the budgets with the turns that follow; says whether there is one.
///
/// Where the number of turns is only assumed and nothing fits that many, fewer are reserved for: a turn is not refused
/// for the sake of turns that may never come.
pub fn permit(scene: &Scene<'_>, actions: &[Facts], open: &mut [bool]) -> bool {
    let left: [f64; RESOURCES] = scene.remaining.map(|left| left.unwrap_or(f64::INFINITY));
    if left.iter().all(|left| left.is_infinite()) {
        open.fill(true);
        return true;
    }
    let reserve = Reserve::new(actions.iter().map(|facts| limited(&facts.cost, &scene.remaining)));
    let mut following = scene.following;
    loop {
        let mut any = false;
        for (facts, open) in actions.iter().zip(open.iter_mut()) {
            *open = reserve.can_finish(minus(left, limited(&facts.cost, &scene.remaining)), following);
            any |= *open;
        }
        if any || scene.following_known || following == 0 {
            return any;
        }
        following -= 1;
    }
}

/// A cost as the mask takes it: nothing where there is no budget, infinite where it is unknown.
fn limited(cost: &Amounts, remaining: &Amounts) -> [f64; RESOURCES] {
    std::array::from_fn(|r| if remaining[r].is_none() { 0.0 } else { cost[r].unwrap_or(f64::INFINITY) })
}

/// The action that, followed by the cheapest of each resource, passes the budgets the least: by the resource that is
/// passed the most, as a share of this turn's dearest action. Ties go to the better score.
fn least_overshoot(scene: &Scene<'_>, actions: &[Facts], allowed: &dyn Fn(usize) -> bool, scores: &[f32]) -> usize {
    let costs = || actions.iter().map(|facts| limited(&facts.cost, &scene.remaining));
    let fold = |start: f64, with: fn(f64, f64) -> f64| -> [f64; RESOURCES] {
        costs().fold([start; RESOURCES], |so_far, cost| std::array::from_fn(|r| with(so_far[r], cost[r])))
    };
    let (least, most) = (fold(f64::INFINITY, f64::min), fold(0.0, f64::max));
    let overshoot = |facts: &Facts| {
        let cost = limited(&facts.cost, &scene.remaining);
        let over = |r: usize| {
            let left = scene.remaining[r].unwrap_or(f64::INFINITY);
            let passed = cost[r] + f64::from(scene.following) * least[r] - left;
            if passed > 0.0 { passed / most[r].max(f64::MIN_POSITIVE) } else { 0.0 }
        };
        // Infinite over infinite is no number: an unknown cost is the worst of all.
        (0..RESOURCES).map(over).map(|x| if x.is_nan() { f64::INFINITY } else { x }).fold(0.0, f64::max)
    };
    let worse = |a: &usize, b: &usize| {
        let by_overshoot = overshoot(&actions[*b]).total_cmp(&overshoot(&actions[*a]));
        by_overshoot.then(scores[*a].total_cmp(&scores[*b]))
    };
    (0..actions.len()).filter(|&n| allowed(n)).max_by(worse).unwrap_or(0)
}

/// The best score among those that `keep`; the first of equals.
fn best(scores: &[f32], keep: impl Fn(usize) -> bool) -> usize {
    let kept = (0..scores.len()).filter(|&n| keep(n));
    kept.reduce(|best, n| if scores[n] > scores[best] { n } else { best }).unwrap_or(0)
}

/// An open action. `shares`, all 0 before, become the probability of each.
fn pick(scores: &[f32], open: &[bool], temperature: f64, seed: u64, shares: &mut [f64]) -> usize {
    let top = best(scores, |n| open[n]);
    if temperature <= 0.0 {
        shares[top] = 1.0;
        return top;
    }
    let weight = |n: usize| ((f64::from(scores[n]) - f64::from(scores[top])) / temperature).exp();
    let opens = || (0..scores.len()).filter(|&n| open[n]);
    let sum: f64 = opens().map(weight).sum();
    opens().for_each(|n| shares[n] = weight(n) / sum);
    let mut rest = uniform(seed);
    let drawn = opens().find(|&n| {
        rest -= shares[n];
        rest < 0.0
    });
    drawn.unwrap_or(top)
}

/// A number in 0..1 from a seed (SplitMix64's last steps).
fn uniform(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Those of the views that are no text.
fn pictures(observation: &Observation, views: ViewSet) -> ViewSet {
    let is_picture = |view: &usize| observation.context.views.get(*view).is_some_and(|context| !context.is_text);
    views.iter().filter(is_picture).fold(ViewSet::EMPTY, ViewSet::with)
}

/// Sum over the pictures sent; unknown if one is. Sensors' readings are text and add nothing.
fn association(observation: &Observation, views: ViewSet) -> Option<f64> {
    let contexts = &observation.context.views;
    let pictures = views.iter().filter(|&view| contexts.get(view).is_none_or(|context| !context.is_text));
    pictures.map(|view| contexts.get(view).and_then(|context| context.association)).sum()
}

/// `told`: what ratings added to each score.
fn reason(
    choice: &Choice,
    observation: &Observation,
    candidates: &[Candidate],
    scores: &[f32],
    told: impl Fn(usize) -> f64,
) -> Reason {
    let label = |n: usize| {
        let action = candidates[n].action;
        let names = observation.space.names(observation.space.sent(action));
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let name = match action.route() {
            Route::Local => "local".to_owned(),
            Route::Cloud if names.is_empty() => "cloud with text only".to_owned(),
            Route::Cloud => format!("cloud with {}", names.join("+")),
        };
        match told(n) {
            told if told.abs() < 0.005 => format!("{name} {:.2}", scores[n]),
            told => format!("{name} {:.2} (ratings {told:+.2})", scores[n]),
        }
    };
    let chosen = label(choice.index);
    let next = (candidates.len() > 1).then(|| label(best(scores, |n| n != choice.index)));
    let next = next.map_or(String::new(), |next| format!(", next {next}"));
    match choice.basis {
        Basis::Only => Reason::new("only_one_route", format!("{chosen}, and nothing else is permitted")),
        Basis::Score => Reason::new("learned", format!("{chosen}{next}")),
        Basis::Budget { preferred } => {
            Reason::new("learned_within_budget", format!("{chosen}; {} does not fit the budget", label(preferred)))
        }
        Basis::Whole { preferred } => match pictures(observation, views_asked_for(observation)) {
            ViewSet::EMPTY => Reason::new(
                "prompt_too_long",
                format!("{chosen}; {} prompt tokens do not fit the local model", observation.prompt_tokens),
            ),
            _ => Reason::new(
                "views_needed",
                format!("{chosen}; {} leaves out what the prompt is about", label(preferred)),
            ),
        },
        Basis::LeastOvershoot => {
            Reason::new("over_budget", format!("nothing fits the budget; {chosen} passes it least"))
        }
    }
}

#[cfg(test)]
mod tests;
