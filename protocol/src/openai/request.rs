//! The request body, made from a turn.

use crate::wire::{ImageFormat, Part, Role, Sampling, TurnRequest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

/// The body of `POST {base_url}/chat/completions`. Parameters that are `None` are not written at all, because hosted
/// servers refuse names they do not know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<ChatMessage>,
    pub stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Not of OpenAI itself: vLLM and llama.cpp take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Not of OpenAI itself: vLLM and llama.cpp take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Not of OpenAI itself: vLLM's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StreamOptions {
    pub include_usage: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    pub role: &'static str,
    pub content: Content,
}

/// A message without images is a plain string: many servers take nothing else from models without vision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUrl {
    pub url: String,
}

/// What the server calls the limit on the answer: older and open servers say `max_tokens`, OpenAI's reasoning models
/// take only `max_completion_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensName {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

impl ChatRequest {
    /// A streamed request with usage at the end. `images` are the bytes of `turn.images`, in the same order; a part
    /// that points beyond them is left out.
    pub fn streamed<B: AsRef<[u8]>>(model: &str, turn: &TurnRequest, images: &[B], limit: MaxTokensName) -> Self {
        let urls: Vec<String> =
            turn.images.iter().zip(images).map(|(header, bytes)| data_url(header.format, bytes.as_ref())).collect();
        let messages = turn
            .messages
            .iter()
            .map(|message| ChatMessage { role: role_name(message.role), content: content(&message.parts, &urls) });
        let Sampling { max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, stop } =
            turn.sampling.clone();
        Self {
            model: model.to_owned(),
            messages: messages.collect(),
            stream: true,
            stream_options: Some(StreamOptions { include_usage: true }),
            max_tokens: max_tokens.filter(|_| limit == MaxTokensName::MaxTokens),
            max_completion_tokens: max_tokens.filter(|_| limit == MaxTokensName::MaxCompletionTokens),
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            seed,
            stop,
        }
    }

    /// Bytes of all text, for an estimate of tokens where a server reports no usage.
    pub fn text_bytes(&self) -> usize {
        let part = |part: &ContentPart| if let ContentPart::Text { text } = part { text.len() } else { 0 };
        let message = |message: &ChatMessage| match &message.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.iter().map(part).sum(),
        };
        self.messages.iter().map(message).sum()
    }
}

fn content(parts: &[Part], urls: &[String]) -> Content {
    if let [Part::Text(text)] = parts {
        return Content::Text(text.clone());
    }
    if parts.iter().all(|part| matches!(part, Part::Text(_))) {
        let texts: Vec<&str> =
            parts.iter().filter_map(|part| if let Part::Text(t) = part { Some(t.as_str()) } else { None }).collect();
        return Content::Text(texts.join("\n"));
    }
    let written = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(ContentPart::Text { text: text.clone() }),
        Part::Image(index) => {
            let url = urls.get(usize::from(*index))?.clone();
            Some(ContentPart::ImageUrl { image_url: ImageUrl { url } })
        }
    });
    Content::Parts(written.collect())
}

/// An image inside a request: `data:image/jpeg;base64,...`.
pub fn data_url(format: ImageFormat, bytes: &[u8]) -> String {
    let mut url = format!("data:image/{};base64,", format.as_str());
    BASE64_STANDARD.encode_string(bytes, &mut url);
    url
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{TurnId, ViewName};
    use crate::wire::{ImageHeader, Message};
    use serde_json::json;

    fn turn() -> TurnRequest {
        let header = ImageHeader {
            view: ViewName::new("front").unwrap(),
            format: ImageFormat::Jpeg,
            width: 1,
            height: 1,
            byte_count: 3,
        };
        TurnRequest {
            turn_id: TurnId::new("t1").unwrap(),
            model: None,
            deadline_ms: None,
            sampling: Sampling { max_tokens: Some(8), stop: vec!["END".into()], ..Sampling::default() },
            messages: vec![
                Message { role: Role::System, parts: vec![Part::Text("Be brief.".into())] },
                Message { role: Role::User, parts: vec![Part::Text("front:".into()), Part::Image(0), Part::Image(9)] },
            ],
            images: vec![header],
        }
    }

    #[test]
    fn a_turn_becomes_the_documented_body() {
        let request = ChatRequest::streamed("gpt", &turn(), &[b"abc"], MaxTokensName::MaxTokens);
        let expected = json!({
            "model": "gpt", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 8,
            "stop": ["END"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "front:"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,YWJj"}}]}]
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), expected);
        assert_eq!(request.text_bytes(), "Be brief.".len() + "front:".len());
    }

    #[test]
    fn the_limit_goes_by_the_name_that_the_server_knows() {
        let request = ChatRequest::streamed::<&[u8]>("o", &turn(), &[], MaxTokensName::MaxCompletionTokens);
        assert_eq!((request.max_tokens, request.max_completion_tokens), (None, Some(8)));
    }
}
