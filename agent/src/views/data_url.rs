//! Images inside a request: `data:image/jpeg;base64,...`. Remote addresses are refused: a daemon that fetches what a
//! request names would be a way into the device's network.

use super::frame::Frame;
use crate::image_codec::ImageError;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use tether_protocol::limits::MAX_IMAGE_BYTES;
use tether_protocol::wire::ImageFormat;
use tether_protocol::{IdError, ViewName};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DataUrlError {
    #[error(
        "images are not fetched from {scheme} addresses: send a data URL (data:image/jpeg;base64,...) or push a camera frame"
    )]
    Remote { scheme: String },
    #[error("the image is not a data URL: it must begin with data:image/jpeg;base64, or data:image/png;base64,")]
    NotADataUrl,
    #[error("images of type {given:?} are not taken: image/jpeg and image/png are")]
    MediaType { given: String },
    #[error("the data URL is not base64: it must say ;base64 before the comma")]
    NotBase64,
    #[error("the data URL's name: {0}")]
    Name(#[from] IdError),
    #[error("the image has about {given} bytes, at most {MAX_IMAGE_BYTES} are allowed")]
    TooLarge { given: usize },
    #[error("the image's base64 is damaged: {problem}")]
    Base64 { problem: String },
    #[error("the data URL says {said} but the image is {found}")]
    Mislabelled { said: &'static str, found: &'static str },
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Reads one image of a request. `view` names it, unless the URL itself does (`data:image/png;name=front;base64,...`).
/// Every size is checked before anything is decoded; base64 is the standard alphabet with its padding.
pub fn parse_data_url(url: &str, view: &str) -> Result<Frame, DataUrlError> {
    let (scheme, rest) = url.split_once(':').ok_or(DataUrlError::NotADataUrl)?;
    match scheme.to_ascii_lowercase().as_str() {
        "data" => {}
        "http" | "https" | "ftp" | "file" => return Err(DataUrlError::Remote { scheme: scheme.to_ascii_lowercase() }),
        _ => return Err(DataUrlError::NotADataUrl),
    }
    let (head, data) = rest.split_once(',').ok_or(DataUrlError::NotADataUrl)?;
    let mut fields = head.split(';');
    let said = media_type(fields.next().unwrap_or_default())?;
    let mut name = None;
    let mut base64 = false;
    for field in fields {
        match field.split_once('=') {
            Some(("name", given)) => name = Some(ViewName::new(given)?),
            Some(_) => {}
            None => base64 = field.eq_ignore_ascii_case("base64"),
        }
    }
    if !base64 {
        return Err(DataUrlError::NotBase64);
    }
    let bytes = decode(data)?;
    let frame = Frame::new(name.map_or_else(|| view.to_owned(), String::from), bytes.into(), 0)?;
    if frame.format != said {
        return Err(DataUrlError::Mislabelled { said: said.as_str(), found: frame.format.as_str() });
    }
    Ok(frame)
}

fn media_type(given: &str) -> Result<ImageFormat, DataUrlError> {
    match given.to_ascii_lowercase().as_str() {
        "image/jpeg" => Ok(ImageFormat::Jpeg),
        "image/png" => Ok(ImageFormat::Png),
        _ => Err(DataUrlError::MediaType { given: given.chars().take(40).collect() }),
    }
}

fn decode(data: &str) -> Result<Vec<u8>, DataUrlError> {
    let padding = data.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    let given = (data.len() / 4 * 3).saturating_sub(padding);
    if given > MAX_IMAGE_BYTES {
        return Err(DataUrlError::TooLarge { given });
    }
    BASE64_STANDARD.decode(data).map_err(|error| DataUrlError::Base64 { problem: error.to_string() })
}
