//! GGUF files: the one place that spells metadata keys and tensor names, and that checks every value before it is
//! used. See <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod reader;
mod weights;

pub(crate) use weights::{RowReader, Weight};

use crate::error::ModelError;
use crate::kernels::arena::Arena;
use crate::kernels::pack::Stored;
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use reader::WindowReader;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bounds of the metadata that sizes are computed from. They hold the largest published models of the supported
/// architectures several times over, and keep every product of two of them far from overflow.
const MAX_LAYERS: usize = 512;
const MAX_WIDTH: usize = 1 << 18;
const MAX_HEADS: usize = 4096;
const MAX_VOCAB: usize = 1 << 21;
const MAX_CONTEXT: usize = 1 << 24;

/// An open GGUF file. Tensors are read on demand and from several threads at once.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
    content: Content,
    device: Device,
    /// Whether matrices that candle multiplies are re-quantised.
    requantize: bool,
    repack: Repack,
    /// Where matrices are repacked for our kernels; `None`: candle multiplies them all.
    arena: Option<Arena>,
}

/// Whether `path` is a whole GGUF file of an architecture that is known, by its header; the tensors are not read.
///
/// # Errors
/// [`ModelError::File`] or [`ModelError::Architecture`] says what is wrong.
pub fn check_file(path: &Path) -> Result<(), ModelError> {
    let gguf = Gguf::open(path, Device::Cpu, false, Repack::No)?;
    crate::arch::loader(&gguf).map(drop)
}

/// What becomes of matrices whose kind our kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repack {
    /// candle multiplies them.
    No,
    /// The numbers stay as they are, in our kernels' order.
    AsStored,
    /// They become f32.
    Dequantised,
}

/// The sizes that every supported architecture has.
#[derive(Debug, Clone)]
pub(crate) struct Dimensions {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    /// Length that the model was trained for, in tokens.
    pub(crate) context: usize,
    pub(crate) rms_epsilon: f32,
}

impl Gguf {
    /// Opens `path` and reads its header. The tensors stay on disk.
    pub(crate) fn open(path: &Path, device: Device, requantize: bool, repack: Repack) -> Result<Gguf, ModelError> {
        let fail = |problem: String| ModelError::File { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|error| fail(error.to_string()))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(fail("not a regular file".into()));
        }
        // candle's header parser divides by `general.alignment` unchecked, so that a crafted file can make it panic.
        let parse = || Content::read(&mut WindowReader::new(&file)?);
        let content = std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse))
            .map_err(|_| fail("the GGUF header is malformed".into()))?
            .map_err(|error| fail(unreadable(&error, &file)))?;
        let mut gguf = Gguf { path: path.to_owned(), file, content, device, requantize, repack, arena: None };
        gguf.check_whole()?;
        if repack != Repack::No {
            let arena = Arena::new(gguf.packed_bytes()).map_err(|error| fail(format!("no memory: {error}")))?;
            gguf.arena = Some(arena);
        }
        Ok(gguf)
    }

    /// A download that broke off has a good header: where its tensors end tells.
    fn check_whole(&self) -> Result<(), ModelError> {
        let end = |info: &TensorInfo| {
            let count = info.shape.dims().iter().fold(1u64, |product, &dim| product.saturating_mul(dim as u64));
            let blocks = count.div_ceil(info.ggml_dtype.block_size() as u64);
            let bytes = blocks.saturating_mul(info.ggml_dtype.type_size() as u64);
            self.content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes)
        };
        let needed = self.content.tensor_infos.values().map(end).max().unwrap_or(0);
        let found = self.file_bytes();
        if found >= needed {
            return Ok(());
        }
        Err(self
            .error(format!("it is cut short: it has {found} bytes, and its tensors end at {needed}; fetch it again")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    pub(crate) fn parameter_count(&self) -> u64 {
        let count = |dims: &[usize]| dims.iter().fold(1u64, |product, &dim| product.saturating_mul(dim as u64));
        self.content.tensor_infos.values().fold(0, |sum, info| count(info.shape.dims()).saturating_add(sum))
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> ModelError {
        ModelError::File { path: self.path.clone(), problem: problem.into() }
    }

    pub(crate) fn architecture(&self) -> Result<&str, ModelError> {
        self.text("general.architecture").ok_or_else(|| self.error("metadata has no general.architecture"))
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.text("general.name")
    }

    /// The sizes under `ARCHITECTURE.*`, checked.
    pub(crate) fn dimensions(&self) -> Result<Dimensions, ModelError> {
        let hidden = self.size("embedding_length", MAX_WIDTH)?;
        let heads = self.size("attention.head_count", MAX_HEADS)?;
        let kv_heads = self.size_or("attention.head_count_kv", heads, MAX_HEADS)?;
        let head_dim = self.size_or("attention.key_length", hidden / heads, MAX_WIDTH)?;
        let value_dim = self.size_or("attention.value_length", head_dim, MAX_WIDTH)?;
        if heads % kv_heads != 0 {
            return Err(self.error(format!("{heads} attention heads do not divide among {kv_heads} key-value heads")));
        }
        if head_dim == 0 || head_dim % 2 != 0 || value_dim != head_dim || heads * head_dim > MAX_WIDTH {
            return Err(self.error(format!("heads of {head_dim} (key) and {value_dim} (value) are not supported")));
        }
        Ok(Dimensions {
            layers: self.size("block_count", MAX_LAYERS)?,
            hidden,
            feed_forward: self.size("feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            vocab: self.vocab_size()?,
            context: self.size("context_length", MAX_CONTEXT)?,
            rms_epsilon: self.positive_or("attention.layer_norm_rms_epsilon", None)?,
        })
    }

    /// Rows of the embedding: what the model can take and give, whatever the tokenizer holds.
    fn vocab_size(&self) -> Result<usize, ModelError> {
        match self.shape("token_embd.weight")? {
            &[vocab, _] if (1..=MAX_VOCAB).contains(&vocab) => Ok(vocab),
            dims => Err(self.error(format!("tensor token_embd.weight has the shape {dims:?}"))),
        }
    }

    /// Refuses the variants whose tensors this crate would misread.
    pub(crate) fn refuse_experts(&self) -> Result<(), ModelError> {
        match self.size_or("expert_count", 0, MAX_HEADS)? {
            0 => Ok(()),
            count => Err(self.error(format!("mixture of {count} experts is not supported"))),
        }
    }

    pub(crate) fn rope_base(&self, default: f32) -> Result<f32, ModelError> {
        self.positive_or("rope.freq_base", Some(default))
    }

    pub(crate) fn rope_dimensions(&self, head_dim: usize) -> Result<usize, ModelError> {
        let dimensions = self.size_or("rope.dimension_count", head_dim, MAX_WIDTH)?;
        if dimensions == 0 || dimensions > head_dim || dimensions % 2 != 0 {
            return Err(self.error(format!("rope.dimension_count {dimensions} does not fit heads of {head_dim}")));
        }
        Ok(dimensions)
    }

    /// Divisor of all rotary frequencies; 1 without linear scaling. Other kinds than linear and "longrope" (whose
    /// factors are tensors) are refused, for the answers would silently be wrong.
    pub(crate) fn rope_linear_factor(&self) -> Result<f32, ModelError> {
        match self.text(&self.key("rope.scaling.type")) {
            None | Some("none" | "longrope") => Ok(1.0),
            Some("linear") => self.positive_or("rope.scaling.factor", Some(1.0)),
            Some(other) => Err(self.error(format!("rope scaling {other:?} is not supported"))),
        }
    }

    pub(crate) fn rope_attention_factor(&self) -> Result<f32, ModelError> {
        self.positive_or("rope.scaling.attn_factor", Some(1.0))
    }

    pub(crate) fn rope_original_context(&self, context: usize) -> Result<usize, ModelError> {
        self.size_or("rope.scaling.original_context_length", context, MAX_CONTEXT)
    }

    /// Tokens that a position of a sliding-window layer sees, itself included; `None`: all.
    pub(crate) fn sliding_window(&self) -> Result<Option<usize>, ModelError> {
        Ok(Some(self.size_or("attention.sliding_window", 0, MAX_CONTEXT)?).filter(|&window| window > 0))
    }

    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor)
    }

    fn shape(&self, name: &str) -> Result<&[usize], ModelError> {
        let info = self.content.tensor_infos.get(name);
        info.map(|info| info.shape.dims()).ok_or_else(|| self.error(format!("tensor {name} is missing")))
    }

    /// Reads a vector as f32, shape `[len]`.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.stored(name, &[len])?.dequantize(&Device::Cpu)?;
        Ok(tensor.to_vec1()?)
    }

    /// The same, or `None` if the file has no such tensor.
    pub(crate) fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, ModelError> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// What most of the matrices' numbers are stored as, e.g. `Q4_1`.
    pub(crate) fn stored_quantization(&self) -> GgmlDType {
        self.main_dtype(|dtype| dtype)
    }

    /// What they run as.
    pub(crate) fn running_quantization(&self) -> GgmlDType {
        self.main_dtype(|dtype| match self.repack {
            Repack::AsStored if Stored::of(dtype).is_some() => dtype,
            Repack::Dequantised if Stored::of(dtype).is_some() => GgmlDType::F32,
            _ if self.requantize && runs_faster_as_q8(dtype) => GgmlDType::Q8_0,
            _ => dtype,
        })
    }

    fn main_dtype(&self, map: impl Fn(GgmlDType) -> GgmlDType) -> GgmlDType {
        let mut weights: Vec<(GgmlDType, usize)> = Vec::new();
        let matrices = self.content.tensor_infos.iter();
        for (_, info) in matrices.filter(|(name, info)| name.starts_with("blk.") && info.shape.rank() == 2) {
            let dtype = map(info.ggml_dtype);
            let count = info.shape.dims().iter().fold(1usize, |product, &dim| product.saturating_mul(dim));
            match weights.iter_mut().find(|(known, _)| *known == dtype) {
                Some((_, sum)) => *sum = sum.saturating_add(count),
                None => weights.push((dtype, count)),
            }
        }
        weights.into_iter().max_by_key(|&(_, count)| count).map_or(GgmlDType::F32, |(dtype, _)| dtype)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.text("general.architecture").unwrap_or_default())
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn size(&self, suffix: &str, max: usize) -> Result<usize, ModelError> {
        match self.size_or(suffix, 0, max)? {
            0 => Err(self.error(format!("metadata {} is missing or 0", self.key(suffix)))),
            size => Ok(size),
        }
    }

    fn size_or(&self, suffix: &str, default: usize, max: usize) -> Result<usize, ModelError> {
        let key = self.key(suffix);
        let Some(value) = self.content.metadata.get(&key) else { return Ok(default) };
        let size = match value {
            Value::I32(number) => u64::try_from(*number).ok(),
            Value::I64(number) => u64::try_from(*number).ok(),
            value => value.to_u64().ok(),
        };
        size.and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size <= max)
            .ok_or_else(|| self.error(format!("metadata {key} is not a number from 0 to {max}")))
    }

    fn positive_or(&self, suffix: &str, default: Option<f32>) -> Result<f32, ModelError> {
        let key = self.key(suffix);
        let value = match self.content.metadata.get(&key) {
            Some(Value::F32(number)) => Some(*number),
            Some(Value::F64(number)) => Some(*number as f32),
            Some(_) => None,
            None => default,
        };
        value
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| self.error(format!("metadata {key} is missing or not a positive number")))
    }
}

/// The kinds that candle multiplies slower than Q8_0 although they are smaller; see `docs/SPEED.md` for the numbers.
fn runs_faster_as_q8(dtype: GgmlDType) -> bool {
    matches!(dtype, GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1)
}

/// candle's errors carry a backtrace below their first line.
fn unreadable(error: &candle_core::Error, file: &File) -> String {
    let words = first_line(error);
    if words.contains("failed to fill whole buffer") {
        let found = file.metadata().map_or(0, |metadata| metadata.len());
        return format!("it is cut short: its {found} bytes end within the GGUF header; fetch it again");
    }
    format!("not a readable GGUF file: {words}")
}

fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
