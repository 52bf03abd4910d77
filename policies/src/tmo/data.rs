//! Dialogues in the form of M4A1: logged turns with their task, action, score, time and cost.

use serde::Deserialize;
use std::collections::BTreeSet;
use tether_protocol::limits::MAX_VIEWS;
use tether_protocol::{Route, ViewSet};

/// Turns in one dialogue, dialogues in one file, bytes of a file: far above M4A1 (5, 100, 0.4 MB) and far below
/// what would exhaust a laptop.
pub const MAX_TURNS: usize = 1_000;
pub const MAX_DIALOGUES: usize = 1_000_000;
pub const MAX_FILE_BYTES: usize = 1 << 30;

/// M4A1's judges score a usual answer 1 and the best kinds of answers around 2: what a rating of 1 is on that scale.
pub const BEST_SCORE: f64 = 2.0;

/// An answer with one of these is a refusal: its score counts as 0 (reference code).
const REFUSALS: [&str; 3] = ["sorry", "I don't have", "can't"];

/// What a data file holds, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    pub dialogues: Vec<Dialogue>,
    /// Task names in alphabetical order; a task's id is its position.
    pub tasks: Vec<String>,
    /// X, the number of views; the same for every turn.
    pub view_count: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Dialogue {
    pub id: u64,
    pub turns: Vec<Turn>,
}

/// One logged turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub question: String,
    /// Length of the logged answer.
    pub answer_bytes: usize,
    /// Index into [`Dataset::tasks`].
    pub task: usize,
    pub route: Route,
    /// The views that travelled.
    pub views: ViewSet,
    /// The judges' score of the answer; 0 where the answer is a refusal.
    pub score: f64,
    /// Measured, where the file has it.
    pub latency_s: Option<f64>,
    pub cost_usd: Option<f64>,
    /// Similarity of the question to each view (TMO: association).
    pub association: Vec<f64>,
}

/// A data file that cannot be used; names the dialogue and the field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DataError {
    #[error("the data is not JSON of the expected form: {0}")]
    Json(String),
    #[error("dialogue {dialogue}, {field}: {problem}")]
    Field { dialogue: u64, field: String, problem: String },
    #[error("{what}: {given}, at most {limit} are allowed")]
    Limit { what: &'static str, given: usize, limit: usize },
    #[error("the file holds no dialogue")]
    Empty,
}

#[derive(Deserialize)]
struct DialogueForm {
    id: u64,
    interactions: Vec<TurnForm>,
    association_score: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct TurnForm {
    question: String,
    task_cat: String,
    action: u8,
    image_index: Option<Vec<usize>>,
    answer: String,
    score: f64,
    interaction_time: Option<f64>,
    usage_cost: Option<f64>,
}

impl Dataset {
    /// Reads the text of a data file.
    pub fn parse(text: &str) -> Result<Dataset, DataError> {
        limit("bytes", text.len(), MAX_FILE_BYTES)?;
        // First a value for each dialogue, then each alone, so that an error can name its dialogue.
        let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|e| DataError::Json(e.to_string()))?;
        limit("dialogues", values.len(), MAX_DIALOGUES)?;
        let forms = values.into_iter().enumerate().map(|(at, value)| form(at, value)).collect::<Result<Vec<_>, _>>()?;
        Self::from_forms(forms)
    }

    fn from_forms(forms: Vec<DialogueForm>) -> Result<Dataset, DataError> {
        let names: BTreeSet<&str> =
            forms.iter().flat_map(|form| &form.interactions).map(|turn| turn.task_cat.as_str()).collect();
        let tasks: Vec<String> = names.into_iter().map(str::to_owned).collect();
        if forms.is_empty() {
            return Err(DataError::Empty);
        }
        // A dialogue without rows is refused below, with its name.
        let view_count = forms.iter().flat_map(|form| &form.association_score).next().map_or(0, Vec::len);
        limit("views", view_count, MAX_VIEWS)?;
        let dialogues = forms.into_iter().map(|form| dialogue(form, &tasks, view_count)).collect::<Result<_, _>>()?;
        Ok(Dataset { dialogues, tasks, view_count })
    }

    /// The dialogue with this id.
    pub fn dialogue(&self, id: u64) -> Option<&Dialogue> {
        self.dialogues.iter().find(|dialogue| dialogue.id == id)
    }
}

fn limit(what: &'static str, given: usize, limit: usize) -> Result<(), DataError> {
    if given > limit { Err(DataError::Limit { what, given, limit }) } else { Ok(()) }
}

fn form(at: usize, value: serde_json::Value) -> Result<DialogueForm, DataError> {
    let id = value.get("id").and_then(serde_json::Value::as_u64).unwrap_or(at as u64);
    serde_json::from_value(value).map_err(|error| wrong(id, "form", error.to_string()))
}

fn wrong(dialogue: u64, field: impl Into<String>, problem: impl Into<String>) -> DataError {
    DataError::Field { dialogue, field: field.into(), problem: problem.into() }
}

fn dialogue(form: DialogueForm, tasks: &[String], view_count: usize) -> Result<Dialogue, DataError> {
    let DialogueForm { id, interactions, association_score } = form;
    let turns = interactions.len();
    if turns == 0 || turns > MAX_TURNS {
        return Err(wrong(id, "interactions", format!("{turns} turns, 1 to {MAX_TURNS} are allowed")));
    }
    if association_score.len() != turns {
        let problem = format!("{} rows for {turns} turns", association_score.len());
        return Err(wrong(id, "association_score", problem));
    }
    let pairs = interactions.into_iter().zip(association_score).enumerate();
    let turns = pairs.map(|(at, (form, association))| turn(id, at, form, association, tasks, view_count));
    Ok(Dialogue { id, turns: turns.collect::<Result<_, _>>()? })
}

fn turn(
    id: u64,
    at: usize,
    form: TurnForm,
    association: Vec<f64>,
    tasks: &[String],
    view_count: usize,
) -> Result<Turn, DataError> {
    let field = |name: &str| format!("interactions[{at}].{name}");
    let finite = |name: &str, value: f64| {
        if value.is_finite() { Ok(value) } else { Err(wrong(id, field(name), format!("{value} is not a number"))) }
    };
    let optional = |name: &str, value: Option<f64>| value.map(|value| finite(name, value)).transpose();
    let route = match form.action {
        0 => Route::Local,
        1 => Route::Cloud,
        other => return Err(wrong(id, field("action"), format!("{other} is neither 0 (local) nor 1 (cloud)"))),
    };
    if association.len() != view_count {
        let problem = format!("{} views, the first dialogue has {view_count}", association.len());
        return Err(wrong(id, format!("association_score[{at}]"), problem));
    }
    if let Some(bad) = association.iter().find(|value| !value.is_finite()) {
        return Err(wrong(id, format!("association_score[{at}]"), format!("{bad} is not a number")));
    }
    let mut views = ViewSet::EMPTY;
    for view in form.image_index.unwrap_or_default() {
        if view >= view_count {
            return Err(wrong(id, field("image_index"), format!("view {view}, there are {view_count}")));
        }
        views = views.with(view);
    }
    if route == Route::Local && !views.is_empty() {
        return Err(wrong(id, field("image_index"), "a local turn sends no views"));
    }
    let refused = REFUSALS.iter().any(|words| form.answer.contains(words));
    // The set of names was made from these very turns.
    let task = tasks.iter().position(|name| *name == form.task_cat).unwrap_or_default();
    Ok(Turn {
        question: form.question,
        answer_bytes: form.answer.len(),
        task,
        route,
        views,
        score: if refused { 0.0 } else { finite("score", form.score)? },
        latency_s: optional("interaction_time", form.interaction_time)?,
        cost_usd: optional("usage_cost", form.usage_cost)?,
        association,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Dataset, DataError> {
        let mut value = serde_json::json!([{
            "id": 7,
            "interactions": [{
                "question": "q", "task_cat": "Query", "action": 1, "image_index": [1],
                "answer": "yes", "score": 1.5, "interaction_time": 2.0, "usage_cost": 0.1
            }],
            "association_score": [[0.1, 0.2, 0.3]]
        }]);
        edit(&mut value[0]);
        Dataset::parse(&value.to_string())
    }

    #[test]
    fn a_turn_is_read() {
        let data = one(|_| {}).unwrap();
        let turn = &data.dialogues[0].turns[0];
        assert_eq!((turn.route, turn.views, turn.score), (Route::Cloud, ViewSet(0b010), 1.5));
        assert_eq!((data.view_count, data.tasks.as_slice()), (3, &["Query".to_owned()][..]));
    }

    #[test]
    fn a_refusal_scores_nothing() {
        let data = one(|d| d["interactions"][0]["answer"] = "I am sorry, no.".into()).unwrap();
        assert_eq!(data.dialogues[0].turns[0].score, 0.0);
    }

    #[test]
    fn errors_name_the_dialogue_and_the_field() {
        let message = |edit: &dyn Fn(&mut serde_json::Value)| one(|d| edit(d)).unwrap_err().to_string();
        let cases: [(String, &str); 6] = [
            (message(&|d| d["interactions"][0]["action"] = 2.into()), "interactions[0].action"),
            (message(&|d| d["interactions"][0]["image_index"] = serde_json::json!([3])), "image_index"),
            (message(&|d| d["interactions"][0]["action"] = 0.into()), "image_index"),
            (message(&|d| d["association_score"] = serde_json::json!([])), "association_score"),
            (message(&|d| d["interactions"] = serde_json::json!([])), "interactions"),
            (message(&|d| d["interactions"][0]["score"] = "high".into()), "form"),
        ];
        for (text, field) in cases {
            assert!(text.contains("dialogue 7") && text.contains(field), "{text}");
        }
        assert_eq!(Dataset::parse("[]"), Err(DataError::Empty));
        assert!(matches!(Dataset::parse("{"), Err(DataError::Json(_))));
    }

    #[test]
    fn the_number_of_views_is_limited() {
        let row = vec![0.1; MAX_VIEWS];
        assert_eq!(one(|d| d["association_score"] = serde_json::json!([row])).unwrap().view_count, MAX_VIEWS);
        let row = vec![0.1; MAX_VIEWS + 1];
        assert!(matches!(one(|d| d["association_score"] = serde_json::json!([row])), Err(DataError::Limit { .. })));
    }
}
