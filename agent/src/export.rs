//! A ledger read for elsewhere: as a table (CSV, Parquet), as records (JSON lines), or in the form of M4A1, which TMO
//! trains on. The file is opened read-only, beside a daemon that may be writing it.

mod columns;
mod csv;
mod m4a1;
mod parquet;
mod source;

pub use m4a1::{M4a1, Skipped};
pub use source::{Exported, Source, SourceError};

use std::io::{self, Write};

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON array of dialogues, as TMO's dataset; only turns that were answered and rated
    M4a1,
    /// Comma-separated, with a header, RFC 4180
    Csv,
    /// For DuckDB, Spark, DataFusion, pandas
    Parquet,
    /// One whole record a line
    Jsonl,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error("the export cannot be written as Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub turns: u64,
    /// Turns that the form cannot hold.
    pub skipped: Skipped,
}

/// Writes every settled turn, oldest first. `progress` hears the count of turns now and then.
///
/// # Errors
/// [`ExportError`]: the ledger cannot be read, or the output not written.
pub fn export(
    source: &Source,
    format: Format,
    out: impl Write + Send,
    mut progress: impl FnMut(u64),
) -> Result<Report, ExportError> {
    let mut report = Report::default();
    let mut count = |turns: &mut u64| {
        *turns += 1;
        if turns.is_multiple_of(10_000) {
            progress(*turns);
        }
    };
    match format {
        Format::Csv => {
            let mut out = io::BufWriter::new(out);
            csv::header(&mut out)?;
            source.each(|turn| {
                count(&mut report.turns);
                csv::row(&mut out, &turn)
            })?;
            out.flush()?;
        }
        Format::Jsonl => {
            let mut out = io::BufWriter::new(out);
            source.each(|turn| {
                count(&mut report.turns);
                serde_json::to_writer(&mut out, &turn.record)?;
                Ok(out.write_all(b"\n")?)
            })?;
            out.flush()?;
        }
        Format::Parquet => {
            let mut table = parquet::Table::new(out)?;
            source.each(|turn| {
                count(&mut report.turns);
                table.row(&turn)
            })?;
            table.finish()?;
        }
        Format::M4a1 => {
            let mut dialogues = M4a1::default();
            source.each(|turn| {
                count(&mut report.turns);
                dialogues.turn(turn);
                Ok(())
            })?;
            report.skipped = dialogues.skipped();
            let mut out = io::BufWriter::new(out);
            dialogues.write(&mut out)?;
            out.flush()?;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
