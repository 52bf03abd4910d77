//! The chat template itself, with the settings and functions that Hugging Face gives to templates.

use super::{ChatMessage, python_json};
use crate::error::ModelError;
use crate::tokenizer::chat_template_source;
use candle_core::quantized::gguf_file::Content;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};

/// The longest template read, in bytes; the longest known have about 20 KB.
const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
/// Instructions that one rendering may take: about a hundred times what 512 messages need. Ends a template that loops.
const FUEL: u64 = 20_000_000;
/// Used where a file has none: the form most instruction models understand.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
    '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const NAME: &str = "chat";

/// A compiled chat template. `Send + Sync`.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    is_fallback: bool,
    /// Stands still in tests; else the time of the rendering.
    now: Option<jiff::Timestamp>,
}

impl ChatTemplate {
    /// The template in the metadata of a GGUF file, or the ChatML form if there is none; [`Self::is_fallback`] tells.
    ///
    /// # Errors
    /// [`ModelError::Template`] if the template is too long or cannot be parsed.
    pub fn from_metadata(content: &Content) -> Result<ChatTemplate, ModelError> {
        match chat_template_source(content) {
            Some(source) => Self::from_source(source),
            None => Ok(ChatTemplate { is_fallback: true, ..Self::from_source(CHATML)? }),
        }
    }

    /// Compiles a template given as text.
    ///
    /// # Errors
    /// As [`Self::from_metadata`].
    pub fn from_source(source: &str) -> Result<ChatTemplate, ModelError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let problem = format!("it has {} bytes, and at most {MAX_TEMPLATE_BYTES} are read", source.len());
            return Err(ModelError::Template(problem));
        }
        let mut environment = environment();
        environment.add_template_owned(NAME, source.to_owned()).map_err(problem)?;
        Ok(ChatTemplate { environment, source: source.to_owned(), is_fallback: false, now: None })
    }

    /// Whether the file had no template, so that the ChatML form is used.
    pub fn is_fallback(&self) -> bool {
        self.is_fallback
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The same template with the clock of `strftime_now` standing at `now`.
    #[must_use]
    pub fn at(self, now: jiff::Timestamp) -> ChatTemplate {
        ChatTemplate { now: Some(now), ..self }
    }

    /// The dialogue as one text; with `add_generation_prompt`, the assistant's turn is opened at the end. A template
    /// that refuses system messages is given them at the head of the first user message.
    ///
    /// # Errors
    /// [`ModelError::Template`] with the template's own words if it refuses the messages, else with what is wrong.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        bos: &str,
        eos: &str,
    ) -> Result<String, ModelError> {
        let render = |messages: &[ChatMessage]| self.render_once(messages, add_generation_prompt, bos, eos);
        let error = match render(messages) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        match without_system(messages) {
            Some(merged) if error.kind() == ErrorKind::InvalidOperation => render(&merged).map_err(|_| problem(error)),
            _ => Err(problem(error)),
        }
    }

    fn render_once(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        bos: &str,
        eos: &str,
    ) -> Result<String, Error> {
        let now = self.now.unwrap_or_else(jiff::Timestamp::now);
        let strftime = move |format: &str| {
            let written = jiff::fmt::strtime::format(format, &now.to_zoned(jiff::tz::TimeZone::UTC));
            written.map_err(|error| Error::new(ErrorKind::BadSerialization, format!("strftime_now: {error}")))
        };
        let messages: Vec<Value> =
            messages.iter().map(|message| context! { role => &message.role, content => &message.content }).collect();
        self.environment.get_template(NAME)?.render(context! {
            messages,
            add_generation_prompt,
            bos_token => bos,
            eos_token => eos,
            tools => (),
            documents => (),
            strftime_now => Value::from_function(strftime),
        })
    }
}

/// As transformers sets up Jinja: blocks trimmed, no escaping, loop controls, Python's methods on values.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(blocks_trimmed());
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("the template refuses the dialogue: {message}")))
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| {
        let indent = options.get::<Option<usize>>("indent")?;
        // `ensure_ascii` and the like change nothing that a model has seen.
        python_json::dumps(&value, indent).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    });
    environment
}

fn blocks_trimmed() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true).build().expect("the usual delimiters differ from one another")
}

/// The system messages' text put before that of the first user message; `None` if that changes nothing.
fn without_system(messages: &[ChatMessage]) -> Option<Vec<ChatMessage>> {
    let (system, mut others): (Vec<_>, Vec<_>) = messages.iter().cloned().partition(|message| message.role == "system");
    let user = others.iter_mut().find(|message| message.role == "user")?;
    if system.is_empty() {
        return None;
    }
    let head: Vec<String> = system.into_iter().map(|message| message.content).collect();
    user.content = format!("{}\n\n{}", head.join("\n\n"), user.content);
    Some(others)
}

fn problem(error: Error) -> ModelError {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line} of the template)"));
    ModelError::Template(format!("{}{line}", error.detail().map_or(error.kind().to_string(), str::to_owned)))
}
