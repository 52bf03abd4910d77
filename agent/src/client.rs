//! The client's side of the Unix-socket API: HTTP/1.1 over the socket, one connection a request, so that dropping
//! an answer closes its connection and thereby cancels the turn in the daemon.

pub mod address;
mod stream;

pub use stream::AnswerStream;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_protocol::api::ErrorBody;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// How long a daemon may take over a short request. A daemon that systemd starts for this very connection loads its
/// model first, which for a large one takes tens of seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of one answer that is not streamed: a thousand turn records.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no tether daemon is listening on {socket}\n  start one:        tether serve\n  or as a service:  systemctl --user start tether.socket\n  or name a socket: --socket PATH, or TETHER_HOST=unix:///PATH"
    )]
    NotRunning { socket: PathBuf },
    #[error(
        "permission denied on {socket}\n  the system service is for members of its group: sudo usermod -aG tether $USER, then log in again"
    )]
    Denied { socket: PathBuf },
    #[error("the daemon on {socket} cannot be reached: {problem}")]
    Broken { socket: PathBuf, problem: String },
    #[error("the daemon on {socket} did not answer {path} within {} s: see `tether doctor`", PATIENCE.as_secs())]
    TimedOut { socket: PathBuf, path: String },
    /// The daemon refused or failed, in its own words; without a status if the answer had begun.
    #[error("{}", said(.body, *.status, *.retry_after_s))]
    Refused { status: Option<u16>, retry_after_s: Option<u32>, body: ErrorBody },
    #[error("what listens on {socket} does not talk like a tether daemon: {problem}")]
    Garbled { socket: PathBuf, problem: String },
}

fn said(body: &ErrorBody, status: Option<u16>, retry_after_s: Option<u32>) -> String {
    let object = &body.error;
    let param = object.param.as_ref().map(|param| format!(" ({param})")).unwrap_or_default();
    let code = object.code.as_deref().unwrap_or(&object.kind);
    let again = retry_after_s.map(|seconds| format!("; try again in {seconds} s")).unwrap_or_default();
    let status = status.map(|status| format!("{status} ")).unwrap_or_default();
    format!("{}{param} [{status}{code}]{again}", object.message)
}

/// One daemon, named by its socket. Cheap to make and to clone; connects for each request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A response whose status was good. The connection lives as long as this does.
struct Opened {
    response: Response<Incoming>,
    connection: AbortOnDropHandle<()>,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.short(Method::GET, path, Bytes::new()).await?;
        self.parse(&body)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = self.short(Method::POST, path, self.write(body)?).await?;
        self.parse(&body)
    }

    /// Pushes a camera frame or a sensor reading.
    pub async fn put(&self, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.short(Method::PUT, path, body).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.short(Method::DELETE, path, Bytes::new()).await?;
        self.parse(&body)
    }

    /// One whole answer; waits as long as its deadline lets the daemon work.
    pub async fn ask<T: DeserializeOwned>(&self, body: &impl Serialize) -> Result<T, ClientError> {
        let opened = self.open(Method::POST, CHAT, self.write(body)?).await?;
        let body = self.collect(opened).await?;
        self.parse(&body)
    }

    /// An answer as it is made. Dropping the stream cancels the turn.
    pub async fn ask_streamed(&self, body: &impl Serialize) -> Result<AnswerStream, ClientError> {
        let Opened { response, connection } = self.open(Method::POST, CHAT, self.write(body)?).await?;
        Ok(AnswerStream::new(self.clone(), response.into_body(), connection))
    }

    /// Whether the daemon answers and finds itself healthy.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.short(Method::GET, "/healthz", Bytes::new()).await.map(drop)
    }

    /// Whether the daemon can answer a turn now.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.short(Method::GET, "/readyz", Bytes::new()).await.map(drop)
    }

    async fn short(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let whole = async { self.collect(self.open(method, path, body).await?).await };
        let late = |_| ClientError::TimedOut { socket: self.socket.clone(), path: path.to_owned() };
        tokio::time::timeout(PATIENCE, whole).await.map_err(late)?
    }

    async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<Opened, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.connect_error(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Its error reaches the caller through the response or the body.
            let _ = connection.await;
        }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "tether")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.garbled(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let opened = Opened { response, connection };
        if opened.response.status().is_success() { Ok(opened) } else { Err(self.refusal(opened).await) }
    }

    async fn collect(&self, opened: Opened) -> Result<Bytes, ClientError> {
        let body = Limited::new(opened.response.into_body(), MAX_RESPONSE_BYTES);
        let collected = body.collect().await.map_err(|error| self.broken(&*error))?;
        drop(opened.connection);
        Ok(collected.to_bytes())
    }

    async fn refusal(&self, opened: Opened) -> ClientError {
        let status: StatusCode = opened.response.status();
        let after = opened.response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match self.collect(opened).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice(&body) {
            Ok(body) => ClientError::Refused { status: Some(status.as_u16()), retry_after_s: after, body },
            Err(_) => self.garbled(format!("status {status} without an error object")),
        }
    }

    fn write(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|error| self.garbled(error))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.garbled(error))
    }

    fn connect_error(&self, error: &std::io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning { socket },
            ErrorKind::PermissionDenied => ClientError::Denied { socket },
            _ => ClientError::Broken { socket, problem: error.to_string() },
        }
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), problem: with_causes(error) }
    }

    fn garbled(&self, problem: impl ToString) -> ClientError {
        ClientError::Garbled { socket: self.socket.clone(), problem: problem.to_string() }
    }
}

const CHAT: &str = "/v1/chat/completions";

/// hyper's own words say little ("error reading a body"); what happened stands in the causes.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}
