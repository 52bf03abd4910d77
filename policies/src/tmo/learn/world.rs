//! What a learner acts in.

use rand_chacha::ChaCha8Rng;

/// What an action brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step<const R: usize> {
    pub reward: f32,
    /// Of each constrained resource, in a unit of the world's choice (shares of a budget, say).
    pub costs: [f32; R],
    /// The episode ended with this step.
    pub end: bool,
}

/// An environment of numbers: fixed length of observation, fixed number of actions, `R` constrained resources.
///
/// All randomness comes from the generator that is passed in, so that a run can be repeated.
pub trait World<const R: usize> {
    /// Numbers in an observation.
    fn width(&self) -> usize;
    fn actions(&self) -> usize;
    /// Begins an episode.
    fn reset(&mut self, random: &mut ChaCha8Rng);
    /// Writes what a decision sees now; `into` is of [`World::width`].
    fn observe(&self, into: &mut [f32]);
    /// Takes an action below [`World::actions`].
    fn step(&mut self, action: usize, random: &mut ChaCha8Rng) -> Step<R>;
}
