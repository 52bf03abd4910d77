//! What the robot sees and senses: pushed camera frames and sensor readings, newest only, bounded, with their age.

use tether_protocol::wire::ImageFormat;

/// One encoded picture, checked (size, magic number, dimensions) but not decoded.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The view it belongs to; data URLs without a view are named `image1`, `image2`, ...
    pub view: String,
    pub format: ImageFormat,
    pub width: u32,
    pub height: u32,
    pub bytes: bytes::Bytes,
    /// Age at the time of the request.
    pub age_ms: u64,
}
