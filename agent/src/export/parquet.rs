//! Parquet, column by column in groups of rows, Snappy-compressed.

use super::columns::{COLUMNS, Cell, Kind};
use super::{ExportError, Exported};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::io::Write;
use std::sync::Arc;

/// About 25 MB of records in memory at a time.
const GROUP_ROWS: usize = 10_000;

pub(super) struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    /// The rows of the group that is being filled, by column.
    cells: Vec<Vec<Cell>>,
}

impl<W: Write + Send> Table<W> {
    pub(super) fn new(out: W) -> Result<Self, ExportError> {
        let fields = COLUMNS.iter().map(|(name, kind, _)| field(name, *kind)).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Type::group_type_builder("turn").with_fields(fields).build()?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        Ok(Self { writer, cells: vec![Vec::new(); COLUMNS.len()] })
    }

    pub(super) fn row(&mut self, turn: &Exported) -> Result<(), ExportError> {
        for (cells, (_, _, make)) in self.cells.iter_mut().zip(&COLUMNS) {
            cells.push(make(turn));
        }
        if self.cells[0].len() >= GROUP_ROWS { self.group() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        if !self.cells[0].is_empty() {
            self.group()?;
        }
        self.writer.close()?;
        Ok(())
    }

    fn group(&mut self) -> Result<(), ExportError> {
        let mut group = self.writer.next_row_group()?;
        for (cells, (_, kind, _)) in self.cells.iter_mut().zip(&COLUMNS) {
            let cells = std::mem::take(cells);
            match kind {
                Kind::Text => column::<ByteArrayType, _>(&mut group, cells, |cell| match cell {
                    Cell::Text(text) => text.map(|text| ByteArray::from(text.into_bytes())),
                    _ => None,
                })?,
                Kind::Int => column::<Int64Type, _>(&mut group, cells, |cell| match cell {
                    Cell::Int(value) => value,
                    _ => None,
                })?,
                Kind::Float => column::<DoubleType, _>(&mut group, cells, |cell| match cell {
                    Cell::Float(value) => value,
                    _ => None,
                })?,
                Kind::Bool => column::<BoolType, _>(&mut group, cells, |cell| match cell {
                    Cell::Bool(value) => Some(value),
                    _ => None,
                })?,
            }
        }
        group.close()?;
        Ok(())
    }
}

/// Every column is optional: what is unknown is null.
fn field(name: &str, kind: Kind) -> Result<Arc<Type>, ParquetError> {
    let physical = match kind {
        Kind::Text => Physical::BYTE_ARRAY,
        Kind::Int => Physical::INT64,
        Kind::Float => Physical::DOUBLE,
        Kind::Bool => Physical::BOOLEAN,
    };
    let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
    let builder = if kind == Kind::Text { builder.with_logical_type(Some(LogicalType::String)) } else { builder };
    Ok(Arc::new(builder.build()?))
}

fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    cells: Vec<Cell>,
    value: fn(Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = cells.into_iter().map(value).collect();
    // 1: there is a value; 0: null.
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let known: Vec<T::T> = values.into_iter().flatten().collect();
    let Some(mut writer) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns than the table".into()));
    };
    writer.typed::<T>().write_batch(&known, Some(&levels), None)?;
    writer.close()
}
