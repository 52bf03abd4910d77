//! A language model as the policy: it is told of the turn and of each action, and asked for a number.

use super::run::{Contender, Now};
use anyhow::Context;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tether_models::registry::Registry;
use tether_models::{Advance, SamplingOptions, Sequence};
use tether_models::{ChatMessage, Engine, GenerateOptions, Generation, LoadOptions, OnContextFull};
use tether_policies::tmo::paper::{ACTIONS, SENT, level};

/// A number and some words before it.
const ANSWER_TOKENS: usize = 16;

/// Who can be asked.
pub trait Adviser: Sync {
    fn name(&self) -> String;
    /// The answer to a question, in text.
    fn ask(&self, question: &str) -> anyhow::Result<String>;
}

/// Asks at each turn. An answer without a permitted number means local, and is counted.
pub struct Asked<'a> {
    pub adviser: &'a dyn Adviser,
    pub tasks: &'a [String],
    unclear: AtomicUsize,
    /// The first failure; a contender has no way to fail.
    failure: Mutex<Option<anyhow::Error>>,
}

impl<'a> Asked<'a> {
    pub fn new(adviser: &'a dyn Adviser, tasks: &'a [String]) -> Self {
        Asked { adviser, tasks, unclear: AtomicUsize::new(0), failure: Mutex::new(None) }
    }

    /// Answers that named no action; an error if the adviser failed.
    pub fn finish(self) -> anyhow::Result<usize> {
        match self.failure.into_inner() {
            Ok(None) => Ok(self.unclear.into_inner()),
            Ok(Some(error)) => Err(error),
            Err(_) => anyhow::bail!("the adviser panicked"),
        }
    }

    fn question(&self, now: &Now<'_>) -> String {
        let task = self.tasks.get(now.turn.task).map_or("unknown", String::as_str);
        let mut text = format!(
            "A robot with three cameras answers its user, either with a small model of its own or with a large one in \
             the cloud, which can be sent views.\nThe user asks ({task}): {}\nTurns after this one: {}. Left for all \
             of them: {:.1} s, {:.4} USD.\n",
            now.turn.question,
            now.rest.len(),
            now.left[0],
            now.left[1]
        );
        for (action, sent) in SENT.iter().enumerate() {
            let profile = &now.environment.profile;
            let (latency_s, usage_usd) = (profile.latency_s[level(action)], profile.usage_usd[level(action)]);
            let how = match sent {
                None => "own model".to_owned(),
                Some(views) if views.is_empty() => "cloud, text only".to_owned(),
                Some(views) => {
                    let fits = |view| format!("view {view} (fits {:.2})", now.turn.association[view]);
                    format!("cloud with {}", views.iter().map(fits).collect::<Vec<_>>().join(", "))
                }
            };
            let _ = writeln!(text, "{action}: {how}; {latency_s:.2} s, {usage_usd:.5} USD");
        }
        text + "Which gives the best answer for its time and money? Reply with the number alone."
    }
}

impl Contender for Asked<'_> {
    fn name(&self) -> String {
        format!("asked: {}", self.adviser.name())
    }

    fn choose(&self, now: &Now<'_>) -> Option<usize> {
        match self.adviser.ask(&self.question(now)) {
            Ok(answer) => Some(chosen(&answer).unwrap_or_else(|| {
                self.unclear.fetch_add(1, Ordering::Relaxed);
                0
            })),
            Err(error) => {
                if let Ok(mut failure) = self.failure.lock() {
                    failure.get_or_insert(error);
                }
                None
            }
        }
    }
}

/// The first number of an answer, if it is an action's.
fn chosen(answer: &str) -> Option<usize> {
    let digits = answer.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|&action| action < ACTIONS)
}

/// A local model, greedy, one question at a time; what questions have in common is computed once.
pub struct LocalModel {
    engine: Engine,
    sequence: Mutex<Sequence>,
}

impl LocalModel {
    /// By the registry's name, or the path of a GGUF file.
    pub fn load(name_or_path: &str) -> anyhow::Result<Self> {
        let path = Registry::from_env()?.resolve(name_or_path)?;
        let engine = Engine::load(&path, &LoadOptions::default())?;
        let sequence = Mutex::new(Sequence::new(&engine)?);
        Ok(LocalModel { engine, sequence })
    }
}

impl Adviser for LocalModel {
    fn name(&self) -> String {
        self.engine.info().name.clone()
    }

    fn ask(&self, question: &str) -> anyhow::Result<String> {
        let message = ChatMessage { role: "user".to_owned(), content: question.to_owned() };
        let prompt = self.engine.prepare(&[message], OnContextFull::Error, ANSWER_TOKENS)?.tokens;
        let options =
            GenerateOptions { sampling: SamplingOptions::default(), max_tokens: ANSWER_TOKENS, stop: Vec::new() };
        let mut sequence = self.sequence.lock().ok().context("another question panicked")?;
        let mut generation = Generation::new(&self.engine, &mut sequence, prompt, &options)?;
        let mut answer = String::new();
        loop {
            match generation.advance()? {
                Advance::Prefilled => {}
                Advance::Text(text) => answer += &text,
                Advance::Done(text, _) => return Ok(answer + &text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::{environment, made_up, named};
    use crate::tmo::run::play;

    /// Answers what a function makes of the question.
    struct Scripted<F>(F);

    impl<F: Fn(&str) -> anyhow::Result<String> + Sync> Adviser for Scripted<F> {
        fn name(&self) -> String {
            "script".to_owned()
        }

        fn ask(&self, question: &str) -> anyhow::Result<String> {
            (self.0)(question)
        }
    }

    fn played(
        script: impl Fn(&str) -> anyhow::Result<String> + Sync,
    ) -> (crate::tmo::run::Score, anyhow::Result<usize>) {
        let (data, splits) = made_up();
        let environment = environment(&data, &splits[0]).unwrap();
        let test = named(&data, &splits[0].test).unwrap();
        let adviser = Scripted(script);
        let asked = Asked::new(&adviser, &data.tasks);
        (play(&asked, &environment, &test[..3], [30.0, 0.05]), asked.finish())
    }

    #[test]
    fn the_answer_s_number_is_taken() {
        for (answer, action) in [("3", Some(3)), ("Action 8: all", Some(8)), ("9", None), ("none", None), ("12", None)]
        {
            assert_eq!(chosen(answer), action, "{answer}");
        }
        let (score, unclear) = played(|question| {
            assert!(question.contains("USD") && question.contains("8: cloud with view 0"), "{question}");
            Ok("I would use 1.".to_owned())
        });
        assert_eq!((score.actions[1], unclear.unwrap()), (score.turns, 0));
    }

    #[test]
    fn an_unclear_answer_is_local_and_counted_and_a_failure_is_one() {
        let (score, unclear) = played(|_| Ok("hm".to_owned()));
        assert_eq!((score.actions[0], unclear.unwrap()), (score.turns, score.turns));
        let (score, failed) = played(|_| anyhow::bail!("no model"));
        assert_eq!(score.refused, score.turns);
        assert_eq!(failed.unwrap_err().to_string(), "no model");
    }
}
