//! A recorded log (`tether export --format jsonl`), checked line by line.

use std::io::BufRead;
use tether_protocol::record::Outcome;
use tether_protocol::{ActionSpace, TurnRecord};

/// Far above the ledger's own limit of a record, far below what would exhaust a laptop.
const MAX_LINE_BYTES: usize = 1 << 20;
const MAX_TURNS: usize = 10_000_000;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("line {line} is no turn's record ({problem}); `tether export --format jsonl` writes one a line")]
    Record { line: usize, problem: String },
    #[error(
        "turn {turn} (line {line}) has no propensity: without the probability of what was chosen nothing can be said about \
         another policy; record turns with a tether that writes them"
    )]
    NoPropensity { turn: String, line: usize },
    #[error("turn {turn} (line {line}) has the propensity {given}, which is no probability above 0 and at most 1")]
    Propensity { turn: String, line: usize, given: f64 },
    #[error(
        "turn {turn} (line {line}) does not say what was permitted with its predicted costs and probabilities; it is from an older \
         tether"
    )]
    Permitted { turn: String, line: usize },
    #[error("turn {turn} (line {line}): {problem}")]
    Views { turn: String, line: usize, problem: String },
    #[error("line {line} has more than {MAX_LINE_BYTES} bytes")]
    Long { line: usize },
    #[error("the log has more than {MAX_TURNS} turns")]
    TooMany,
    #[error("the log holds no rated turn (of {turns}): rate turns with `tether feedback TURN RATING`")]
    NoRating { turns: usize },
}

/// One turn that can be learned from.
#[derive(Debug, Clone)]
pub struct Logged {
    pub record: TurnRecord,
    pub space: ActionSpace,
    /// In 0..1.
    pub rating: f64,
}

/// A log, in its order.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// All that were decided, for the dialogues' history; with their rating where they have one.
    pub turns: Vec<Logged>,
    /// Turns that were left out.
    pub unrated: usize,
    pub undecided: usize,
}

/// Reads a log.
///
/// # Errors
/// [`LogError`] names the line and the turn.
pub fn read(mut text: impl BufRead) -> Result<Log, LogError> {
    let mut log = Log::default();
    let mut space: Option<ActionSpace> = None;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let mut limited = std::io::Read::take(&mut text, MAX_LINE_BYTES as u64 + 1);
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if bytes.len() > MAX_LINE_BYTES {
            return Err(LogError::Long { line });
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let record = record(line, &bytes)?;
        let turn = || record.turn_id.to_string();
        if !(record.propensity > 0.0 && record.propensity <= 1.0) {
            return Err(LogError::Propensity { turn: turn(), line, given: record.propensity });
        }
        // Refused before any decision: nothing was chosen.
        if record.permitted.is_empty() && matches!(record.outcome, Outcome::Refused { .. } | Outcome::Failed { .. }) {
            log.undecided += 1;
            continue;
        }
        let told = [Some(record.predicted_costs.len()), record.probabilities.as_ref().map(Vec::len)];
        let each = told.into_iter().flatten().all(|told| told == record.permitted.len());
        if !each || !record.permitted.contains(&record.action) {
            return Err(LogError::Permitted { turn: turn(), line });
        }
        let names: Vec<_> = record.context.views.iter().map(|view| view.name.clone()).collect();
        let known = match space.take().filter(|space| space.views() == names) {
            Some(space) => space,
            None => ActionSpace::new(names).map_err(|error| LogError::Views {
                turn: turn(),
                line,
                problem: error.to_string(),
            })?,
        };
        if record.permitted.iter().any(|action| usize::from(action.0) >= known.action_count()) {
            let problem = "an action that its views do not have".to_owned();
            return Err(LogError::Views { turn: turn(), line, problem });
        }
        space = Some(known.clone());
        if record.rating.is_none() {
            log.unrated += 1;
        }
        if log.turns.len() >= MAX_TURNS {
            return Err(LogError::TooMany);
        }
        let rating = record.rating.unwrap_or(f64::NAN);
        log.turns.push(Logged { record, space: known, rating });
    }
    if log.turns.len() == log.unrated {
        return Err(LogError::NoRating { turns: log.turns.len() + log.undecided });
    }
    Ok(log)
}

fn record(line: usize, bytes: &[u8]) -> Result<TurnRecord, LogError> {
    let problem = |problem: serde_json::Error| LogError::Record { line, problem: problem.to_string() };
    // First any JSON, so that a missing propensity is told with the turn's name.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(problem)?;
    let turn = value.get("turn_id").and_then(serde_json::Value::as_str).map(str::to_owned);
    if let Some(turn) = turn
        && value.get("propensity").is_none_or(serde_json::Value::is_null)
    {
        return Err(LogError::NoPropensity { turn, line });
    }
    serde_json::from_value(value).map_err(problem)
}
