//! What the newest message is about, from its text: its task category, and how much each camera matters. Pure.

use tether_policies::text::{LoadError, TaskClassifier, TextAssociation};
use tether_protocol::context::ViewContext;
use tether_protocol::record::TaskSource;

/// The models that this program carries.
pub struct Question {
    tasks: TaskClassifier,
    association: TextAssociation,
}

/// A task category and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub name: String,
    pub source: TaskSource,
}

impl Question {
    /// # Errors
    /// Never in a build whose tests pass.
    pub fn built_in() -> Result<Self, LoadError> {
        Ok(Self { tasks: TaskClassifier::built_in()?, association: TextAssociation::built_in()? })
    }

    /// What the caller says, else what the text tells, else unknown.
    pub fn task(&self, given: Option<&str>, text: &str) -> Option<Task> {
        let task = |name: &str, source| Task { name: name.to_owned(), source };
        match given {
            Some(name) => Some(task(name, TaskSource::Request)),
            None => self.tasks.classify(text).map(|guess| task(guess.task, TaskSource::Text)),
        }
    }

    /// Fills in how much each camera matters to `text`; the first three as M4A1's first-person, side and overhead view.
    /// What a sensor matters nobody has measured: it stays unknown.
    pub fn associate(&self, text: &str, views: &mut [ViewContext]) {
        let Some(estimate) = self.association.estimate(text) else { return };
        let cameras = views.iter_mut().filter(|view| !view.is_text);
        for (place, view) in cameras.enumerate() {
            view.association = Some(estimate.camera(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_protocol::{Reading, ViewName};

    #[test]
    fn the_caller_s_word_goes_before_the_text() {
        let question = Question::built_in().unwrap();
        let text = "Please turn off the heater in the bathroom.";
        let told = question.task(Some("Juggling"), text).unwrap();
        assert_eq!((told.name.as_str(), told.source), ("Juggling", TaskSource::Request));
        let guessed = question.task(None, text).unwrap();
        assert_eq!((guessed.name.as_str(), guessed.source), ("Assistive System", TaskSource::Text));
        assert_eq!(question.task(None, "?"), None);
    }

    #[test]
    fn cameras_get_a_number_and_sensors_stay_unknown() {
        let view = |(name, is_text): (&str, bool)| ViewContext {
            name: ViewName::new(name).unwrap(),
            encoded_bytes: Reading::unknown("none"),
            attached: false,
            is_text,
            local_only: false,
            association: None,
        };
        let mut views: Vec<ViewContext> =
            [("front", false), ("sensors", true), ("side", false)].into_iter().map(view).collect();
        let question = Question::built_in().unwrap();
        question.associate("!", &mut views);
        assert!(views.iter().all(|view| view.association.is_none()));
        question.associate("Where did I put the pan?", &mut views);
        let known: Vec<bool> = views.iter().map(|view| view.association.is_some_and(|a| a > 0.1)).collect();
        assert_eq!(known, [true, false, true]);
    }
}
