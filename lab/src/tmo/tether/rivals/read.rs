//! What the daemon reads from a question's text, for the rivals that have no more than that: models that never saw the
//! question.

use crate::tmo::{association, task};
use std::collections::BTreeMap;
use tether_policies::rule::Rule;
use tether_policies::text::{TaskClassifier, TextAssociation};
use tether_policies::tmo::data::{Dataset, Dialogue};
use tether_policies::tmo::honest::play::Now;
use tether_policies::tmo::tether::policy::permit;
use tether_policies::tmo::tether::{Facts, Past, Scene};
use tether_policies::{Candidate, Observation, Permitted, Policy};
use tether_protocol::context::ViewContext;
use tether_protocol::{Action, ActionSpace, Context, Cost, Reading, ViewName, ViewSet};

/// M4A1's views by the names of the default settings.
const VIEWS: [&str; 3] = ["front", "side", "overhead"];
/// The place of joules among the resources.
const ENERGY: usize = 2;

pub struct Reader<'a> {
    tasks: &'a [String],
    classifier: &'a TaskClassifier,
    associations: BTreeMap<&'a str, TextAssociation>,
    space: ActionSpace,
}

impl<'a> Reader<'a> {
    /// Of the dialogues `asked`: the classifier knows none of their sentences, the association of each question is learned
    /// from the other questions of `training`.
    pub fn new(
        data: &'a Dataset,
        classifier: &'a TaskClassifier,
        training: &[&Dialogue],
        asked: &[&'a Dialogue],
    ) -> anyhow::Result<Reader<'a>> {
        let associations = association::of_other_questions(training, asked)?;
        let names = VIEWS.iter().map(|name| ViewName::new(*name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Reader { tasks: &data.tasks, classifier, associations, space: ActionSpace::new(names)? })
    }

    /// For tests and tools without data.
    pub fn classifier() -> anyhow::Result<TaskClassifier> {
        task::from_phrases()
    }

    fn task(&self, question: &str) -> Option<usize> {
        let guess = self.classifier.classify(question)?;
        self.tasks.iter().position(|task| task == guess.task)
    }

    /// The scene and the actions as they look to a daemon that has the text.
    pub fn with<T>(&self, now: &Now<'_>, decide: impl FnOnce(&Scene<'_>, &[Facts]) -> T) -> T {
        let before = now.scene.history.iter().zip(now.asked);
        let history: Vec<Past> = before.map(|(past, turn)| Past { task: self.task(&turn.question), ..*past }).collect();
        let question = now.asked.last().map_or("", |turn| turn.question.as_str());
        let scene = Scene { history: &history, task: self.task(question), ..now.scene };
        let estimate = self.associations.get(question).and_then(|model| model.estimate(question));
        let read = |facts: &Facts| {
            let mut facts = *facts;
            let sum = |views: ViewSet| estimate.map(|estimate| views.iter().map(|view| estimate.camera(view)).sum());
            facts.association = if facts.views.is_empty() { Some(0.0) } else { sum(facts.views) };
            if scene.remaining[ENERGY].is_none() {
                facts.cost[ENERGY] = None;
            }
            facts
        };
        let facts: Vec<Facts> = now.moment.facts.iter().map(read).collect();
        decide(&scene, &facts)
    }

    /// What the documented rule takes among the actions that fit the budgets.
    pub fn rule(&self, now: &Now<'_>) -> Option<usize> {
        let facts = &now.moment.facts;
        let mut open = vec![false; facts.len()];
        permit(&now.scene, facts, &mut open);
        let candidate = |place: usize| Candidate { action: Action(place as u16), predicted: Cost::default() };
        let candidates: Vec<Candidate> = (0..facts.len()).filter(|&place| open[place]).map(candidate).collect();
        let permitted = Permitted::new(candidates).ok()?;
        let view = |name: &ViewName| ViewContext {
            name: name.clone(),
            encoded_bytes: Reading::known(1, 0, "there is a picture"),
            attached: false,
            is_text: false,
            local_only: false,
            association: None,
        };
        let question = now.asked.last().map_or("", |turn| turn.question.as_str());
        let observation = Observation {
            space: self.space.clone(),
            history: Vec::new(),
            task: None,
            text: question.to_lowercase(),
            prompt_tokens: 0,
            local_context_tokens: None,
            max_tokens: 0,
            context: Context { views: self.space.views().iter().map(view).collect(), ..Context::default() },
            remaining: Cost::default(),
            prices: tether_policies::budget::Prices::default(),
            ratings: Default::default(),
            considered: Vec::new(),
            turns_left: None,
            deadline_ms: None,
        };
        Some(usize::from(Rule.decide(&observation, &permitted, 0).action.0))
    }
}
