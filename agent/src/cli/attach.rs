//! `NAME=FILE` arguments: camera images and sensor readings that go with a turn.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tether_protocol::ViewName;
use tether_protocol::api::PartForm;
use tether_protocol::limits::{MAX_IMAGE_BYTES, MAX_SENSOR_BYTES};
use tether_protocol::openai::request::data_url;
use tether_protocol::wire::ImageFormat;

/// `front=a.jpg`: the file is the newest picture of that camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ViewArg {
    pub name: ViewName,
    pub file: PathBuf,
}

/// `gripper=closed.json`, or with the JSON itself: `gripper={"open":false}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SensorArg {
    pub name: ViewName,
    pub value: String,
}

impl FromStr for ViewArg {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (name, file) = split(given, "front=a.jpg")?;
        Ok(Self { name, file: file.into() })
    }
}

impl FromStr for SensorArg {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (name, value) = split(given, "gripper=closed.json")?;
        Ok(Self { name, value: value.to_owned() })
    }
}

fn split<'a>(given: &'a str, example: &str) -> Result<(ViewName, &'a str), String> {
    let (name, value) = given.split_once('=').ok_or_else(|| format!("write NAME=FILE, such as {example}"))?;
    if value.is_empty() {
        return Err(format!("no file after {name}=; write NAME=FILE, such as {example}"));
    }
    Ok((ViewName::new(name).map_err(|error| error.to_string())?, value))
}

impl ViewArg {
    /// The image as a part of a message, its view named.
    pub(crate) fn part(&self) -> anyhow::Result<PartForm> {
        let bytes = read_bounded(&self.file, MAX_IMAGE_BYTES)?;
        let format = match image::guess_format(&bytes) {
            Ok(image::ImageFormat::Jpeg) => ImageFormat::Jpeg,
            Ok(image::ImageFormat::Png) => ImageFormat::Png,
            _ => bail!("{} is neither a JPEG nor a PNG image", self.file.display()),
        };
        Ok(PartForm::image(data_url(format, &bytes), Some(self.name.as_str())))
    }
}

impl SensorArg {
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        let inline = self.value.starts_with(['{', '[', '"']);
        let bytes =
            if inline { self.value.clone().into_bytes() } else { read_bounded(self.value.as_ref(), MAX_SENSOR_BYTES)? };
        let origin = if inline { format!("sensor {}", self.name) } else { self.value.clone() };
        ensure!(bytes.len() <= MAX_SENSOR_BYTES, "{origin} is larger than {MAX_SENSOR_BYTES} bytes");
        serde_json::from_slice(&bytes).with_context(|| format!("{origin} is not JSON"))
    }
}

/// Reads a file that may be anything, `/dev/zero` included.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() <= limit, "{} is larger than {limit} bytes", path.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_at_the_first_equals_sign() {
        let view: ViewArg = "front=dir/a=b.jpg".parse().unwrap();
        assert_eq!((view.name.as_str(), view.file), ("front", "dir/a=b.jpg".into()));
        for bad in ["front", "front=", "=a.jpg", "a/b=c.jpg"] {
            assert!(bad.parse::<ViewArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap().len(), 10);
        assert!(read_bounded(&path, 9).unwrap_err().to_string().contains("larger than 9 bytes"));
        assert!(read_bounded(Path::new("/dev/zero"), 9).is_err());
    }

    #[test]
    fn sensors_are_json_and_images_are_images() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jpg");
        std::fs::write(&path, "no picture").unwrap();
        let view = ViewArg { name: ViewName::new("front").unwrap(), file: path.clone() };
        assert!(view.part().unwrap_err().to_string().contains("neither a JPEG nor a PNG"));
        let sensor = |value: &str| format!("arm={value}").parse::<SensorArg>().unwrap().json();
        assert_eq!(sensor(r#"{"open":false}"#).unwrap(), serde_json::json!({"open": false}));
        assert!(sensor(path.to_str().unwrap()).unwrap_err().to_string().contains("is not JSON"));
    }
}
