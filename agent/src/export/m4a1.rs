//! The form of M4A1 (TMO's dataset), as `policies/src/tmo/data.rs` reads it: dialogues of turns that somebody rated.

use super::{ExportError, Exported};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use tether_policies::tmo::data::{BEST_SCORE, MAX_TURNS};
use tether_protocol::record::Outcome;
use tether_protocol::{Route, ViewName};

/// Turns that the form cannot hold, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Without a rating there is no score.
    pub unrated: u64,
    /// Failed, cancelled or cut off.
    pub unanswered: u64,
    /// With other views than the first turn that was kept: all dialogues of a file have the same.
    pub other_views: u64,
}

/// Dialogues as they are gathered.
#[derive(Default)]
pub struct M4a1 {
    views: Option<Vec<ViewName>>,
    /// By session, or by the turn's own id where there is none; in the order of their first turns.
    dialogues: BTreeMap<String, Dialogue>,
    skipped: Skipped,
}

#[derive(Default)]
struct Dialogue {
    order: usize,
    turns: Vec<Value>,
    association: Vec<Vec<f64>>,
}

impl M4a1 {
    pub(super) fn turn(&mut self, turn: Exported) {
        let Exported { record, text } = turn;
        if !matches!(record.outcome, Outcome::Answered { .. }) {
            self.skipped.unanswered += 1;
            return;
        }
        let Some(rating) = record.rating else {
            self.skipped.unrated += 1;
            return;
        };
        let names: Vec<ViewName> = record.context.views.iter().map(|view| view.name.clone()).collect();
        let views = self.views.get_or_insert(names.clone());
        if *views != names {
            self.skipped.other_views += 1;
            return;
        }
        // What an attempt at the cloud sent before the device answered told the answer nothing.
        let seen = record.views.iter().filter(|_| record.route == Route::Cloud);
        let seen: Vec<usize> = seen.filter_map(|view| views.iter().position(|known| known == view)).collect();
        let (question, answer) = text.unwrap_or_default();
        let row = json!({
            "question": question,
            "task_cat": record.task.as_deref().unwrap_or("Unknown"),
            "action": i32::from(record.route == Route::Cloud),
            "image_index": if seen.is_empty() { Value::Null } else { json!(seen) },
            "answer": answer,
            "score": rating * BEST_SCORE,
            "interaction_time": record.timings.total_ms.map(|ms| ms / 1e3),
            "usage_cost": record.measured.cost_usd,
            // Beyond M4A1, for whoever weights by it.
            "turn_id": record.turn_id,
            "propensity": record.propensity,
        });
        let association = record.context.views.iter().map(|view| view.association.unwrap_or(0.0)).collect();
        let name = record.session.map_or_else(|| record.turn_id.to_string(), |session| session.to_string());
        let order = self.dialogues.len();
        let dialogue = self.dialogues.entry(name).or_insert_with(|| Dialogue { order, ..Dialogue::default() });
        dialogue.turns.push(row);
        dialogue.association.push(association);
    }

    pub(super) fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// A dialogue of more turns than a reader takes is written as several.
    pub(super) fn write(self, out: &mut impl Write) -> Result<(), ExportError> {
        let mut dialogues: Vec<Dialogue> = self.dialogues.into_values().collect();
        dialogues.sort_by_key(|dialogue| dialogue.order);
        out.write_all(b"[")?;
        let mut id = 0u64;
        for Dialogue { turns, association, .. } in dialogues {
            for (turns, association) in turns.chunks(MAX_TURNS).zip(association.chunks(MAX_TURNS)) {
                out.write_all(if id == 0 { b"\n" } else { b",\n" })?;
                let form = json!({"id": id, "interactions": turns, "association_score": association});
                serde_json::to_writer(&mut *out, &form)?;
                id += 1;
            }
        }
        Ok(out.write_all(b"\n]\n")?)
    }
}
