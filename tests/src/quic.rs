//! A gateway's listener on loopback with a handler made for tests, and clients that fit it.

use crate::system::client_config;
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether::cloud::quic::{QuicCloud, QuicConfig};
use tether::cloud::{CloudError, CloudStream, CloudTurn};
use tether_cloud::server::init::{InitOptions, init};
use tether_cloud::server::{IncomingTurn, Peer, Server, ServerConfig, ServerLimits, TokenClient, TurnHandler};
use tether_protocol::record::{FinishReason, Usage};
use tether_protocol::wire::*;
use tether_protocol::{TurnId, ViewName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longer than anything here takes, on any machine: only to turn a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the handler saw.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Began { peer: String, text: String },
    Images(Result<Vec<Bytes>, WireError>),
    Cancelled,
}

/// Answers as the turn's text asks: `hang` until cancelled, `panic`, `drop` without an end, `endless` in pieces until cancelled;
/// anything else is repeated, with the bytes of its images.
struct Puppet(mpsc::UnboundedSender<Seen>);

impl Puppet {
    fn saw(&self, seen: Seen) {
        // The test may not look any more.
        let _ = self.0.send(seen);
    }

    async fn echo(&self, turn: IncomingTurn, text: String) {
        let accepted = Accepted { model: "puppet".into(), vision: Vision::Native };
        let _ = turn.events.send(TurnEvent::Accepted(accepted)).await;
        let images = turn.images.collect().await;
        self.saw(Seen::Images(images.clone()));
        let images = match images {
            Ok(images) => images,
            Err(error) => {
                let _ = turn.events.send(TurnEvent::Error(error)).await;
                return;
            }
        };
        let bytes: usize = images.iter().map(Bytes::len).sum();
        let pieces = if text == "endless" { u32::MAX } else { 1 };
        for _ in 0..pieces {
            if turn.events.send(TurnEvent::Text(format!("{text} {bytes};"))).await.is_err() {
                self.saw(Seen::Cancelled);
                return;
            }
        }
        let _ = turn.events.send(TurnEvent::Done(done())).await;
    }
}

pub fn done() -> Done {
    Done {
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 7, completion_tokens: 3 },
        usage_estimated: false,
        cost_usd: 0.25,
        dropped_messages: 1,
        queue_ms: 2,
    }
}

impl TurnHandler for Puppet {
    async fn handle(&self, peer: Peer, turn: IncomingTurn) {
        let Some(Part::Text(text)) = turn.request.messages[0].parts.first().cloned() else { return };
        self.saw(Seen::Began { peer: peer.name, text: text.clone() });
        match text.as_str() {
            "hang" => {
                turn.events.closed().await;
                self.saw(Seen::Cancelled);
            }
            "panic" => panic!("the handler panics because the test asks for it"),
            "drop" => drop(turn),
            _ => self.echo(turn, text).await,
        }
    }

    async fn feedback(&self, _peer: Peer, feedback: Feedback) -> Option<FeedbackReply> {
        Some(match feedback.turn_id.as_str() {
            "known" => FeedbackReply::Recorded,
            _ => FeedbackReply::UnknownTurn,
        })
    }
}

/// A running listener.
pub struct Gateway {
    pub dir: TempDir,
    pub address: SocketAddr,
    pub seen: mpsc::UnboundedReceiver<Seen>,
    pub shutdown: CancellationToken,
    pub server: Arc<Server>,
    running: AbortOnDropHandle<()>,
}

impl Gateway {
    pub fn start() -> Self {
        Self::with(ServerLimits::default())
    }

    pub fn with(limits: ServerLimits) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let file = |name: &str| dir.path().join(name);
        let report = make_files(&dir);
        let config = ServerConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            cert: file("server.pem"),
            key: file("server.key"),
            client_ca: Some(file("ca.pem")),
            tokens: vec![token_client("robot", &report)],
            limits,
        };
        let server = Arc::new(Server::bind(config).expect("the listener starts"));
        let (sender, seen) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let run = {
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(Arc::new(Puppet(sender)), shutdown).await }
        };
        let running = AbortOnDropHandle::new(tokio::spawn(run));
        Self { address: server.local_addr(), dir, seen, shutdown, server, running }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The settings of a client that this gateway knows.
    pub fn client_config(&self) -> QuicConfig {
        let config = client_config(self.dir.path(), self.address.to_string());
        QuicConfig { connect_timeout_ms: 10_000, ..config }
    }

    pub fn client(&self) -> QuicCloud {
        QuicCloud::new(self.client_config()).expect("the settings are good")
    }

    /// The next thing the handler sees.
    pub async fn saw(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        next.expect("the handler sees something in time").expect("the gateway runs")
    }

    /// Waits until a turn with this text has begun.
    pub async fn began(&mut self, expected: &str) {
        match self.saw().await {
            Seen::Began { text, .. } if text == expected => {}
            other => panic!("waiting for {expected:?}, the handler saw {other:?}"),
        }
    }

    /// Waits until the listener has drained and closed.
    pub async fn stopped(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.running).await;
        ended.expect("the listener stops in time").expect("the listener does not panic");
    }
}

fn make_files(dir: &TempDir) -> String {
    let options = InitOptions {
        dir: dir.path().to_owned(),
        address: "localhost:4433".into(),
        names: Vec::new(),
        client: "robot".into(),
        client_certificate: true,
        force: false,
    };
    init(&options).expect("init works").token
}

pub fn token_client(name: &str, token: &str) -> TokenClient {
    TokenClient::new(name, token)
}

/// A turn that says `text` and carries images of these contents.
pub fn turn(id: &str, text: &str, images: &[&[u8]]) -> CloudTurn {
    let headers = images.iter().enumerate().map(|(index, image)| ImageHeader {
        view: ViewName::new(format!("view{index}")).expect("a legal name"),
        format: ImageFormat::Png,
        width: 64,
        height: 48,
        byte_count: image.len() as u32,
    });
    let request = TurnRequest {
        turn_id: TurnId::new(id).expect("a legal id"),
        model: None,
        deadline_ms: None,
        sampling: Sampling::default(),
        messages: vec![Message { role: Role::User, parts: vec![Part::Text(text.into())] }],
        images: headers.collect(),
    };
    let images = images.iter().map(|image| Bytes::copy_from_slice(image)).collect();
    CloudTurn { request, images, deadline: Instant::now() + PATIENCE, most_up_bytes: None }
}

/// All events until the channel closes.
pub async fn events(mut stream: CloudStream) -> Vec<TurnEvent> {
    let mut events = Vec::new();
    let all = async {
        while let Some(event) = stream.events.recv().await {
            events.push(event);
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the answer ends in time");
    events
}

/// The answer's text, if it ended well.
pub fn text_of(events: &[TurnEvent]) -> Option<String> {
    let Some(TurnEvent::Done(_)) = events.last() else { return None };
    let texts =
        events.iter().filter_map(|event| if let TurnEvent::Text(text) = event { Some(text.as_str()) } else { None });
    Some(texts.collect())
}

/// The last event, which must be an error.
pub fn error_of(events: &[TurnEvent]) -> &WireError {
    match events.last() {
        Some(TurnEvent::Error(error)) => error,
        other => panic!("expected an error, the last event is {other:?}"),
    }
}

/// Asks and waits for the whole answer.
pub async fn ask(cloud: &QuicCloud, turn: CloudTurn) -> Result<Vec<TurnEvent>, CloudError> {
    Ok(events(cloud.turn(turn).await?).await)
}
