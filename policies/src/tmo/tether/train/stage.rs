//! Where a tether network is trained: dialogues, seen as its inputs.

use crate::tmo::honest::response::ResponseModel;
use crate::tmo::learn::world::Step;
use crate::tmo::tether::scene::{Facts, Ranges, Scene, action_inputs, turn_inputs};
use crate::tmo::tether::worth::immediate;
use rand_chacha::ChaCha8Rng;

/// One decision as the network sees it, and the actions that the mask leaves open.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    pub turn: Vec<f32>,
    /// One row of inputs for each action.
    pub actions: Vec<f32>,
    /// What each action is taken to earn at once; the network learns what is beyond.
    pub base: Vec<f32>,
    pub open: Vec<bool>,
}

impl Look {
    pub fn of(
        scene: &Scene<'_>,
        facts: &[Facts],
        open: Vec<bool>,
        view_slots: usize,
        trained: Option<&ResponseModel>,
    ) -> Look {
        let mut turn = vec![0.0; turn_inputs(view_slots)];
        scene.write(view_slots, &mut turn);
        let width = action_inputs(view_slots);
        let mut actions = vec![0.0; width * facts.len()];
        let ranges = Ranges::over(facts);
        for (facts, out) in facts.iter().zip(actions.chunks_exact_mut(width)) {
            facts.write(scene, &ranges, view_slots, out);
        }
        let at_once = |facts: &Facts| trained.map_or(0.0, |trained| immediate(trained, scene.task, facts, &ranges));
        let base = facts.iter().map(at_once).collect();
        Look { turn, actions, base, open }
    }
}

/// An environment of dialogues with `R` budgets. All randomness comes from the generator that is passed in.
pub trait Stage<const R: usize> {
    /// Settles what all dialogues of one batch share: the number of views.
    fn deal(&mut self, _random: &mut ChaCha8Rng) {}
    /// Begins a dialogue whose first turn can be served.
    fn begin(&mut self, random: &mut ChaCha8Rng);
    fn look(&self) -> Look;
    /// What a teacher who does not know the coming turns expects of each action, to the dialogue's end; meaningless
    /// where an action is closed.
    fn expected(&mut self, random: &mut ChaCha8Rng) -> Vec<f32>;
    /// Takes an action. Costs are what it overspends, as shares of each budget.
    fn act(&mut self, action: usize, random: &mut ChaCha8Rng) -> Step<R>;
}
