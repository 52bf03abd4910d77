//! A camera by its Video4Linux device. Cameras that give Motion JPEG only: their pictures are whole JPEG files, so nothing
//! is converted here.

use bytes::Bytes;
use std::io;
use std::path::Path;
use std::time::Duration;
use tether_protocol::limits::MAX_IMAGE_BYTES;
use v4l::buffer::Type;
use v4l::io::mmap::Stream;
use v4l::io::traits::CaptureStream;
use v4l::video::Capture;
use v4l::{Device, FourCC};

/// What is asked for; the driver takes the nearest it has.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
/// The driver fills one while another is read.
const BUFFERS: u32 = 4;
/// A camera that gives no picture for so long is opened anew.
const SILENCE: Duration = Duration::from_secs(5);

/// A device that gives pictures.
pub struct Video {
    stream: Stream<'static>,
    /// Kept open as long as its buffers.
    _device: Device,
}

impl Video {
    /// # Errors
    /// No such device, no right to it, or it gives no Motion JPEG.
    pub fn open(path: &Path) -> io::Result<Self> {
        let device = Device::with_path(path)?;
        let mut format = device.format()?;
        (format.width, format.height, format.fourcc) = (WIDTH, HEIGHT, FourCC::new(b"MJPG"));
        let format = device.set_format(&format)?;
        if format.fourcc != FourCC::new(b"MJPG") {
            let problem =
                format!("gives {} and no Motion JPEG; let ffmpeg write its pictures into a `folder`", format.fourcc);
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
        let mut stream = Stream::with_buffers(&device, Type::VideoCapture, BUFFERS)?;
        stream.set_timeout(SILENCE);
        Ok(Self { stream, _device: device })
    }

    /// Waits for the next picture.
    ///
    /// # Errors
    /// The camera is gone, or silent, or its picture is too large.
    pub fn next(&mut self) -> io::Result<Bytes> {
        let (buffer, about) = self.stream.next()?;
        let picture = buffer.get(..about.bytesused as usize).unwrap_or(buffer);
        if picture.len() > MAX_IMAGE_BYTES {
            let problem = format!("a picture of {} bytes; at most {MAX_IMAGE_BYTES}", picture.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Bytes::copy_from_slice(picture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_camera_is_an_error() {
        assert!(Video::open(Path::new("/dev/video-that-is-not")).is_err());
        assert!(Video::open(Path::new("/dev/null")).is_err());
    }
}
