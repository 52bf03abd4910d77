//! A ledger's turns, as an outcome: what a real robot's field test came to.

use super::tally::{Outcome, Tally};
use crate::export::{ExportError, Source};
use std::collections::BTreeSet;
use tether_policies::budget::Budget;

/// Names of policies in a title; more are counted.
const NAMED: usize = 3;

/// What a ledger held.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    pub outcome: Outcome,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Adds up every settled turn, in the order in which they began; `None`: there is none.
///
/// # Errors
/// The ledger cannot be read.
pub fn read(source: &Source, budgets: &[Budget]) -> Result<Option<Read>, ExportError> {
    let Some((first_ms, last_ms)) = source.span()? else { return Ok(None) };
    let mut missions = source.missions()?.into_iter().filter(|(_, start_ms)| *start_ms > first_ms).peekable();
    let mut tally = Tally::new(first_ms, last_ms - first_ms, budgets);
    let mut policies = BTreeSet::new();
    source.each(|turn| {
        while let Some((name, start_ms)) = missions.next_if(|(_, start_ms)| *start_ms <= turn.record.started_unix_ms) {
            tally.reset(start_ms, name);
        }
        if policies.len() <= NAMED && !policies.contains(&turn.record.policy) {
            policies.insert(turn.record.policy.clone());
        }
        tally.turn(&turn.record, None, None);
        Ok(())
    })?;
    let mut outcome = tally.end(None);
    outcome.policy = match policies.len() {
        0..=NAMED => policies.into_iter().collect::<Vec<_>>().join(", "),
        _ => "several policies".to_owned(),
    };
    Ok(Some(Read { outcome, first_ms, last_ms }))
}
