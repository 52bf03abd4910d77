//! `tmo train-association`: how much each view matters to a question, estimated from its text alone.
//!
//! M4A1 has CLIP similarities of its 20 different questions to the three views of each scene. A text can at most tell the
//! mean of a question over scenes; what it tells about a question that nobody asked before is the figure reported.

use super::artifact::{self, Card};
use super::data;
use crate::mess::bench::Bar;
use anyhow::ensure;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tether_policies::text::TextAssociation;
use tether_policies::text::fit::{Example, Loss, fit};
use tether_policies::tmo::data::Dialogue;

/// M4A1's views in their order.
const VIEWS: [&str; 3] = ["first-person", "side", "overhead"];
/// Chosen by leaving one question out, among .01 .. 3 by factors of about three: with 20 questions there is no more to
/// choose on, so the figure flatters a little.
const L2: f64 = 0.03;
const STEPS: usize = 2_000;
/// Below this the estimate is worth nothing, and the daemon should say "unknown" instead.
const WORTH: f64 = 0.0;

/// One question: its example, and the scores of each turn that asks it.
struct Question {
    text: String,
    example: Example,
    scores: Vec<Vec<f64>>,
}

/// Trains and writes `association.safetensors` and its card into `out`.
///
/// # Errors
/// Also if the model is worth nothing on questions it has not seen: then there is nothing to ship.
pub fn train(folder: &Path, out: &Path) -> anyhow::Result<String> {
    let questions = questions(&data::dialogues(folder)?.dialogues.iter().collect::<Vec<_>>())?;
    let bar = bar(&questions);
    let value = bar.value.unwrap_or(f64::NAN);
    ensure!(value > WORTH, "held-out R^2 is {value:.3}: a mean would do as well, nothing is written");
    let model = model(questions.iter());
    let card = Card {
        what: "TMO's association of a question with each view, from its text: ridge regression on hashed word pieces",
        command: "tether-lab tmo train-association --data FOLDER".to_owned(),
        seed: artifact::SEED,
        data: artifact::hashes(Some(folder), &[])?,
        figures: BTreeMap::from([(bar.bar, value)]),
    };
    artifact::write(out, "association", &model.write()?, &card)
}

/// For each question of `asked`, the model that the other questions of `training` teach.
pub fn of_other_questions<'a>(
    training: &[&Dialogue],
    asked: &[&'a Dialogue],
) -> anyhow::Result<BTreeMap<&'a str, TextAssociation>> {
    let known = questions(training)?;
    let all: BTreeSet<&str> = asked.iter().flat_map(|d| &d.turns).map(|turn| turn.question.as_str()).collect();
    let without = |text: &'a str| (text, model(known.iter().filter(|question| question.text != text)));
    Ok(all.into_iter().map(without).collect())
}

/// The row of `make bench-tmo` about association.
pub fn bench(folder: Option<&Path>, show: &mut dyn FnMut(&Bar) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return show(&row(None, "skipped: no DATA".to_owned()));
    };
    show(&bar(&questions(&data::dialogues(folder)?.dialogues.iter().collect::<Vec<_>>())?))
}

fn questions(dialogues: &[&Dialogue]) -> anyhow::Result<Vec<Question>> {
    let mut found: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
    for turn in dialogues.iter().flat_map(|dialogue| &dialogue.turns) {
        let count = turn.association.len();
        ensure!(count == VIEWS.len(), "the data has {count} views, expected {VIEWS:?}");
        found.entry(turn.question.as_str()).or_default().push(turn.association.clone());
    }
    ensure!(found.len() > 2, "{} different questions are too few", found.len());
    let question = |(text, scores): (&str, Vec<Vec<f64>>)| {
        let example = Example::new(text, mean(&scores), scores.len() as f64);
        Question { text: text.to_owned(), example, scores }
    };
    Ok(found.into_iter().map(question).collect())
}

fn mean(scores: &[Vec<f64>]) -> Vec<f64> {
    (0..VIEWS.len()).map(|view| scores.iter().map(|row| row[view]).sum::<f64>() / scores.len() as f64).collect()
}

fn model<'q>(questions: impl Iterator<Item = &'q Question>) -> TextAssociation {
    let examples: Vec<&Example> = questions.map(|question| &question.example).collect();
    TextAssociation::new(fit(&examples, &VIEWS.map(str::to_owned), Loss::Squared, L2, STEPS))
}

/// Each question left out in turn.
fn bar(questions: &[Question]) -> Bar {
    let all: Vec<Vec<f64>> = questions.iter().flat_map(|question| question.scores.clone()).collect();
    let centre = mean(&all);
    let (mut left, mut spread) = ([0.0; VIEWS.len()], [0.0; VIEWS.len()]);
    for (at, question) in questions.iter().enumerate() {
        let others = questions.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, question)| question);
        let Some(estimate) = model(others).estimate(&question.text) else { continue };
        for row in &question.scores {
            for view in 0..VIEWS.len() {
                left[view] += (row[view] - estimate.camera(view)).powi(2);
                spread[view] += (row[view] - centre[view]).powi(2);
            }
        }
    }
    let pooled = 1.0 - left.iter().sum::<f64>() / spread.iter().sum::<f64>();
    let each: Vec<String> =
        (0..VIEWS.len()).map(|view| format!("{} {:.3}", VIEWS[view], 1.0 - left[view] / spread[view])).collect();
    let rmse = (left.iter().sum::<f64>() / (3 * all.len()) as f64).sqrt();
    let how = format!(
        "R^2 over {} turns, each of {} questions judged by a model of the others; {}; rmse {rmse:.4}",
        all.len(),
        questions.len(),
        each.join(", ")
    );
    row(Some(pooled), how)
}

fn row(value: Option<f64>, how: String) -> Bar {
    let bar = "association from text, questions never seen, R^2".to_owned();
    Bar { bar, value, target: WORTH, unit: "ratio", met: value.is_some_and(|value| value > WORTH), how }
}
