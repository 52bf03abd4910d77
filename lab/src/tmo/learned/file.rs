//! Trained policies of paper mode on disk.

use super::{Algorithm, Learned, Plan};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tether_policies::tmo::checkpoint::{Checkpoint, CheckpointError};
use tether_policies::tmo::learn::network::{PlainActorCritic, sizes};
use tether_policies::tmo::learn::paper_world::{PaperWorld, RESOURCES};
use tether_policies::tmo::learn::progress::Point;
use tether_policies::tmo::paper::ACTIONS;
use tether_policies::tmo::perceptron::{Activation, Perceptron};

/// A checkpoint's kind.
pub const KIND: &str = "tmo-paper";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    plan: Plan,
    /// The split whose training dialogues were used.
    split: usize,
    /// A task's number is its place here.
    tasks: Vec<String>,
    multipliers: [f32; RESOURCES],
    curve: Vec<Point>,
}

/// Writes `path` and its sibling `.safetensors`.
///
/// `data` is the SHA-256 of the dialogues, or how they were made.
pub fn save(learned: &Learned, path: &Path, split: usize, tasks: &[String], data: &str) -> Result<(), CheckpointError> {
    let Learned { plan, arrays, curve, multipliers, .. } = learned.clone();
    let settings = Settings { plan, split, tasks: tasks.to_vec(), multipliers, curve };
    Checkpoint::new(KIND, plan.seed, data, &settings, arrays)?.save(path)
}

/// A saved policy, and what it was trained on.
pub struct Saved {
    pub learned: Learned,
    pub split: usize,
    /// As [`save`] was told.
    pub data: String,
}

/// Refuses a policy of other tasks or shapes.
pub fn load(path: &Path, tasks: &[String]) -> Result<Saved, CheckpointError> {
    let checkpoint = Checkpoint::load(path, KIND)?;
    let Settings { plan, split, tasks: trained, multipliers, curve } = checkpoint.settings()?;
    if trained != tasks {
        let problem = format!("the policy knows the tasks {trained:?}, the data has {tasks:?}");
        return Err(CheckpointError::Config(problem));
    }
    let width = PaperWorld::width_of(&plan.form());
    let arrays = checkpoint.arrays;
    let actor = match plan.algorithm {
        Algorithm::A2c | Algorithm::Ppo => PlainActorCritic::from_arrays(&arrays, width, ACTIONS)?.actor,
        Algorithm::Dqn => Perceptron::from_arrays(&arrays, "q", &sizes(width, ACTIONS), Activation::Relu)?,
    };
    Ok(Saved { learned: Learned { plan, actor, arrays, curve, multipliers }, split, data: checkpoint.config.data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::{environment, made_up, named};
    use crate::tmo::learned::Handling;
    use crate::tmo::run::play;

    #[test]
    fn a_policy_comes_back_and_plays_the_same() {
        let (data, splits) = made_up();
        let environment = environment(&data, &splits[0]).unwrap();
        let training = named(&data, &splits[0].train).unwrap();
        let test = named(&data, &splits[0].test).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for algorithm in Algorithm::ALL {
            let plan = Plan { steps: 300, ..Plan::new(algorithm, Handling::Journal, 5) };
            let learned = plan.train(&environment, &training, &mut |_| {});
            let path = folder.path().join("policy.json");
            save(&learned, &path, 3, &data.tasks, "synthetic").unwrap();
            let Saved { learned: loaded, split, data: trained_on } = load(&path, &data.tasks).unwrap();
            assert_eq!((split, trained_on.as_str(), loaded.plan), (3, "synthetic", learned.plan));
            let played = |policy| play(policy, &environment, &test, [15.0, 0.02]);
            assert_eq!(played(&loaded), played(&learned));
            let error = load(&path, &data.tasks[1..]).err().unwrap().to_string();
            assert!(error.contains("knows the tasks"), "{error}");
        }
    }
}
