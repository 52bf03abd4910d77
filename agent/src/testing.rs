//! For tests, of this crate and of those that use it: a whole daemon in this process, on a socket in a folder of its
//! own, with a tiny random model. Not meant for programs.

mod upstream;

pub use upstream::{Behaviour, Upstream};

use crate::config::{Settings, load_from};
use crate::daemon::{Daemon, ServeError};
use crate::socket::Socket;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::record::{Outcome, Timings, Usage};
use tether_protocol::{Action, Context, Cost, Reason, Route, TurnId, TurnRecord};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A daemon that runs in this process.
pub struct World {
    pub daemon: Arc<Daemon>,
    folder: PathBuf,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

/// A streamed response under way; dropping it closes its connection.
pub struct Streaming {
    pub response: Response<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

/// Settings for a daemon in `folder` with a tiny model, and `extra` TOML after it. Sections that `extra` has replace
/// ours.
///
/// # Errors
/// As loading settings says, or the folder cannot be written.
pub fn settings(folder: &Path, extra: &str) -> anyhow::Result<Settings> {
    let model = folder.join("tiny.gguf");
    if !model.exists() {
        TinyModel::new(TinyArchitecture::Llama).write(&model)?;
    }
    let ours = [
        ("[socket]", "path = \"t.sock\"\n"),
        ("[ledger]", "path = \"t.db\"\n"),
        // Tests say what they ask for; what was learned may be learned anew.
        ("[policy]", "name = \"rule\"\n"),
        ("[model]", "path = \"tiny.gguf\"\nmax_tokens = 8\nsystem_prompt = \"\"\n"),
    ];
    let mut text = String::new();
    // Keys before the first section belong to no section and stay in front.
    let sections = extra.find('[').unwrap_or(extra.len());
    text.push_str(&extra[..sections]);
    for (section, keys) in ours {
        if !extra.contains(section) {
            text.push_str(&format!("{section}\n{keys}"));
        }
    }
    text.push_str(&extra[sections..]);
    let file = folder.join("config.toml");
    std::fs::write(&file, text)?;
    Ok(load_from(Some(&file), &BTreeMap::new())?.settings)
}

impl World {
    /// Starts a daemon in `folder`; see [`settings`].
    ///
    /// # Errors
    /// The daemon does not start.
    pub async fn start(folder: &Path, extra: &str) -> anyhow::Result<Self> {
        let settings = settings(folder, extra)?;
        let socket = Socket::bind(&settings.socket)?;
        let daemon = Daemon::start(settings).await?;
        let shutdown = CancellationToken::new();
        let (serving, stop) = (daemon.clone(), shutdown.clone());
        let served = tokio::spawn(async move { serving.serve(&socket, stop).await });
        Ok(Self { daemon, folder: folder.to_owned(), shutdown, served })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("t.sock")
    }

    /// Stops as SIGTERM does: running answers end first.
    ///
    /// # Errors
    /// Serving failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.served.await??;
        Ok(())
    }

    /// Sends a request on a connection of its own; returns when the response's head is there.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn open(&self, method: &str, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Streaming> {
        let stream = UnixStream::connect(self.socket()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let request = Request::builder().method(Method::from_bytes(method.as_bytes())?).uri(path).header("host", "t");
        let response = sender.send_request(request.body(Full::new(body.into()))?).await?;
        Ok(Streaming { response, _connection: connection })
    }

    /// A whole request and its whole response.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Reply> {
        let Streaming { response, _connection } = self.open(method, path, body).await?;
        let status = response.status().as_u16();
        let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = response.headers().iter().map(header).collect();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply { status, headers, body })
    }

    /// # Errors
    /// The connection breaks.
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send("GET", path, "").await
    }

    /// One turn: the user says `text`; `extra` keys join the request.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn ask(&self, text: &str, extra: Value) -> anyhow::Result<Reply> {
        self.send("POST", "/v1/chat/completions", ask_body(text, extra)).await
    }

    /// As [`ask`](Self::ask), streamed.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn stream(&self, text: &str, extra: Value) -> anyhow::Result<Streaming> {
        let mut extra = extra;
        extra["stream"] = true.into();
        self.open("POST", "/v1/chat/completions", ask_body(text, extra)).await
    }
}

/// The record of a local turn that has begun just now.
///
/// # Panics
/// If `id` is no legal turn id.
pub fn turn_record(id: &str) -> TurnRecord {
    TurnRecord {
        turn_id: TurnId::new(id).expect("a legal turn id"),
        session: None,
        client: "uid=1".into(),
        started_unix_ms: crate::daemon::unix_ms(),
        task: None,
        task_source: None,
        local_only: false,
        context: Context::default(),
        permitted: vec![Action::LOCAL],
        action: Action::LOCAL,
        policy: "rule-1".into(),
        reason: Reason::new("test", "test"),
        propensity: 1.0,
        values: None,
        predicted: Cost::default(),
        predicted_costs: Vec::new(),
        probabilities: None,
        budget_remaining: BTreeMap::new(),
        reserved: None,
        route: Route::Local,
        views: Vec::new(),
        vision: None,
        model: None,
        fallback: None,
        upload: None,
        measured: Cost::default(),
        energy_source: "unknown".into(),
        usage: Usage::default(),
        usage_estimated: false,
        cached_tokens: None,
        dropped_messages: 0,
        timings: Timings::default(),
        outcome: Outcome::Unfinished,
        rating: None,
    }
}

/// The body of one turn.
pub fn ask_body(text: &str, extra: Value) -> String {
    let mut body = json!({"messages": [{"role": "user", "content": text}]});
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
    }
    body.to_string()
}

impl Reply {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `error.code`, or empty.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Streaming {
    /// The `data:` lines until the end, `[DONE]` included as a JSON string.
    ///
    /// # Errors
    /// The connection breaks, or an event is not JSON.
    pub async fn events(self) -> anyhow::Result<Vec<Value>> {
        let body = self.response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8(body.to_vec())?;
        let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.map(|data| Ok(if data == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(data)? })).collect()
    }

    /// Waits for the next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(frame) => match frame?.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
            }
        }
    }
}
