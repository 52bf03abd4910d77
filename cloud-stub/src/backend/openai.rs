//! Any OpenAI-compatible server: vLLM, Ray Serve LLM, llama.cpp's server, a hosted API.

use super::{Answer, Ask, BackendError, Piece, Pieces};
use crate::config::OpenAiSettings;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response};
use std::collections::VecDeque;
use std::time::Duration;
use tether_protocol::limits::MAX_SSE_EVENT_BYTES;
use tether_protocol::openai::{AnswerEnd, AnswerPart, AnswerReader, ChatRequest, read_completion, status_error};
use tether_protocol::record::FinishReason;
use tether_protocol::wire::{ErrorCode, WireError};

/// A server that takes longer to accept a TCP connection is as good as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an error's body.
const MAX_ERROR_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct OpenAiBackend {
    settings: OpenAiSettings,
    client: Client,
}

impl OpenAiBackend {
    /// # Errors
    /// If the roots of trust or the CA file cannot be used.
    pub fn new(settings: &OpenAiSettings) -> anyhow::Result<Self> {
        Ok(Self { settings: settings.clone(), client: client(settings)? })
    }

    pub async fn answer(&self, ask: Ask) -> Result<Pieces, BackendError> {
        let body =
            ChatRequest::streamed(&self.settings.model, &ask.request, &ask.images, self.settings.max_tokens_name);
        let prompt_bytes = body.text_bytes();
        let request = self.client.post(format!("{}/chat/completions", self.settings.base_url)).json(&body);
        let response = self.send(request).await?;
        let answer = Reading::begin(response, prompt_bytes, ask.max_tokens()).await?;
        Ok(stream::unfold(answer, |mut answer| async { Some((answer.next().await?, answer)) }).boxed())
    }

    /// Lists the models: every such server can, it costs nothing, and it checks the key.
    pub async fn probe(&self) -> Result<(), BackendError> {
        let request = self.client.get(format!("{}/models", self.settings.base_url));
        let response = self.authorized(request).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        // 404 and 405 come from servers without that page, 429 from one that is alive and busy.
        let alive = status.is_success() || matches!(status.as_u16(), 404 | 405 | 429);
        if alive { Ok(()) } else { Err(BackendError::Failed(format!("the probe was answered with HTTP {status}"))) }
    }

    /// Sends a request and reads the status; what is not a success becomes an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        let response = self.authorized(request).send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = text_header(response.headers(), RETRY_AFTER.as_str());
        let body = read_at_most(response.bytes_stream().boxed(), MAX_ERROR_BYTES).await;
        let error = status_error(status, retry_after.as_deref(), &body);
        // Some servers repeat the key that they refuse.
        let message = self.settings.api_key.as_ref().map_or(error.message.clone(), |key| key.hide(&error.message));
        Err(sorted(WireError { message, ..error }))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.settings.api_key {
            Some(key) => request.bearer_auth(key.reveal()),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> BackendError {
        BackendError::Failed(format!("{} cannot be reached: {}", self.settings.base_url, root_cause(error)))
    }
}

fn client(settings: &OpenAiSettings) -> anyhow::Result<Client> {
    // Another part of the process may have installed it already, and there is only one in this program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if let Some(ca) = &settings.ca {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(ca)?);
    } else if settings.base_url.starts_with("http://") {
        // Nothing to verify, so a machine without roots of trust will do.
        builder = builder.tls_certs_only([]);
    }
    Ok(builder.build()?)
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The innermost error says what happened ("connection refused"), the outer ones only repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

type Body = BoxStream<'static, reqwest::Result<Bytes>>;

async fn read_at_most(mut body: Body, limit: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        let room = limit - read.len();
        read.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if read.len() == limit {
            break;
        }
    }
    read
}

/// Sorts a server's error by whose turn it is to act. A refused key or an unknown model upstream is this gateway's
/// fault, not its client's.
fn sorted(error: WireError) -> BackendError {
    match error.code {
        ErrorCode::Overloaded => BackendError::Busy { message: error.message, retry_after_ms: error.retry_after_ms },
        ErrorCode::BadRequest | ErrorCode::ContextFull | ErrorCode::NoVision => BackendError::Refused(error),
        _ => BackendError::Failed(error.message),
    }
}

/// An answer under way, read as it is asked for.
struct Reading {
    body: Body,
    /// `None` once the body has been read.
    reader: Option<AnswerReader>,
    /// What was read and not asked for yet; `end` comes after it.
    parts: VecDeque<AnswerPart>,
    end: Option<Result<AnswerEnd, WireError>>,
    prompt_bytes: usize,
    max_tokens: u32,
    text_pieces: u32,
}

impl Reading {
    /// Begins to read a successful response, streamed or (some servers ignore `stream`) in one piece.
    async fn begin(response: Response, prompt_bytes: usize, max_tokens: u32) -> Result<Self, BackendError> {
        let kind = text_header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let body = response.bytes_stream().boxed();
        let (reader, parts, end) = (Some(AnswerReader::default()), VecDeque::new(), None);
        let mut reading = Self { body, reader, parts, end, prompt_bytes, max_tokens, text_pieces: 0 };
        if kind.starts_with("application/json") {
            reading.read_whole().await?;
        }
        Ok(reading)
    }

    async fn read_whole(&mut self) -> Result<(), BackendError> {
        self.reader = None;
        let body = read_at_most(std::mem::replace(&mut self.body, stream::empty().boxed()), MAX_SSE_EVENT_BYTES).await;
        let (parts, end) = read_completion(&body).map_err(sorted)?;
        self.parts.extend(parts);
        self.end = Some(Ok(end));
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<Piece, BackendError>> {
        let piece = self.try_next().await.transpose();
        if !matches!(piece, Some(Ok(Piece::Text(_)))) {
            self.stop();
        }
        piece
    }

    fn stop(&mut self) {
        (self.reader, self.end) = (None, None);
        self.parts.clear();
    }

    async fn try_next(&mut self) -> Result<Option<Piece>, BackendError> {
        loop {
            match self.parts.pop_front() {
                Some(AnswerPart::Text(text)) => return Ok(Some(self.text(text))),
                Some(AnswerPart::Failed(error)) => return Err(sorted(error)),
                Some(AnswerPart::Model(_)) => {}
                Some(AnswerPart::Done) => self.body_is_over(),
                None if self.reader.is_some() => self.read_more().await?,
                None => match self.end.take() {
                    Some(end) => return Ok(Some(Piece::End(answer(&end.map_err(sorted)?, self.prompt_bytes)))),
                    None => return Ok(None),
                },
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), BackendError> {
        match (self.reader.as_mut(), self.body.next().await) {
            (Some(reader), Some(Ok(bytes))) => self.parts.extend(reader.push(&bytes)),
            (_, Some(Err(error))) => {
                return Err(BackendError::Failed(format!("the answer broke off: {}", root_cause(&error))));
            }
            _ => self.body_is_over(),
        }
        Ok(())
    }

    fn body_is_over(&mut self) {
        if let Some(reader) = self.reader.take() {
            let (parts, end) = reader.finish();
            self.parts.extend(parts);
            self.end = Some(end);
        }
    }

    /// A server that does not keep to `max_tokens` is cut off: none sends less than a token at a time.
    fn text(&mut self, text: String) -> Piece {
        if self.text_pieces < self.max_tokens {
            self.text_pieces += 1;
            return Piece::Text(text);
        }
        let end = AnswerEnd { finish_reason: FinishReason::Length, usage: None, pieces: self.text_pieces };
        Piece::End(answer(&end, self.prompt_bytes))
    }
}

fn answer(end: &AnswerEnd, prompt_bytes: usize) -> Answer {
    let (usage, usage_estimated) = end.usage_or_estimate(prompt_bytes);
    Answer { finish_reason: end.finish_reason, usage, usage_estimated, dropped_messages: 0 }
}
