//! A file's matrices: repacked for our kernels, or as candle multiplies them.

use super::{Gguf, Repack, first_line, runs_faster_as_q8};
use crate::error::ModelError;
use crate::kernels::Matrix;
use crate::kernels::pack::{Packer, Source, Stored, dequantise_row};
use candle_core::quantized::{GgmlDType, QTensor};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// A matrix of `rows` outputs and `columns` inputs.
pub(crate) enum Weight {
    Packed(Arc<Matrix>),
    Candle(Arc<QTensor>),
}

/// Rows of a matrix, read from the file when they are needed.
pub(crate) struct RowReader {
    file: File,
    path: PathBuf,
    name: String,
    stored: Stored,
    columns: usize,
    offset: u64,
    /// Bytes and time of change of the file when it was opened.
    state: (u64, Option<SystemTime>),
}

/// The same rows as f32.
struct Dequantised<'a>(&'a RowReader);

impl Stored {
    pub(crate) fn of(dtype: GgmlDType) -> Option<Stored> {
        Some(match dtype {
            GgmlDType::Q4_0 => Stored::Q4_0,
            GgmlDType::Q4_1 => Stored::Q4_1,
            GgmlDType::Q5_0 => Stored::Q5_0,
            GgmlDType::Q5_1 => Stored::Q5_1,
            GgmlDType::Q8_0 => Stored::Q8_0,
            GgmlDType::Q4K => Stored::Q4K,
            GgmlDType::Q5K => Stored::Q5K,
            GgmlDType::Q6K => Stored::Q6K,
            GgmlDType::F16 => Stored::F16,
            GgmlDType::BF16 => Stored::BF16,
            GgmlDType::F32 => Stored::F32,
            _ => return None,
        })
    }
}

impl Gguf {
    /// Bytes that the matrices take when repacked, each at a multiple of a cache line.
    pub(super) fn packed_bytes(&self) -> usize {
        self.matrix_bytes(|_| true, 64)
    }

    /// What each token is multiplied with: all but an embedding beside a head of its own.
    pub(crate) fn token_bytes(&self) -> u64 {
        let tied = !self.has("output.weight");
        self.matrix_bytes(|name| tied || name != "token_embd.weight", 0) as u64
    }

    /// Bytes of the repacked matrices that are `counted`, each with some bytes of `padding`.
    fn matrix_bytes(&self, counted: impl Fn(&str) -> bool, padding: usize) -> usize {
        let matrices = self.content.tensor_infos.iter().filter(|(name, info)| info.shape.rank() == 2 && counted(name));
        let bytes = matrices.filter_map(|(_, info)| {
            let (stored, dims) = (Stored::of(info.ggml_dtype)?, info.shape.dims());
            // What a crafted header claims is bounded by what the file holds.
            let held = dims[0].checked_mul(stored.row_bytes(dims[1])?)?;
            let held = u64::try_from(held).ok()? <= self.file_bytes();
            held.then(|| self.held_as(stored).kind().bytes(dims[0], dims[1]) + padding)
        });
        bytes.fold(0, usize::saturating_add)
    }

    fn held_as(&self, stored: Stored) -> Stored {
        if self.repack == Repack::Dequantised { Stored::F32 } else { stored }
    }

    /// Reads a matrix in the form that multiplies fastest here.
    pub(crate) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Weight, ModelError> {
        if let Some(reader) = self.rows(name, rows, columns)?
            && let Some(arena) = &self.arena
            && let Some(packer) = Packer::new(arena, self.held_as(reader.stored), rows, columns)
        {
            let matrix = match self.repack {
                Repack::Dequantised => packer.pack(&Dequantised(&reader))?,
                _ => packer.pack(&reader)?,
            };
            return Ok(Weight::Packed(Arc::new(matrix)));
        }
        let stored = self.stored(name, &[rows, columns])?;
        if self.requantize && runs_faster_as_q8(stored.dtype()) && columns.is_multiple_of(GgmlDType::Q8_0.block_size())
        {
            let floats = stored.dequantize(&self.device)?;
            return Ok(Weight::Candle(Arc::new(QTensor::quantize(&floats, GgmlDType::Q8_0)?)));
        }
        Ok(Weight::Candle(Arc::new(stored)))
    }

    /// Rows of a matrix where they lie; `None` without our kernels, or for a kind that they do not know.
    pub(crate) fn rows(&self, name: &str, rows: usize, columns: usize) -> Result<Option<RowReader>, ModelError> {
        self.expect_shape(name, &[rows, columns])?;
        let info = &self.content.tensor_infos[name];
        let (Some(_), Some(stored)) = (&self.arena, Stored::of(info.ggml_dtype)) else { return Ok(None) };
        let Some(row_bytes) = stored.row_bytes(columns) else { return Ok(None) };
        let offset = self.content.tensor_data_offset.saturating_add(info.offset);
        let end = offset.saturating_add((rows as u64).saturating_mul(row_bytes as u64));
        if end > self.file_bytes() {
            return Err(self.error(format!("tensor {name} ends at byte {end}, after the file's end")));
        }
        let file = self.file.try_clone().map_err(|error| self.error(error.to_string()))?;
        let state = state(&file);
        Ok(Some(RowReader { file, path: self.path.clone(), name: name.to_owned(), stored, columns, offset, state }))
    }

    pub(super) fn expect_shape(&self, name: &str, dims: &[usize]) -> Result<(), ModelError> {
        match self.shape(name)? {
            shape if shape == dims => Ok(()),
            shape => Err(self.error(format!("tensor {name} has the shape {shape:?}, expected {dims:?}"))),
        }
    }

    /// Reads a tensor of exactly the shape `dims`, as stored.
    pub(super) fn stored(&self, name: &str, dims: &[usize]) -> Result<QTensor, ModelError> {
        self.expect_shape(name, dims)?;
        let fail = |problem: String| self.error(format!("tensor {name}: {problem}"));
        let mut reader = super::WindowReader::new(&self.file).map_err(|error| fail(error.to_string()))?;
        self.content.tensor(&mut reader, name, &self.device).map_err(|error| fail(first_line(&error)))
    }
}

impl Source for RowReader {
    type Error = ModelError;

    fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), ModelError> {
        let row_bytes = to.len() / rows.len().max(1);
        let at = self.offset + (rows.start * row_bytes) as u64;
        self.file.read_exact_at(to, at).map_err(|error| ModelError::File {
            path: self.path.clone(),
            problem: format!("tensor {}: {error}", self.name),
        })
    }
}

impl Source for Dequantised<'_> {
    type Error = ModelError;

    fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), ModelError> {
        let (mut bytes, mut floats) = (Vec::new(), vec![0.0; self.0.columns]);
        for (row, to) in rows.zip(to.chunks_exact_mut(self.0.columns * size_of::<f32>())) {
            self.0.row(row, &mut bytes, &mut floats)?;
            to.as_chunks_mut().0.iter_mut().zip(&floats).for_each(|(to, float)| *to = float.to_le_bytes());
        }
        Ok(())
    }
}

fn state(file: &File) -> (u64, Option<SystemTime>) {
    file.metadata().map_or((0, None), |metadata| (metadata.len(), metadata.modified().ok()))
}

impl RowReader {
    /// # Errors
    /// If the file was written to since it was opened. One that was replaced or deleted is not this file.
    pub(crate) fn expect_unchanged(&self) -> Result<(), ModelError> {
        match state(&self.file) == self.state {
            true => Ok(()),
            false => Err(ModelError::File {
                path: self.path.clone(),
                problem: "the file was changed while the model is loaded; load it again".into(),
            }),
        }
    }

    /// Writes one row to `to`, in f32; `bytes` is memory to be used again.
    pub(crate) fn row(&self, row: usize, bytes: &mut Vec<u8>, to: &mut [f32]) -> Result<(), ModelError> {
        bytes.resize(self.stored.row_bytes(self.columns).unwrap_or_default(), 0);
        self.read(row..row + 1, bytes)?;
        dequantise_row(self.stored, bytes, to);
        Ok(())
    }
}
