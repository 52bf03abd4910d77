//! An OpenAI-compatible server over HTTPS, without a gateway: `cloud.kind = "openai"`.
//!
//! What goes wrong before anything has left the device is a [`CloudError`]; afterwards it is an error event of the
//! stream, whose byte count then tells what did leave. Bytes are those of the HTTP bodies in both directions;
//! headers, chunk framing, TLS and TCP are not counted.

mod body;
mod client;
mod events;
mod key;
#[cfg(test)]
mod tests;

use super::{ByteCount, CloudError, CloudStream, CloudTurn};
use body::CountedBody;
use events::EventReader;
use key::Key;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tether_protocol::context::{Link, LinkState};
use tether_protocol::openai::{ChatRequest, MaxTokensName};
use tether_protocol::wire::{ErrorCode, TurnEvent, WireError};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

/// Events that wait for a slow reader before the server is slowed down too.
const EVENT_QUEUE: usize = 64;
/// How long a failed connection keeps the link `down`: after that the next turn may try again.
const DOWN_FOR: Duration = Duration::from_secs(15);

/// `[cloud]` with `kind = "openai"`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// Up to and including `/v1`.
    pub base_url: String,
    pub model: String,
    /// File or environment variable that holds the key; at most one of the two.
    pub api_key_file: Option<PathBuf>,
    pub api_key_env: Option<String>,
    /// PEM file of the only certificate authorities to trust; the system's own if absent.
    pub ca: Option<PathBuf>,
    /// Whether the model takes images.
    #[serde(default)]
    pub vision: bool,
    /// `max_completion_tokens` for OpenAI's reasoning models.
    #[serde(default)]
    pub max_tokens_name: MaxTokensName,
    #[serde(default)]
    pub usd_per_million_prompt_tokens: f64,
    #[serde(default)]
    pub usd_per_million_completion_tokens: f64,
    /// An unreachable server must leave time for the local model.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

fn default_connect_timeout_ms() -> u64 {
    1_500
}

/// One attempt to connect; without a problem it worked.
#[derive(Debug)]
struct Attempt {
    problem: Option<Box<CloudError>>,
    at: Instant,
}

/// The server, with its pool of kept connections.
#[derive(Debug)]
pub struct OpenAiCloud {
    /// Boxed, because the other kind of cloud beside it is small.
    config: Box<OpenAiConfig>,
    client: reqwest::Client,
    url: reqwest::Url,
    key: Option<Key>,
    /// How the last attempt to connect went, and when.
    last: Mutex<Option<Attempt>>,
}

impl OpenAiCloud {
    /// Reads the key and the certificates; connects to nothing.
    ///
    /// # Errors
    /// [`CloudError::Config`] names the key of the settings and what is wrong with it.
    pub fn new(config: OpenAiConfig) -> Result<Self, CloudError> {
        client::check(&config)?;
        let url = client::chat_url(&config.base_url)?;
        let key = Key::read(config.api_key_file.as_deref(), config.api_key_env.as_deref())?;
        if key.is_some() && url.scheme() == "http" && !client::is_loopback(&url) {
            tracing::warn!(base_url = %config.base_url, "the key and all text travel unencrypted: use https");
        }
        let client = client::build(&config, &url)?;
        Ok(Self { config: Box::new(config), client, url, key, last: Mutex::new(None) })
    }

    /// Sends a turn; returns when the server has begun to answer (its headers), or failed to. Dropping this future,
    /// or the stream, closes the request.
    ///
    /// # Errors
    /// Only what happens before a byte of the turn has left the device.
    pub async fn turn(&self, turn: CloudTurn) -> Result<CloudStream, CloudError> {
        self.check_turn(&turn)?;
        let request = self.request(&turn);
        let events = EventReader::new(&self.config, request.text_bytes());
        let body = serde_json::to_vec(&request).map_err(|error| CloudError::Config(error.to_string()))?;
        drop((request, turn.images));

        let bytes = Arc::new(ByteCount::within(turn.most_up_bytes));
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let sent = timeout_at(turn.deadline.into(), self.post(CountedBody::new(body, bytes.clone()))).await;
        match sent {
            Ok(Ok(response)) => {
                self.remember(None);
                let key = self.key.clone();
                let answer = Answer { response, events, sender, bytes: bytes.clone(), deadline: turn.deadline, key };
                tokio::spawn(answer.run());
            }
            failed => self.fail(failed.map_err(drop).map(Result::err), &bytes, &sender)?,
        }
        Ok(CloudStream { events: receiver, bytes })
    }

    fn request(&self, turn: &CloudTurn) -> ChatRequest {
        ChatRequest::streamed(&self.config.model, &turn.request, &turn.images, self.config.max_tokens_name)
    }

    /// See [`Cloud::uplink_bytes`](super::Cloud::uplink_bytes): exactly the body.
    pub fn uplink_bytes(&self, turn: &CloudTurn) -> u64 {
        // What cannot be written is not sent either.
        serde_json::to_vec(&self.request(turn)).map_or(0, |body| body.len() as u64)
    }

    /// Asks for the list of models: the connection, the certificate and the key are tried. A server without that list
    /// is as good.
    ///
    /// # Errors
    /// What a turn would fail with.
    pub async fn reach(&self) -> Result<(), CloudError> {
        let url = self.url.join("../models").map_err(|error| CloudError::Config(format!("cloud.base_url: {error}")))?;
        let mut request = self.client.get(url);
        if let Some(key) = &self.key {
            request = request.header(reqwest::header::AUTHORIZATION, key.header());
        }
        let response = request.send().await.map_err(|error| client::unreachable(&self.config.base_url, &error))?;
        match response.status().as_u16() {
            401 | 403 => {
                let message = format!("{} does not accept the key: {}", self.config.base_url, response.status());
                Err(WireError::new(ErrorCode::Unauthorized, message).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the server was reached lately; HTTPS measures nothing else.
    pub fn link(&self) -> Reading<Link> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Attempt { problem, at }) = &*last else { return Reading::unknown("nothing sent yet") };
        let state = if problem.is_none() { LinkState::Up } else { LinkState::Down };
        let age = at.elapsed();
        if state == LinkState::Down && age > DOWN_FOR {
            return Reading::unknown("the server could not be reached a while ago, and was not tried since");
        }
        Reading::known(
            Link::in_state(state),
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            "last request over HTTP",
        )
    }

    pub fn address(&self) -> String {
        self.config.base_url.clone()
    }

    fn check_turn(&self, turn: &CloudTurn) -> Result<(), CloudError> {
        if !turn.images.is_empty() && !self.config.vision {
            let message = format!("model {} takes no images (cloud.vision is false)", self.config.model);
            return Err(WireError::new(ErrorCode::NoVision, message).into());
        }
        match &turn.request.model {
            Some(asked) if *asked != self.config.model => {
                let message = format!("model {asked} is not the one configured (cloud.model is {})", self.config.model);
                Err(WireError::new(ErrorCode::UnknownModel, message).into())
            }
            _ => Ok(()),
        }
    }

    async fn post(&self, body: CountedBody) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(reqwest::header::AUTHORIZATION, key.header());
        }
        request.body(reqwest::Body::wrap(body)).send().await
    }

    /// `failed`: `Err` for the deadline, otherwise what the client said.
    fn fail(
        &self,
        failed: Result<Option<reqwest::Error>, ()>,
        bytes: &ByteCount,
        sender: &mpsc::Sender<TurnEvent>,
    ) -> Result<(), CloudError> {
        let nothing_left = bytes.uplink_bytes() == 0 && !bytes.is_cut();
        let error = match failed.ok().flatten() {
            None if nothing_left => return Err(CloudError::Deadline),
            None => client::deadline_error(),
            Some(error) if nothing_left => {
                let error = client::unreachable(&self.config.base_url, &error);
                self.remember(Some(error.clone().into()));
                return Err(error);
            }
            Some(error) => WireError::new(ErrorCode::BackendFailed, client::root_cause(&error)),
        };
        // The queue is new and holds more than one.
        let _ = sender.try_send(TurnEvent::Error(error));
        Ok(())
    }

    /// Why the server could not be reached the last time that it was tried, if it could not.
    pub fn problem(&self) -> Option<CloudError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()?.problem.as_deref().cloned()
    }

    fn remember(&self, problem: Option<Box<CloudError>>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Attempt { problem, at: Instant::now() });
    }
}

/// One answer being read, in a task of its own that ends with the stream.
struct Answer {
    response: reqwest::Response,
    events: EventReader,
    sender: mpsc::Sender<TurnEvent>,
    bytes: Arc<ByteCount>,
    deadline: Instant,
    key: Option<Key>,
}

impl Answer {
    async fn run(mut self) {
        let sender = self.sender.clone();
        tokio::select! {
            // Whoever asked has gone: dropping the response closes the connection and so frees the server.
            () = sender.closed() => {}
            read = timeout_at(self.deadline.into(), self.read()) => {
                if read.is_err() {
                    // Beyond the deadline nobody is waited for.
                    let _ = sender.try_send(TurnEvent::Error(client::deadline_error()));
                }
            }
        }
    }

    async fn read(&mut self) {
        if let Some(error) = self.refusal().await {
            return self.send(vec![TurnEvent::Error(error)]).await;
        }
        if client::content_type(&self.response) == "application/json" {
            let body = self.whole_body(tether_protocol::limits::MAX_SSE_EVENT_BYTES).await;
            let events = self.events.read_whole(&body);
            return self.send(events).await;
        }
        while !self.events.is_over() {
            let events = match self.response.chunk().await {
                Ok(Some(chunk)) => {
                    self.bytes.add_downlink(chunk.len() as u64);
                    self.events.push(&chunk)
                }
                Ok(None) => break,
                Err(error) => self.events.broken(client::root_cause(&error)),
            };
            self.send(events).await;
        }
        let events = self.events.finish();
        self.send(events).await;
    }

    /// What a status or a content type says that is not an answer.
    async fn refusal(&mut self) -> Option<WireError> {
        if self.response.status().is_success() {
            return client::wrong_content(&self.response);
        }
        let body = self.whole_body(client::MAX_ERROR_BODY_BYTES).await;
        Some(client::status_error(&self.response, &body))
    }

    /// The body, or as much of it as came and as is allowed.
    async fn whole_body(&mut self, max_bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = self.response.chunk().await {
            self.bytes.add_downlink(chunk.len() as u64);
            body.extend_from_slice(&chunk);
            if body.len() > max_bytes {
                break;
            }
        }
        body
    }

    async fn send(&self, events: Vec<TurnEvent>) {
        for mut event in events {
            if let (TurnEvent::Error(error), Some(key)) = (&mut event, &self.key) {
                error.message = key.redact(&error.message);
            }
            // A closed channel is noticed by `run`.
            let _ = self.sender.send(event).await;
        }
    }
}
