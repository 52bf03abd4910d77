//! The reference's training environment over the training dialogues of paper mode.
//!
//! Everything that depends on a dialogue's turn and an action is computed once: 9 rewards for each of a few hundred
//! turns, instead of a search among neighbours at each of 30,000 steps.

use super::network::normal;
use super::world::{Step, World};
use crate::tmo::data::Dialogue;
use crate::tmo::paper::{ACTIONS, Environment, History, OBSERVATION, Profile, level, logged_action_of};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Seconds and USD.
pub const RESOURCES: usize = 2;
/// Turns that initial budgets are made for (reference: time_span).
const TURNS: f64 = 5.0;

/// How an episode's initial budgets are drawn, between five local turns and five of the cloud with all images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// Around the middle, a sixth of the range as standard deviation: the reference's default.
    #[default]
    Normal,
    Uniform,
    /// A mixture with more weight at the ends: half normal, .3 uniform, .1 one and .1 both resources at an end.
    ExtremeAware,
}

/// Whether budgets are part of the world.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Budgets [s, USD] are not observed; what a step spends above them is its cost, as the conference's code counts:
    /// the total of the history in the observation and of the action.
    Plain { budget: [f64; RESOURCES] },
    /// The journal's: what remains is observed, and a step that is over a budget earns 0.
    Journal { draw: Draw },
}

/// What does not change while training.
struct Moment {
    observation: [f32; OBSERVATION],
    rewards: [f32; ACTIONS],
    /// Of the logged turns in the observation: seconds, USD.
    spent: [f64; RESOURCES],
}

/// FAULT 2, on purpose: the next observation tells of the logged action, whatever action is chosen, so that training
/// is a contextual bandit along logged dialogues; evaluation follows the policy's own actions.
pub struct PaperWorld {
    episodes: Vec<Vec<Moment>>,
    profile: Profile,
    form: Form,
    episode: usize,
    at: usize,
    left: [f64; RESOURCES],
}

impl PaperWorld {
    /// Over the dialogues that the environment's estimator was fitted to; at least one.
    pub fn new(environment: &Environment, dialogues: &[&Dialogue], form: Form) -> Self {
        let episodes = dialogues.iter().map(|dialogue| moments(environment, dialogue)).collect();
        PaperWorld { episodes, profile: environment.profile, form, episode: 0, at: 0, left: [0.0; RESOURCES] }
    }

    /// What an observation in this form is of width.
    pub fn width_of(form: &Form) -> usize {
        match form {
            Form::Plain { .. } => OBSERVATION,
            Form::Journal { .. } => OBSERVATION + RESOURCES,
        }
    }

    fn price(&self, action: usize) -> [f64; RESOURCES] {
        price(&self.profile, level(action))
    }
}

/// The observation that a policy of this form decides on, with what remains of the budgets.
pub fn observation(form: &Form, features: &[f64; OBSERVATION], left: [f64; RESOURCES]) -> Vec<f32> {
    let rest = match form {
        Form::Plain { .. } => &[][..],
        Form::Journal { .. } => &left[..],
    };
    features.iter().chain(rest).map(|&value| value as f32).collect()
}

impl World<RESOURCES> for PaperWorld {
    fn width(&self) -> usize {
        Self::width_of(&self.form)
    }

    fn actions(&self) -> usize {
        ACTIONS
    }

    fn reset(&mut self, random: &mut ChaCha8Rng) {
        self.episode = random.random_range(0..self.episodes.len());
        self.at = 0;
        if let Form::Journal { draw } = self.form {
            let range = |resource: usize| {
                let [low, high] = [0, 4].map(|level| TURNS * price(&self.profile, level)[resource]);
                [low, high]
            };
            self.left = draw_budgets(draw, [range(0), range(1)], random);
        }
    }

    fn observe(&self, into: &mut [f32]) {
        let (fixed, rest) = into.split_at_mut(OBSERVATION);
        fixed.copy_from_slice(&self.episodes[self.episode][self.at].observation);
        rest.iter_mut().zip(self.left).for_each(|(number, left)| *number = left as f32);
    }

    fn step(&mut self, action: usize, _: &mut ChaCha8Rng) -> Step<RESOURCES> {
        let moment = &self.episodes[self.episode][self.at];
        let price = self.price(action);
        let end = self.at + 1 == self.episodes[self.episode].len();
        let mut step = Step { reward: moment.rewards[action], costs: [0.0; RESOURCES], end };
        match self.form {
            Form::Plain { budget } => {
                step.costs = std::array::from_fn(|at| {
                    let excess = (moment.spent[at] + price[at] - budget[at]).max(0.0);
                    (excess / budget[at]) as f32
                });
            }
            Form::Journal { .. } => {
                self.left = std::array::from_fn(|at| self.left[at] - price[at]);
                if self.left.iter().any(|&left| left < 0.0) {
                    step.reward = 0.0;
                }
            }
        }
        // Reset follows an end before the next observation.
        self.at = if end { 0 } else { self.at + 1 };
        step
    }
}

fn price(profile: &Profile, level: usize) -> [f64; RESOURCES] {
    [profile.latency_s[level], profile.usage_usd[level]]
}

fn moments(environment: &Environment, dialogue: &Dialogue) -> Vec<Moment> {
    let mut history = History::default();
    let mut spent = [0.0; RESOURCES];
    let moments = dialogue.turns.iter().map(|turn| {
        let features = *history.observe(turn.task);
        let rewards = environment.outcomes(&features, turn).map(|outcome| outcome.reward as f32);
        let moment = Moment { observation: features.map(|value| value as f32), rewards, spent };
        let logged = logged_action_of(turn);
        history.acted(logged);
        let price = price(&environment.profile, level(logged));
        spent = std::array::from_fn(|at| spent[at] + price[at]);
        moment
    });
    moments.collect()
}

/// `ranges`: the least and the largest budget of each resource.
fn draw_budgets(draw: Draw, ranges: [[f64; 2]; RESOURCES], random: &mut ChaCha8Rng) -> [f64; RESOURCES] {
    let mut of = |kinds: [Kind; RESOURCES]| std::array::from_fn(|at| kinds[at].draw(ranges[at], random));
    match draw {
        Draw::Normal => of([Kind::Normal; 2]),
        Draw::Uniform => of([Kind::Uniform; 2]),
        Draw::ExtremeAware => {
            let kinds = match random.random::<f64>() {
                share if share < 0.5 => [Kind::Normal; 2],
                share if share < 0.8 => [Kind::Uniform; 2],
                share if share < 0.85 => [Kind::Edge, Kind::Uniform],
                share if share < 0.9 => [Kind::Uniform, Kind::Edge],
                _ => [Kind::Edge; 2],
            };
            std::array::from_fn(|at| kinds[at].draw(ranges[at], random))
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Normal,
    Uniform,
    /// At either end, off by an exponential amount of a tenth of the range.
    Edge,
}

impl Kind {
    fn draw(self, [low, high]: [f64; 2], random: &mut ChaCha8Rng) -> f64 {
        let span = high - low;
        let value = match self {
            Kind::Normal => (low + high) / 2.0 + normal(random) * span / 6.0,
            Kind::Uniform => low + span * random.random::<f64>(),
            Kind::Edge => {
                let off = -(1.0 - random.random::<f64>()).ln() * span / 10.0;
                if random.random_bool(0.5) { low + off } else { high - off }
            }
        };
        value.clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::paper::{Estimator, Weights};
    use crate::tmo::synthetic;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn world(form: Form) -> (PaperWorld, Environment, Vec<Dialogue>) {
        let data = synthetic::dataset(30, 3, 4);
        let estimator = Estimator::fit(&data, &data.dialogues).unwrap();
        let environment = Environment { estimator, profile: Profile::default(), weights: Weights::default() };
        let dialogues: Vec<&Dialogue> = data.dialogues.iter().collect();
        (PaperWorld::new(&environment, &dialogues, form), environment, data.dialogues.clone())
    }

    fn seen(world: &PaperWorld) -> Vec<f32> {
        let mut numbers = vec![0.0; world.width()];
        world.observe(&mut numbers);
        numbers
    }

    proptest! {
        /// Rewards are those of the chosen action, observations those of the logged one.
        #[test]
        fn follows_the_log_whatever_is_chosen(seed in 0u64..50, action in 0usize..ACTIONS) {
            let (mut world, environment, dialogues) = world(Form::Plain { budget: [30.0, 0.05] });
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            world.reset(&mut random);
            let mut history = History::default();
            for turn in &dialogues[world.episode].turns {
                let features = *history.observe(turn.task);
                prop_assert_eq!(seen(&world), features.map(|value| value as f32).to_vec());
                let expected = environment.outcome(&features, turn, action);
                let step = world.step(action, &mut random);
                prop_assert!((step.reward - expected.reward as f32).abs() < 1e-5);
                history.acted(logged_action_of(turn));
            }
        }

        /// The journal's form: what remains is seen, and a step beyond it earns nothing.
        #[test]
        fn a_step_over_a_budget_earns_nothing(seed in 0u64..200, action in 0usize..ACTIONS) {
            let (mut world, environment, _) = world(Form::Journal { draw: Draw::ExtremeAware });
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            world.reset(&mut random);
            loop {
                let before = seen(&world);
                let [latency_s, usage_usd] = world.price(action);
                let fits = f64::from(before[25]) >= latency_s && f64::from(before[26]) >= usage_usd;
                let expected = world.episodes[world.episode][world.at].rewards[action];
                let step = world.step(action, &mut random);
                prop_assert_eq!(step.reward, if fits { expected } else { 0.0 });
                prop_assert_eq!(step.costs, [0.0; 2]);
                if step.end {
                    break;
                }
                prop_assert!((seen(&world)[25] - (before[25] - latency_s as f32)).abs() < 1e-4);
            }
            prop_assert_eq!(environment.profile, world.profile);
        }

        #[test]
        fn budgets_are_drawn_within_their_range(seed in 0u64..500, which in 0usize..3) {
            let draw = [Draw::Normal, Draw::Uniform, Draw::ExtremeAware][which];
            let drawn = draw_budgets(draw, [[1.0, 5.0], [0.1, 0.2]], &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!((1.0..=5.0).contains(&drawn[0]) && (0.1..=0.2).contains(&drawn[1]), "{:?}", drawn);
        }
    }

    #[test]
    fn the_draws_differ_in_how_often_they_reach_an_end() {
        let share = |draw| {
            let mut random = ChaCha8Rng::seed_from_u64(9);
            let near = |_| {
                let [value, _] = draw_budgets(draw, [[0.0, 1.0]; 2], &mut random);
                usize::from(!(0.1..=0.9).contains(&value))
            };
            (0..10_000).map(near).sum::<usize>() as f64 / 10_000.0
        };
        // Beyond 2.4 standard deviations, and a fifth of the range; the mixture by its shares.
        let [normal, uniform, extreme] = [Draw::Normal, Draw::Uniform, Draw::ExtremeAware].map(share);
        assert!((normal - 0.0164).abs() < 0.01 && (uniform - 0.2).abs() < 0.02, "{normal} {uniform}");
        let expected = 0.5 * 0.0164 + 0.35 * 0.2 + 0.15 * (1.0 - (-1f64).exp());
        assert!((extreme - expected).abs() < 0.02, "{extreme} {expected}");
    }

    /// Costs count the history in the observation and the action, as the conference's code does.
    #[test]
    fn costs_are_what_exceeds_the_budget() {
        let (mut world, _, dialogues) = world(Form::Plain { budget: [7.0, 0.01] });
        let mut random = ChaCha8Rng::seed_from_u64(1);
        world.reset(&mut random);
        let logged = logged_action_of(&dialogues[world.episode].turns[0]);
        let (first, dear) = (world.price(logged), world.price(8));
        assert_eq!(world.step(0, &mut random).costs, [0.0, 0.0]);
        let step = world.step(8, &mut random);
        for (at, budget) in [7.0, 0.01].into_iter().enumerate() {
            let expected = ((first[at] + dear[at] - budget).max(0.0) / budget) as f32;
            assert!((step.costs[at] - expected).abs() < 1e-6);
        }
    }
}
