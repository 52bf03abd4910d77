//! `TURN` and `IMAGE`: what a client sends for one turn.

use super::codec::{CodecError, Reader, at_most, fits, put_bytes, put_no_extensions, put_varint};
use super::{ImageFormat, ImageHeader, ImageStart, MAX_PARTS, Message, Part, Role, Sampling, TurnRequest};
use crate::id::{TurnId, ViewName};
use crate::limits::{
    MAX_ANSWER_TOKENS, MAX_DEADLINE_MS, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, MAX_IMAGES, MAX_MESSAGES, MAX_NAME_BYTES,
    MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TEXT_BYTES,
};

/// The optional fields, each with its bit in the presence mask, in the order in which they are written.
mod present {
    pub(super) const MODEL: u64 = 1 << 0;
    pub(super) const DEADLINE: u64 = 1 << 1;
    pub(super) const MAX_TOKENS: u64 = 1 << 2;
    pub(super) const TEMPERATURE: u64 = 1 << 3;
    pub(super) const TOP_P: u64 = 1 << 4;
    pub(super) const TOP_K: u64 = 1 << 5;
    pub(super) const MIN_P: u64 = 1 << 6;
    pub(super) const REPETITION_PENALTY: u64 = 1 << 7;
    pub(super) const SEED: u64 = 1 << 8;
    pub(super) const ALL: u64 = (1 << 9) - 1;
}

impl TurnRequest {
    /// Text of all messages together.
    pub fn text_bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum()
    }

    /// Announced bytes of all images together.
    pub fn image_bytes(&self) -> u64 {
        self.images.iter().map(|image| u64::from(image.byte_count)).sum()
    }

    /// Bytes of the whole frame that carries this.
    pub fn frame_bytes(&self) -> usize {
        let payload = encoded(|out| self.put(out)).len();
        // One byte of type, and the length.
        payload + 1 + encoded(|out| put_varint(out, payload as u64)).len()
    }

    /// Holds what is built here, and what came off the wire, to the same limits.
    ///
    /// # Errors
    /// Names the field and the limit that it breaks.
    pub fn check(&self) -> Result<(), CodecError> {
        if let Some(model) = &self.model {
            fits("model", model.len(), MAX_NAME_BYTES)?;
        }
        at_most("deadline_ms", u64::from(self.deadline_ms.unwrap_or(0)), MAX_DEADLINE_MS)?;
        self.sampling.check()?;
        fits("images", self.images.len(), MAX_IMAGES)?;
        self.images.iter().try_for_each(ImageHeader::check)?;
        fits("messages", self.messages.len(), MAX_MESSAGES)?;
        if self.messages.is_empty() {
            return Err(CodecError::invalid("messages", "there must be at least one"));
        }
        self.messages.iter().try_for_each(|message| message.check(self.images.len()))?;
        fits("text of all messages", self.text_bytes(), MAX_TEXT_BYTES)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.turn_id.as_str().as_bytes());
        self.put_options(out);
        put_varint(out, self.sampling.stop.len() as u64);
        self.sampling.stop.iter().for_each(|stop| put_bytes(out, stop.as_bytes()));
        put_varint(out, self.images.len() as u64);
        self.images.iter().for_each(|image| image.put(out));
        put_varint(out, self.messages.len() as u64);
        self.messages.iter().for_each(|message| message.put(out));
        put_no_extensions(out);
    }

    fn put_options(&self, out: &mut Vec<u8>) {
        let (mut mask, mut fields) = (0, Vec::new());
        let mut option = |bit: u64, bytes: Option<Vec<u8>>| {
            if let Some(bytes) = bytes {
                mask |= bit;
                fields.extend(bytes);
            }
        };
        let sampling = &self.sampling;
        option(present::MODEL, self.model.as_ref().map(|model| encoded(|out| put_bytes(out, model.as_bytes()))));
        option(present::DEADLINE, self.deadline_ms.map(varint));
        option(present::MAX_TOKENS, sampling.max_tokens.map(varint));
        option(present::TEMPERATURE, sampling.temperature.map(float));
        option(present::TOP_P, sampling.top_p.map(float));
        option(present::TOP_K, sampling.top_k.map(varint));
        option(present::MIN_P, sampling.min_p.map(float));
        option(present::REPETITION_PENALTY, sampling.repetition_penalty.map(float));
        option(present::SEED, sampling.seed.map(|seed| seed.to_be_bytes().to_vec()));
        put_varint(out, mask);
        out.extend(fields);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let turn_id = get_turn_id(reader)?;
        let (model, deadline_ms, mut sampling) = get_options(reader)?;
        let stops = reader.count("stop strings", MAX_STOP_STRINGS)?;
        sampling.stop = (0..stops).map(|_| reader.string("stop", MAX_STOP_BYTES)).collect::<Result<_, _>>()?;
        let images = reader.count("images", MAX_IMAGES)?;
        let images = (0..images).map(|_| ImageHeader::get(reader)).collect::<Result<_, _>>()?;
        let messages = reader.count("messages", MAX_MESSAGES)?;
        let messages = (0..messages).map(|_| Message::get(reader)).collect::<Result<_, _>>()?;
        reader.extensions()?;
        let request = Self { turn_id, model, deadline_ms, sampling, messages, images };
        request.check()?;
        Ok(request)
    }
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

fn varint(value: u32) -> Vec<u8> {
    encoded(|out| put_varint(out, u64::from(value)))
}

fn float(value: f32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn get_options(reader: &mut Reader<'_>) -> Result<(Option<String>, Option<u32>, Sampling), CodecError> {
    let mask = reader.varint("presence mask")?;
    if mask & !present::ALL != 0 {
        return Err(CodecError::invalid("presence mask", format!("{mask:#x} has unknown bits")));
    }
    let has = |bit: u64| mask & bit != 0;
    let model = has(present::MODEL).then(|| reader.string("model", MAX_NAME_BYTES)).transpose()?;
    let deadline_ms = has(present::DEADLINE).then(|| reader.u32("deadline_ms")).transpose()?;
    let sampling = Sampling {
        max_tokens: has(present::MAX_TOKENS).then(|| reader.u32("max_tokens")).transpose()?,
        temperature: has(present::TEMPERATURE).then(|| reader.f32("temperature")).transpose()?,
        top_p: has(present::TOP_P).then(|| reader.f32("top_p")).transpose()?,
        top_k: has(present::TOP_K).then(|| reader.u32("top_k")).transpose()?,
        min_p: has(present::MIN_P).then(|| reader.f32("min_p")).transpose()?,
        repetition_penalty: has(present::REPETITION_PENALTY).then(|| reader.f32("repetition_penalty")).transpose()?,
        seed: has(present::SEED).then(|| reader.u64("seed")).transpose()?,
        stop: Vec::new(),
    };
    Ok((model, deadline_ms, sampling))
}

impl Sampling {
    fn check(&self) -> Result<(), CodecError> {
        at_most("max_tokens", u64::from(self.max_tokens.unwrap_or(0)), u64::from(MAX_ANSWER_TOKENS))?;
        let floats = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("repetition_penalty", self.repetition_penalty),
        ];
        if let Some((what, _)) = floats.iter().find(|(_, value)| value.is_some_and(|v| !v.is_finite() || v < 0.0)) {
            return Err(CodecError::invalid(what, "must be a finite number and at least 0"));
        }
        fits("stop strings", self.stop.len(), MAX_STOP_STRINGS)?;
        self.stop.iter().try_for_each(|stop| fits("stop", stop.len(), MAX_STOP_BYTES))
    }
}

impl Message {
    fn check(&self, images: usize) -> Result<(), CodecError> {
        fits("parts of a message", self.parts.len(), MAX_PARTS)?;
        for part in &self.parts {
            if let Part::Image(index) = part
                && usize::from(*index) >= images
            {
                return Err(CodecError::invalid("image part", format!("image {index} is not announced")));
            }
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.role as u8);
        put_varint(out, self.parts.len() as u64);
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    out.push(0);
                    put_bytes(out, text.as_bytes());
                }
                Part::Image(index) => out.extend([1, *index]),
            }
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let role = match reader.byte("role")? {
            0 => Role::System,
            1 => Role::User,
            2 => Role::Assistant,
            other => return Err(CodecError::invalid("role", format!("{other} is unknown"))),
        };
        let parts = reader.count("parts of a message", MAX_PARTS)?;
        let parts = (0..parts).map(|_| get_part(reader)).collect::<Result<_, _>>()?;
        Ok(Self { role, parts })
    }
}

fn get_part(reader: &mut Reader<'_>) -> Result<Part, CodecError> {
    match reader.byte("part")? {
        0 => Ok(Part::Text(reader.string("text", MAX_TEXT_BYTES)?)),
        1 => Ok(Part::Image(reader.byte("image index")?)),
        other => Err(CodecError::invalid("part", format!("{other} is unknown"))),
    }
}

impl ImageHeader {
    fn check(&self) -> Result<(), CodecError> {
        fits("image bytes", self.byte_count as usize, MAX_IMAGE_BYTES)?;
        let pixels = u64::from(self.width) * u64::from(self.height);
        if pixels == 0 || self.byte_count == 0 {
            return Err(CodecError::invalid("image", format!("the image of view {} is empty", self.view)));
        }
        at_most("image pixels", pixels, MAX_IMAGE_PIXELS)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.view.as_str().as_bytes());
        out.push(self.format as u8);
        put_varint(out, u64::from(self.width));
        put_varint(out, u64::from(self.height));
        put_varint(out, u64::from(self.byte_count));
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let view = reader.string("view", MAX_NAME_BYTES)?;
        let view = ViewName::new(view).map_err(|error| CodecError::invalid("view", error.to_string()))?;
        let format = match reader.byte("image format")? {
            0 => ImageFormat::Jpeg,
            1 => ImageFormat::Png,
            other => return Err(CodecError::invalid("image format", format!("{other} is unknown"))),
        };
        let (width, height) = (reader.u32("width")?, reader.u32("height")?);
        Ok(Self { view, format, width, height, byte_count: reader.u32("image bytes")? })
    }
}

impl ImageStart {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        fits("image index", usize::from(self.index), MAX_IMAGES - 1)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.turn_id.as_str().as_bytes());
        out.push(self.index);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let start = Self { turn_id: get_turn_id(reader)?, index: reader.byte("image index")? };
        start.check()?;
        Ok(start)
    }
}

pub(super) fn get_turn_id(reader: &mut Reader<'_>) -> Result<TurnId, CodecError> {
    let id = reader.string("turn id", MAX_NAME_BYTES)?;
    TurnId::new(id).map_err(|error| CodecError::invalid("turn id", error.to_string()))
}
