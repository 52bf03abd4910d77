//! Rated requests: for each prompt, what each model of the zoo would have cost and whether it would have satisfied.

use rayon::prelude::*;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tether_policies::mess::static_mix::Means;
use tether_policies::mess::{Encoder, RequestFeatures};

/// A zoo and its requests, models in the ladder's order.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub name: String,
    pub models: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub features: RequestFeatures,
    /// 0 or 1 per model.
    pub satisfied: Vec<f64>,
    /// Per model, in the data's unit (US dollars, or whatever `--costs` gives).
    pub cost: Vec<f64>,
}

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    pub path: &'a Path,
    /// The ladder, cheapest first.
    pub models: &'a [String],
    /// One constant cost per model instead of the data's.
    pub costs: Option<&'a [f64]>,
    /// Leave out rows that lack a model instead of refusing the file.
    pub skip_incomplete: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}, line {line}: {problem}")]
    Line { path: PathBuf, line: usize, problem: String },
    #[error("{path} has no rows")]
    Empty { path: PathBuf },
    #[error("--models needs at least one model; {path} has {known}")]
    NoModels { path: PathBuf, known: String },
    #[error("--costs has {costs} numbers for {models} models, or one that is not a finite number above 0")]
    Costs { costs: usize, models: usize },
}

/// One line of the file. `benchmark` and `split` are not read: a router must not see them.
#[derive(Debug, Deserialize)]
struct Line {
    prompt: String,
    models: HashMap<String, Rated>,
}

#[derive(Debug, Deserialize)]
struct Rated {
    satisfied: f64,
    cost_usd: Option<f64>,
}

/// Reads a JSON-lines file and encodes its prompts.
pub fn load(source: &Source<'_>, encoder: &dyn Encoder) -> Result<Dataset, DataError> {
    let path = source.path.to_owned();
    let text = std::fs::read_to_string(source.path).map_err(|error| DataError::Read { path: path.clone(), error })?;
    if let Some(costs) = source.costs
        && (costs.len() != source.models.len() || !costs.iter().all(|cost| cost.is_finite() && *cost > 0.0))
    {
        return Err(DataError::Costs { costs: costs.len(), models: source.models.len() });
    }
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    if let ([], Some((_, line))) = (source.models, lines.first()) {
        return Err(DataError::NoModels { path, known: known_models(line) });
    }
    let rows: Result<Vec<Option<Row>>, DataError> =
        lines.par_iter().map(|&(number, line)| read_row(source, encoder, number + 1, line)).collect();
    let rows: Vec<Row> = rows?.into_iter().flatten().collect();
    if rows.is_empty() {
        return Err(DataError::Empty { path });
    }
    let name = source.path.file_name().map_or("data".into(), |name| name.to_string_lossy().into_owned());
    Ok(Dataset { name, models: source.models.to_vec(), rows })
}

/// The prompts of the first rows.
pub fn prompts(path: &Path, count: usize) -> Result<Vec<String>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|error| DataError::Read { path: path.to_owned(), error })?;
    let prompt = |(number, line): (usize, &str)| {
        let line: Result<Line, _> = serde_json::from_str(line);
        line.map(|line| line.prompt).map_err(|problem| DataError::Line {
            path: path.to_owned(),
            line: number + 1,
            problem: problem.to_string(),
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(count).map(prompt).collect()
}

fn known_models(line: &str) -> String {
    let line: Result<Line, _> = serde_json::from_str(line);
    let mut names: Vec<String> = line.map(|line| line.models.into_keys().collect()).unwrap_or_default();
    names.sort();
    names.join(", ")
}

fn read_row(source: &Source<'_>, encoder: &dyn Encoder, number: usize, line: &str) -> Result<Option<Row>, DataError> {
    let error = |problem: String| DataError::Line { path: source.path.to_owned(), line: number, problem };
    let line: Line = serde_json::from_str(line).map_err(|problem| error(problem.to_string()))?;
    let mut row = Row { features: encode(encoder, &line.prompt), satisfied: vec![], cost: vec![] };
    for (m, name) in source.models.iter().enumerate() {
        let Some(rated) = line.models.get(name) else {
            if source.skip_incomplete {
                return Ok(None);
            }
            let known = line.models.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(error(format!(
                "model {name} is missing (this row has {known}); --skip-incomplete leaves such rows out"
            )));
        };
        let cost = source.costs.map(|costs| costs[m]).or(rated.cost_usd);
        let cost =
            cost.ok_or_else(|| error(format!("{name} has no cost_usd; give one cost per model with --costs")))?;
        if !(cost.is_finite() && cost >= 0.0 && (0.0..=1.0).contains(&rated.satisfied)) {
            return Err(error(format!("{name} has cost {cost}, satisfied {}", rated.satisfied)));
        }
        row.satisfied.push(rated.satisfied);
        row.cost.push(cost);
    }
    Ok(Some(row))
}

pub fn encode(encoder: &dyn Encoder, prompt: &str) -> RequestFeatures {
    // About four bytes of English make a token.
    encoder.features(prompt, u32::try_from(prompt.len() / 4).unwrap_or(u32::MAX).max(1))
}

impl Dataset {
    /// What each model gives on the average; no router is told.
    pub fn means(&self) -> Vec<Means> {
        let count = self.rows.len() as f64;
        let mean = |m: usize| Means {
            satisfaction: self.rows.iter().map(|row| row.satisfied[m]).sum::<f64>() / count,
            cost: self.rows.iter().map(|row| row.cost[m]).sum::<f64>() / count,
        };
        (0..self.models.len()).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_policies::mess::HashedEncoder;

    fn load_text(text: &str, models: &[&str], costs: Option<&[f64]>, skip: bool) -> Result<Dataset, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, text).unwrap();
        let models: Vec<String> = models.iter().map(|name| (*name).to_owned()).collect();
        load(&Source { path: &path, models: &models, costs, skip_incomplete: skip }, &HashedEncoder)
    }

    const GOOD: &str = r#"{"prompt":"p","benchmark":"b","models":{"a":{"satisfied":1,"cost_usd":0.5},"b":{"satisfied":0,"cost_usd":null}}}"#;

    #[test]
    fn reads_rows_and_takes_costs_from_outside() {
        let data = load_text(GOOD, &["a", "b"], Some(&[1.0, 3.0]), false).unwrap();
        assert_eq!((data.rows[0].satisfied.clone(), data.rows[0].cost.clone()), (vec![1.0, 0.0], vec![1.0, 3.0]));
    }

    #[test]
    fn names_the_line_and_the_fix() {
        let text = |result: Result<Dataset, DataError>| result.unwrap_err().to_string();
        assert!(text(load_text(GOOD, &["a", "b"], None, false)).contains("line 1: b has no cost_usd"));
        assert!(text(load_text(GOOD, &["a", "c"], None, false)).contains("--skip-incomplete"));
        assert!(text(load_text(GOOD, &[], None, false)).contains("has a, b"));
        assert!(text(load_text(GOOD, &["a"], Some(&[f64::NAN]), false)).contains("--costs"));
        assert!(text(load_text("{", &["a"], None, false)).contains("line 1"));
        assert!(text(load_text("", &["a"], None, false)).contains("no rows"));
        let two = format!("{GOOD}\n{}", GOOD.replace("\"a\"", "\"z\""));
        assert_eq!(load_text(&two, &["a"], None, true).unwrap().rows.len(), 1);
    }
}
