//! The `[[zoo]]` entries.

use super::form::{BackendForm, FaultForm, FaultKindForm, KindForm, OnContextFullForm, ScriptForm};
use super::resolve::{Wrong, duration, name, within};
use super::{BackendSettings, CandleSettings, Kind, MAX_CONCURRENCY, MAX_QUEUE, OpenAiSettings};
use crate::backend::scripted::{Fault, FaultKind, Script};
use crate::price::Prices;
use crate::secret::Secret;
use std::path::Path;
use std::time::Duration;
use tether_protocol::limits::{MAX_ANSWER_TOKENS, MAX_DEADLINE_MS};
use tether_protocol::wire::{ErrorCode, Vision};

/// The model that needs nothing else: `make model` fetches it.
const DEFAULT_MODEL: &str = "smollm2-135m-instruct";
/// Two minutes hold a 2,000-token prompt on a slow CPU, and a cold start of a hosted model.
const DEFAULT_FIRST_TOKEN_TIMEOUT_MS: u64 = 120_000;
const DEFAULT_TOKEN_TIMEOUT_MS: u64 = 30_000;
/// A spoken answer; a client that wants more says so.
const DEFAULT_MAX_TOKENS: u32 = 256;
/// Turns that may wait for each one that runs, before clients are better off elsewhere.
const QUEUE_PER_SLOT: usize = 8;

/// The zoo of a file that names none.
pub(super) fn embedded_default() -> BackendSettings {
    let candle = CandleSettings { model: DEFAULT_MODEL.to_owned(), threads: None, on_context_full: Default::default() };
    BackendSettings {
        name: DEFAULT_MODEL.to_owned(),
        vision: Vision::Measured,
        context_tokens: None,
        prices: Prices::default(),
        concurrency: 1,
        queue: QUEUE_PER_SLOT,
        max_tokens: MAX_ANSWER_TOKENS,
        default_max_tokens: DEFAULT_MAX_TOKENS,
        first_token_timeout: Duration::from_millis(DEFAULT_FIRST_TOKEN_TIMEOUT_MS),
        token_timeout: Duration::from_millis(DEFAULT_TOKEN_TIMEOUT_MS),
        kind: Kind::Candle(candle),
    }
}

pub(super) fn backend(form: BackendForm, folder: &Path) -> Result<BackendSettings, Wrong> {
    let name = name("zoo.name", form.name.clone())?;
    let key = |key: &str| format!("zoo.{name}.{key}");
    refuse_foreign_keys(&form, &key)?;
    let concurrency = form.concurrency.unwrap_or(match form.kind {
        // One thread runs the model; more turns at once would only share it.
        KindForm::Candle => 1,
        // These batch: vLLM's own default limit is far above.
        KindForm::OpenAi => 32,
        KindForm::Scripted => 256,
    });
    let max_tokens = form.max_tokens.unwrap_or(MAX_ANSWER_TOKENS);
    let default_max_tokens = form.default_max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(max_tokens));
    let timeout =
        |what: &str, given: Option<u64>, default| duration(&key(what), given.unwrap_or(default), 1..=MAX_DEADLINE_MS);
    Ok(BackendSettings {
        vision: vision(&form, &key)?,
        context_tokens: form
            .context_tokens
            .map(|tokens| within(&key("context_tokens"), tokens, 16..=1 << 24))
            .transpose()?,
        prices: prices(&form, &key)?,
        concurrency: within(&key("concurrency"), concurrency, 1..=MAX_CONCURRENCY)?,
        queue: within(
            &key("queue"),
            form.queue.unwrap_or(concurrency.saturating_mul(QUEUE_PER_SLOT).min(MAX_QUEUE)),
            0..=MAX_QUEUE,
        )?,
        max_tokens: within(&key("max_tokens"), max_tokens, 1..=MAX_ANSWER_TOKENS)?,
        default_max_tokens: within(&key("default_max_tokens"), default_max_tokens, 1..=max_tokens)?,
        first_token_timeout: timeout(
            "first_token_timeout_ms",
            form.first_token_timeout_ms,
            DEFAULT_FIRST_TOKEN_TIMEOUT_MS,
        )?,
        token_timeout: timeout("token_timeout_ms", form.token_timeout_ms, DEFAULT_TOKEN_TIMEOUT_MS)?,
        kind: kind(form, folder, &key)?,
        name,
    })
}

fn refuse_foreign_keys(form: &BackendForm, key: &dyn Fn(&str) -> String) -> Result<(), Wrong> {
    use KindForm::{Candle, OpenAi, Scripted};
    let keys: [(&str, bool, &[KindForm]); 9] = [
        ("model", form.model.is_some(), &[Candle, OpenAi]),
        ("threads", form.threads.is_some(), &[Candle]),
        ("on_context_full", form.on_context_full.is_some(), &[Candle]),
        ("base_url", form.base_url.is_some(), &[OpenAi]),
        ("api_key_file", form.api_key_file.is_some(), &[OpenAi]),
        ("api_key_env", form.api_key_env.is_some(), &[OpenAi]),
        ("ca", form.ca.is_some(), &[OpenAi]),
        ("max_tokens_name", form.max_tokens_name.is_some(), &[OpenAi]),
        ("script", form.script.is_some(), &[Scripted]),
    ];
    match keys.iter().find(|(_, given, kinds)| *given && !kinds.contains(&form.kind)) {
        Some((foreign, _, _)) => Err((key(foreign), "is a key of another kind of backend; check `kind`".into())),
        None => Ok(()),
    }
}

fn vision(form: &BackendForm, key: &dyn Fn(&str) -> String) -> Result<Vision, Wrong> {
    let default = if form.kind == KindForm::OpenAi { Vision::None } else { Vision::Measured };
    match form.vision.unwrap_or(default) {
        Vision::Native if form.kind == KindForm::Candle => Err((
            key("vision"),
            "the embedded models cannot see; write \"measured\", \"none\", or use an openai backend".into(),
        )),
        vision => Ok(vision),
    }
}

fn prices(form: &BackendForm, key: &dyn Fn(&str) -> String) -> Result<Prices, Wrong> {
    let prices = Prices {
        usd_per_million_prompt_tokens: form.usd_per_million_prompt_tokens,
        usd_per_million_completion_tokens: form.usd_per_million_completion_tokens,
        usd_per_request: form.usd_per_request,
        usd_per_image: form.usd_per_image,
    };
    match prices.illegal() {
        Some((name, price)) => Err((key(name), format!("{price} is not an amount of at least 0"))),
        None => Ok(prices),
    }
}

fn kind(form: BackendForm, folder: &Path, key: &dyn Fn(&str) -> String) -> Result<Kind, Wrong> {
    Ok(match form.kind {
        KindForm::Candle => Kind::Candle(candle(form, folder, key)?),
        KindForm::OpenAi => Kind::OpenAi(openai(form, folder, key)?),
        KindForm::Scripted => Kind::Scripted(script(form.script.unwrap_or_default(), key)?),
    })
}

fn candle(form: BackendForm, folder: &Path, key: &dyn Fn(&str) -> String) -> Result<CandleSettings, Wrong> {
    let threads = form.threads.map(|threads| within(&key("threads"), threads, 1..=1_024)).transpose()?;
    let model = form.model.unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    // A path starts at the file's folder; a registry name holds no slash.
    let model = if model.contains('/') { folder.join(model).to_string_lossy().into_owned() } else { model };
    let on_context_full = match form.on_context_full {
        Some(OnContextFullForm::DropOldest) => tether_models::OnContextFull::DropOldest,
        Some(OnContextFullForm::Error) | None => tether_models::OnContextFull::Error,
    };
    Ok(CandleSettings { model, threads, on_context_full })
}

fn openai(form: BackendForm, folder: &Path, key: &dyn Fn(&str) -> String) -> Result<OpenAiSettings, Wrong> {
    let base_url =
        form.base_url.ok_or_else(|| (key("base_url"), "is missing, such as \"https://host/v1\"".to_owned()))?;
    let model =
        form.model.ok_or_else(|| (key("model"), "is missing: the server's own name for the model".to_owned()))?;
    let api_key = match (form.api_key_file, form.api_key_env) {
        (Some(_), Some(_)) => return Err((key("api_key_env"), "give api_key_file or api_key_env, not both".into())),
        (Some(file), None) => {
            Some(key_from_file(&folder.join(file)).map_err(|problem| (key("api_key_file"), problem))?)
        }
        (None, Some(variable)) => Some(key_from_env(&variable).map_err(|problem| (key("api_key_env"), problem))?),
        (None, None) => None,
    };
    let ca = form.ca.map(|path| {
        let path = folder.join(path);
        std::fs::read(&path).map_err(|problem| (key("ca"), format!("{}: {problem}", path.display())))
    });
    Ok(OpenAiSettings {
        base_url: checked_url(&base_url).map_err(|problem| (key("base_url"), problem))?,
        model,
        api_key,
        ca: ca.transpose()?,
        max_tokens_name: form.max_tokens_name.unwrap_or_default(),
    })
}

fn checked_url(given: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(given).map_err(|problem| format!("{given:?} is no URL: {problem}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{given:?} must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        // Not repeated: what stands there is likely a secret.
        return Err(
            "must not hold a user, a password or a query; the key belongs in api_key_file or api_key_env".into()
        );
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(super) fn key_from_file(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
    Secret::new(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

fn key_from_env(variable: &str) -> Result<Secret, String> {
    let text = std::env::var(variable).map_err(|_| format!("the environment variable {variable} is not set"))?;
    Secret::new(&text).map_err(|problem| format!("environment variable {variable}: {problem}"))
}

fn script(form: ScriptForm, key: &dyn Fn(&str) -> String) -> Result<Script, Wrong> {
    let delay = |what: &str, ms| duration(&key(what), ms, 0..=MAX_DEADLINE_MS);
    let tokens = form.answer_tokens.map(|tokens| within(&key("script.answer_tokens"), tokens, 0..=MAX_ANSWER_TOKENS));
    Ok(Script {
        answer: form.answer.unwrap_or_else(|| "You said: {user}".to_owned()),
        answer_tokens: tokens.transpose()?,
        first_token: delay("script.first_token_ms", form.first_token_ms)?,
        token: delay("script.token_ms", form.token_ms)?,
        seed: form.seed,
        failed_probes: form.failed_probes,
        faults: form.faults.into_iter().map(|form| fault(form, key)).collect::<Result<_, _>>()?,
    })
}

fn fault(form: FaultForm, key: &dyn Fn(&str) -> String) -> Result<Fault, Wrong> {
    let kind = match form.kind {
        FaultKindForm::Error => FaultKind::Error(code(form.code.as_deref().unwrap_or("backend_failed"), key)?),
        FaultKindForm::Hang => FaultKind::Hang,
        FaultKindForm::Cut => FaultKind::Cut { after_tokens: form.after_tokens.unwrap_or(0) },
    };
    let probability = within(&key("script.faults.probability"), form.probability.unwrap_or(1.0), 0.0..=1.0)?;
    Ok(Fault { kind, probability, first_turns: form.first_turns })
}

fn code(given: &str, key: &dyn Fn(&str) -> String) -> Result<ErrorCode, Wrong> {
    let codes = [
        ("bad_request", ErrorCode::BadRequest),
        ("context_full", ErrorCode::ContextFull),
        ("overloaded", ErrorCode::Overloaded),
        ("backend_failed", ErrorCode::BackendFailed),
        ("internal", ErrorCode::Internal),
    ];
    codes.iter().find(|(name, _)| *name == given).map(|(_, code)| *code).ok_or_else(|| {
        let names: Vec<&str> = codes.iter().map(|(name, _)| *name).collect();
        (key("script.faults.code"), format!("{given:?} must be one of {}", names.join(", ")))
    })
}
