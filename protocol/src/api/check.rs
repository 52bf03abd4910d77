//! From what was written to what is meant: `ChatRequest` -> [`ChatTurn`], or a 400 that names the field.

use super::chat::{ChatRequest, Content, MessageForm, PartForm, RouteChoice, Stop, TetherRequest};
use super::error::ApiError;
use crate::id::{SessionId, ViewName};
use crate::limits::{
    MAX_ANSWER_TOKENS, MAX_DEADLINE_MS, MAX_IMAGES, MAX_MESSAGES, MAX_NAME_BYTES, MAX_SENSOR_BYTES, MAX_SENSOR_DEPTH,
    MAX_SENSORS, MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TEXT_BYTES,
};
use crate::wire::{Role, Sampling};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A legal chat request: every limit holds, every parameter is one that will be honoured.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatTurn {
    /// As asked for, unless it was one of [`AUTO_MODELS`](super::AUTO_MODELS).
    pub model: Option<String>,
    /// At least one; the last one is the user's.
    pub messages: Vec<CheckedMessage>,
    pub stream: bool,
    pub include_usage: bool,
    pub sampling: Sampling,
    pub session: Option<SessionId>,
    pub route: RouteChoice,
    /// The only views that may travel, if the request limits them.
    pub views: Option<Vec<ViewName>>,
    pub task: Option<String>,
    pub deadline_ms: Option<u64>,
    pub local_only: bool,
    /// Readings for this turn alone, as compact JSON text, sorted by name.
    pub sensors: Vec<(ViewName, String)>,
    pub user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedMessage {
    pub role: Role,
    pub text: String,
    pub images: Vec<AttachedImage>,
}

/// A data URL, not yet decoded, and the camera it is said to be from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedImage {
    pub url: String,
    pub view: Option<ViewName>,
    /// Where it stands in the request, for errors.
    pub param: String,
}

impl ChatRequest {
    /// # Errors
    /// 400 with `param`: `unsupported_parameter` for what OpenAI has and this daemon does not honour,
    /// `invalid_value` for what is out of its range.
    pub fn check(self) -> Result<ChatTurn, ApiError> {
        refuse_unhonoured("", &self.rest)?;
        let sampling = check_sampling(&self)?;
        let include_usage = check_stream_options(&self)?;
        let model = check_name("model", self.model)?.filter(|name| !super::AUTO_MODELS.contains(&name.as_str()));
        let user = check_name("user", self.user)?;
        let messages = check_messages(self.messages)?;
        let tether = self.tether.unwrap_or_default();
        let turn = ChatTurn {
            model,
            messages,
            stream: self.stream.unwrap_or(false),
            include_usage,
            sampling,
            session: None,
            route: tether.route.unwrap_or_default(),
            views: None,
            task: None,
            deadline_ms: tether.deadline_ms,
            local_only: tether.local_only.unwrap_or(false),
            sensors: Vec::new(),
            user,
        };
        check_tether(turn, tether)
    }
}

fn check_tether(turn: ChatTurn, tether: TetherRequest) -> Result<ChatTurn, ApiError> {
    let name = |param: &'static str| move |error: crate::IdError| invalid(param, error.to_string());
    let session = tether.session.map(SessionId::new).transpose().map_err(name("tether.session"))?;
    let views = tether.views.map(|views| views.into_iter().map(ViewName::new).collect::<Result<Vec<_>, _>>());
    let views = views.transpose().map_err(name("tether.views"))?;
    let task = check_name("tether.task", tether.task)?;
    if let Some(deadline_ms) = tether.deadline_ms
        && !(1..=MAX_DEADLINE_MS).contains(&deadline_ms)
    {
        return Err(invalid("tether.deadline_ms", format!("{deadline_ms} is not in 1..={MAX_DEADLINE_MS} ms")));
    }
    if turn.local_only && turn.route == RouteChoice::Cloud {
        return Err(invalid("tether.route", "route \"cloud\" contradicts local_only: true"));
    }
    let sensors = check_sensors(tether.sensors.unwrap_or_default())?;
    Ok(ChatTurn { session, views, task, sensors, ..turn })
}

fn check_sensors(given: BTreeMap<String, Value>) -> Result<Vec<(ViewName, String)>, ApiError> {
    if given.len() > MAX_SENSORS {
        return Err(invalid("tether.sensors", format!("{} sensors, at most {MAX_SENSORS}", given.len())));
    }
    let check = |(name, value): (String, Value)| {
        let name = ViewName::new(name).map_err(|error| invalid("tether.sensors", error.to_string()))?;
        let param = format!("tether.sensors.{name}");
        if !is_shallow(&value, MAX_SENSOR_DEPTH) {
            return Err(invalid(param, format!("the reading is nested deeper than {MAX_SENSOR_DEPTH}")));
        }
        let json = value.to_string();
        match json.len() {
            0..=MAX_SENSOR_BYTES => Ok((name, json)),
            bytes => Err(invalid(param, format!("the reading has {bytes} bytes, at most {MAX_SENSOR_BYTES}"))),
        }
    };
    given.into_iter().map(check).collect()
}

/// Whether no array or object stands inside more than `depth - 1` others. Its own recursion ends there too.
fn is_shallow(value: &Value, depth: i32) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|field| is_shallow(field, depth - 1)),
        _ => true,
    }
}

fn check_sampling(request: &ChatRequest) -> Result<Sampling, ApiError> {
    let real = |param, value: Option<f64>, low: f64, high: f64| match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(invalid(param, format!("{value} is not in {low}..={high}")))
        }
        value => Ok(value.map(|value| value as f32)),
    };
    let top_k = match request.top_k {
        Some(k) if k == 0 || k > u64::from(u32::MAX) => Err(invalid("top_k", "must be at least 1")),
        k => Ok(k.map(|k| k as u32)),
    }?;
    if request.repetition_penalty == Some(0.0) {
        return Err(invalid("repetition_penalty", "must be above 0"));
    }
    Ok(Sampling {
        max_tokens: check_max_tokens(request)?,
        temperature: real("temperature", request.temperature, 0.0, 2.0)?,
        top_p: real("top_p", request.top_p, 0.0, 1.0)?,
        top_k,
        min_p: real("min_p", request.min_p, 0.0, 1.0)?,
        repetition_penalty: real("repetition_penalty", request.repetition_penalty, 0.0, 10.0)?,
        // OpenAI's seeds are signed; the bits are what seeds a generator.
        seed: request.seed.map(|seed| seed as u64),
        stop: check_stop(request.stop.as_ref())?,
    })
}

/// `max_completion_tokens` replaced `max_tokens` in OpenAI's API; here they mean the same.
fn check_max_tokens(request: &ChatRequest) -> Result<Option<u32>, ApiError> {
    let (param, given) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(new), Some(old)) if new != old => {
            return Err(invalid("max_tokens", "max_tokens and max_completion_tokens differ; give one"));
        }
        (Some(new), _) => ("max_completion_tokens", Some(new)),
        (None, old) => ("max_tokens", old),
    };
    match given {
        Some(tokens) if !(1..=u64::from(MAX_ANSWER_TOKENS)).contains(&tokens) => {
            Err(invalid(param, format!("{tokens} is not in 1..={MAX_ANSWER_TOKENS}")))
        }
        tokens => Ok(tokens.map(|tokens| tokens as u32)),
    }
}

fn check_stop(stop: Option<&Stop>) -> Result<Vec<String>, ApiError> {
    let strings = match stop {
        None => Vec::new(),
        Some(Stop::One(string)) => vec![string.clone()],
        Some(Stop::Many(strings)) => strings.clone(),
    };
    if strings.len() > MAX_STOP_STRINGS {
        return Err(invalid("stop", format!("{} stop strings, at most {MAX_STOP_STRINGS}", strings.len())));
    }
    if strings.iter().any(|string| string.is_empty() || string.len() > MAX_STOP_BYTES) {
        return Err(invalid("stop", format!("each stop string must have 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(strings)
}

fn check_stream_options(request: &ChatRequest) -> Result<bool, ApiError> {
    let Some(options) = &request.stream_options else { return Ok(false) };
    if request.stream != Some(true) {
        return Err(invalid("stream_options", "stream_options needs stream: true"));
    }
    if options.include_obfuscation == Some(true) {
        return Err(ApiError::unsupported("stream_options.include_obfuscation", "obfuscation is not done"));
    }
    Ok(options.include_usage.unwrap_or(false))
}

fn check_messages(forms: Vec<MessageForm>) -> Result<Vec<CheckedMessage>, ApiError> {
    if forms.is_empty() {
        return Err(invalid("messages", "messages must not be empty"));
    }
    if forms.len() > MAX_MESSAGES {
        return Err(invalid("messages", format!("{} messages, at most {MAX_MESSAGES}", forms.len())));
    }
    let messages = forms.into_iter().enumerate().map(|(i, form)| check_message(i, form));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = messages.iter().map(|message| message.text.len()).sum();
    if bytes > MAX_TEXT_BYTES {
        return Err(ApiError::bad_request(
            "messages",
            "text_too_long",
            format!("{bytes} bytes of text, at most {MAX_TEXT_BYTES}"),
        ));
    }
    let images: usize = messages.iter().map(|message| message.images.len()).sum();
    if images > MAX_IMAGES {
        return Err(invalid("messages", format!("{images} images, at most {MAX_IMAGES}")));
    }
    match messages.last() {
        Some(last) if last.role == Role::User => Ok(messages),
        _ => {
            let param = format!("messages[{}].role", messages.len() - 1);
            Err(invalid(param, "the last message must have the role \"user\": it is the one that is answered"))
        }
    }
}

fn check_message(index: usize, form: MessageForm) -> Result<CheckedMessage, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let role = match form.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => {
            return Err(ApiError::unsupported(at("role"), format!("role {:?}: tools are not supported", form.role)));
        }
        _ => {
            let shown: String = form.role.chars().take(MAX_NAME_BYTES).collect();
            return Err(invalid(at("role"), format!("unknown role {shown:?}; known: system, user, assistant")));
        }
    };
    refuse_unhonoured(&at(""), &form.rest)?;
    let (text, images) = match form.content {
        Some(Content::Text(text)) => (text, Vec::new()),
        Some(Content::Parts(parts)) => check_parts(&at("content"), role, parts)?,
        None => (String::new(), Vec::new()),
    };
    if text.trim().is_empty() && images.is_empty() {
        return Err(invalid(at("content"), "the message is empty"));
    }
    Ok(CheckedMessage { role, text, images })
}

fn check_parts(at: &str, role: Role, parts: Vec<PartForm>) -> Result<(String, Vec<AttachedImage>), ApiError> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for (i, part) in parts.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        match (part.kind.as_str(), part.text, part.image_url) {
            ("text", Some(text), None) => texts.push(text),
            ("text", ..) => return Err(invalid(format!("{at}.text"), "a text part needs \"text\" and nothing else")),
            ("image_url", None, Some(image)) if role == Role::User => {
                if image.detail.as_deref().is_some_and(|detail| !matches!(detail, "auto" | "high")) {
                    let param = format!("{at}.image_url.detail");
                    return Err(ApiError::unsupported(param, "detail may be \"auto\" or \"high\""));
                }
                let view = part.tether.map(|tether| ViewName::new(tether.view)).transpose();
                let view = view.map_err(|error| invalid(format!("{at}.tether.view"), error.to_string()))?;
                images.push(AttachedImage { url: image.url, view, param: format!("{at}.image_url.url") });
            }
            ("image_url", None, Some(_)) => {
                return Err(invalid(at, "images are accepted in user messages only"));
            }
            ("image_url", ..) => return Err(invalid(format!("{at}.image_url"), "an image part needs \"image_url\"")),
            (kind, ..) => {
                let shown: String = kind.chars().take(MAX_NAME_BYTES).collect();
                let message = format!("content part {shown:?}; supported: text, image_url");
                return Err(ApiError::unsupported(format!("{at}.type"), message));
            }
        }
    }
    Ok((texts.join("\n"), images))
}

/// Parameters of OpenAI that change nothing at this value. All else that is not a field is refused by name.
fn refuse_unhonoured(at: &str, rest: &BTreeMap<String, Value>) -> Result<(), ApiError> {
    for (name, value) in rest {
        let harmless: &[Value] = match name.as_str() {
            "n" => &[json!(1)],
            "logprobs" | "store" | "background" => &[json!(false)],
            "top_logprobs" => &[json!(0)],
            "tools" | "functions" | "tool_calls" => &[json!([])],
            "tool_choice" | "function_call" => &[json!("none"), json!("auto")],
            "parallel_tool_calls" => &[json!(true), json!(false)],
            "response_format" => &[json!({"type": "text"})],
            "frequency_penalty" | "presence_penalty" => &[json!(0), json!(0.0)],
            "logit_bias" | "metadata" => &[json!({})],
            "modalities" => &[json!(["text"])],
            "service_tier" => &[json!("auto"), json!("default")],
            _ => &[],
        };
        if !value.is_null() && !harmless.contains(value) {
            let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
            let param = format!("{at}{shown}");
            let message = format!("{param} is not supported with this value; leave it out");
            return Err(ApiError::unsupported(param, message));
        }
    }
    Ok(())
}

/// A short label: 1 to [`MAX_NAME_BYTES`] bytes, printable.
fn check_name(param: &'static str, name: Option<String>) -> Result<Option<String>, ApiError> {
    match name {
        Some(name) if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) => {
            Err(invalid(param, format!("must be 1 to {MAX_NAME_BYTES} bytes without control characters")))
        }
        name => Ok(name),
    }
}

fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
    ApiError::bad_request(param, "invalid_value", message)
}

#[cfg(test)]
mod tests;
