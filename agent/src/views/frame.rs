//! One picture, checked but not decoded.

use crate::image_codec::{EncodeOptions, EncodeSlot, Encoded, ImageError, probe};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use tether_protocol::wire::ImageFormat;

/// One encoded picture, checked (size, magic number, dimensions) but not decoded. Clones share the bytes and the
/// re-encoded form, which is made once, by `image_codec::prepare`.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The view it belongs to; data URLs without a view are named `image1`, `image2`, ...
    pub view: String,
    pub format: ImageFormat,
    /// As stored in the file: the EXIF orientation is applied when it is encoded.
    pub width: u32,
    pub height: u32,
    pub bytes: Bytes,
    /// Age at the time of the request.
    pub age_ms: u64,
    pub(crate) slot: Arc<EncodeSlot>,
}

impl Frame {
    pub fn new(view: impl Into<String>, bytes: Bytes, age_ms: u64) -> Result<Self, ImageError> {
        let info = probe(&bytes)?;
        let slot = Arc::default();
        Ok(Self { view: view.into(), format: info.format, width: info.width, height: info.height, bytes, age_ms, slot })
    }

    /// The form that travels, if it has been made with these options.
    pub fn encoded(&self, options: &EncodeOptions) -> Option<Encoded> {
        self.slot.get(options)
    }

    pub(super) fn with_age(&self, age_ms: u64) -> Self {
        Self { age_ms, ..self.clone() }
    }
}

/// What was understood of a pushed frame: the answer to `PUT /v1/cameras/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrameInfo {
    pub view: String,
    /// `jpeg` or `png`.
    pub format: &'static str,
    pub width: u32,
    pub height: u32,
    pub bytes: usize,
}

impl FrameInfo {
    pub(super) fn of(frame: &Frame) -> Self {
        let Frame { view, format, width, height, bytes, .. } = frame;
        Self { view: view.clone(), format: format.as_str(), width: *width, height: *height, bytes: bytes.len() }
    }
}
