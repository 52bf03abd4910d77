//! TMO's task category of a question, from its text.

use super::linear::{Linear, LoadError, MAX_OUTPUTS, WriteError};

const KIND: &str = "tether-text-task";
/// Learned by `tether-lab tmo train-task`; its card is `artifacts/task.json`.
const BUILT_IN: &[u8] = include_bytes!("../../artifacts/task.safetensors");

/// A multinomial logistic regression that says nothing where it is not sure.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskClassifier {
    linear: Linear,
    min_confidence: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskGuess<'a> {
    pub task: &'a str,
    /// Its probability, in 0..1.
    pub confidence: f32,
}

impl TaskClassifier {
    /// # Panics
    /// If the minimum is no probability: only training calls this.
    pub fn new(linear: Linear, min_confidence: f32) -> Self {
        assert!((0.0..=1.0).contains(&min_confidence), "{min_confidence}");
        Self { linear, min_confidence }
    }

    /// The one in this program.
    pub fn built_in() -> Result<Self, LoadError> {
        Self::read(BUILT_IN)
    }

    pub fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        let (linear, metadata) = Linear::read(KIND, bytes)?;
        let given = metadata.get("min_confidence").map_or("", String::as_str);
        let min_confidence = given.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        let min_confidence = min_confidence.ok_or_else(|| LoadError::Metadata {
            field: "min_confidence",
            given: given.chars().take(80).collect(),
            expected: "a number in 0..1".to_owned(),
        })?;
        Ok(Self { linear, min_confidence })
    }

    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        self.linear.write(KIND, &[("min_confidence", self.min_confidence.to_string())])
    }

    pub fn tasks(&self) -> &[String] {
        self.linear.outputs()
    }

    /// The most probable task, whatever its probability; `None` for a text without words.
    pub fn best(&self, text: &str) -> Option<TaskGuess<'_>> {
        let mut scores: [f32; MAX_OUTPUTS] = self.linear.apply(text)?;
        let scores = &mut scores[..self.tasks().len()];
        let (at, &top) = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        let total: f32 = scores.iter().map(|score| (score - top).exp()).sum();
        Some(TaskGuess { task: &self.tasks()[at], confidence: 1.0 / total })
    }

    /// The most probable task, if it is probable enough to act on.
    pub fn classify(&self, text: &str) -> Option<TaskGuess<'_>> {
        self.best(text).filter(|guess| guess.confidence >= self.min_confidence)
    }
}
