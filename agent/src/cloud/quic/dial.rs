//! One attempt to connect: resolve, handshake, greet.

use super::control::{Control, ControlStream};
use super::failure::Failure;
use super::frames::FrameReader;
use super::keeper::{Channel, SharedMeter};
use super::window::ShortQueueConfig;
use super::{QuicConfig, tls};
use crate::cloud::CloudError;
use futures::stream::{FuturesUnordered, StreamExt};
use quinn::{AckFrequencyConfig, Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tether_protocol::wire::{Frame, Hello, StreamKind, Token, TurnEvent, close};
use tokio::time::{sleep, timeout};

/// Keeps the connection and the NAT's mapping alive; two packets each.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Two keep-alives unanswered.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// The gateway is asked to acknowledge the last packet of an upload after this, not after QUIC's 25 ms: longer than the path of
/// many a WiFi link, and half the time of a small upload there.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(5);
/// Head start of each address over the next (RFC 8305 says 250 ms; a robot's network is near).
const ADDRESS_STAGGER: Duration = Duration::from_millis(150);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Everything that an attempt needs, checked once.
pub(super) struct Dialer {
    address: String,
    server_name: String,
    quic: quinn::ClientConfig,
    token: Option<Token>,
    timeout: Duration,
    pub(super) meter: SharedMeter,
}

impl Dialer {
    pub(super) fn new(config: &QuicConfig) -> Result<Self, CloudError> {
        let mut quic = quinn::ClientConfig::new(Arc::new(tls::client_config(config)?));
        quic.transport_config(Arc::new(transport()));
        Ok(Self {
            server_name: config.server_name.clone().map_or_else(|| host_of(&config.address), Ok)?,
            address: config.address.clone(),
            quic,
            token: config.token_file.as_deref().map(read_token).transpose()?,
            timeout: Duration::from_millis(config.connect_timeout_ms),
            meter: SharedMeter::default(),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The socket that all attempts use. IPv4 alone where the machine has no IPv6.
    pub(super) fn endpoint() -> Result<Endpoint, Failure> {
        let any = |ip: std::net::IpAddr| Endpoint::client(SocketAddr::new(ip, 0));
        any(Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| any(Ipv4Addr::UNSPECIFIED.into()))
            .map_err(|error| Failure::Unreachable(format!("no UDP socket: {error}")))
    }

    /// # Errors
    /// What failed, within the connect timeout.
    pub(super) async fn dial(&self, endpoint: &Endpoint) -> Result<(Arc<Channel>, ControlStream), Failure> {
        let late = || Failure::Unreachable(format!("no answer within {:?}", self.timeout));
        let attempt = async {
            let connection = self.connect(endpoint).await?;
            self.greet(connection).await
        };
        timeout(self.timeout, attempt).await.unwrap_or_else(|_| Err(late()))
    }

    /// The first address that answers.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, Failure> {
        let resolved = tokio::net::lookup_host(&self.address).await;
        let addresses = resolved.map_err(|error| Failure::Unreachable(format!("name not resolved: {error}")))?;
        let mut attempts: FuturesUnordered<_> = addresses
            .take(MAX_ADDRESSES)
            .enumerate()
            .map(|(position, address)| async move {
                sleep(ADDRESS_STAGGER * position as u32).await;
                let connecting = endpoint.connect_with(self.quic.clone(), address, &self.server_name);
                let connecting = connecting.map_err(|error| Failure::Unreachable(error.to_string()))?;
                connecting.await.map_err(Failure::from)
            })
            .collect();
        let mut failure = Failure::Unreachable("the name has no address".into());
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(connection) => return Ok(connection),
                // A verdict says more than silence.
                Err(Failure::Unreachable(_)) if !matches!(failure, Failure::Unreachable(_)) => {}
                Err(problem) => failure = problem,
            }
        }
        Err(failure)
    }

    /// `Hello`, and the gateway's answer to it.
    async fn greet(&self, connection: Connection) -> Result<(Arc<Channel>, ControlStream), Failure> {
        let (mut send, receive) = connection.open_bi().await?;
        let software = concat!("tether/", env!("CARGO_PKG_VERSION")).to_owned();
        let hello = Frame::Hello(Hello { software, token: self.token.clone() });
        let hello = hello.encode().map_err(|error| Failure::Unreachable(error.to_string()))?;
        let mut reader = FrameReader::new(receive, StreamKind::ControlToClient, Arc::default());
        // If the gateway has refused already, writing fails, and reading tells why.
        let _ = send.write_all(&hello).await;
        // Above all turns: a probe must not queue behind them.
        let _ = send.set_priority(1);
        match reader.next().await {
            Ok(Some(Frame::Welcome(welcome))) => {
                tracing::info!(address = %self.address, gateway = %welcome.software, client = %welcome.client, "cloud connected");
                let (control, stream) = Control::new(send, reader);
                let max_turn_bytes = welcome.max_turn_bytes;
                let (shares, meter) = (Mutex::default(), self.meter.clone());
                Ok((Arc::new(Channel { connection, max_turn_bytes, control, shares, meter }), stream))
            }
            Ok(Some(Frame::Event(TurnEvent::Error(error)))) => Err(Failure::Refused(error)),
            other => {
                if let Some(reason) = connection.close_reason() {
                    return Err(reason.into());
                }
                connection.close(VarInt::from_u32(close::PROTOCOL), b"no welcome");
                let problem = other.err().map_or_else(|| "it did not greet".to_owned(), |error| error.to_string());
                Err(Failure::Unreachable(problem))
            }
        }
    }
}

fn transport() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.max_ack_delay(Some(ACKNOWLEDGE_WITHIN));
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(ShortQueueConfig))
        // A gateway that does not know the extension is not asked.
        .ack_frequency_config(Some(acknowledgements))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        // The gateway opens no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // Some robots' network drivers claim offload and then drop the bursts; a turn's uplink is small anyway.
        .enable_segmentation_offload(false);
    transport
}

fn host_of(address: &str) -> Result<String, CloudError> {
    let wrong =
        || CloudError::Config(format!("address {address:?} must be host:port, such as gateway.example.org:4433"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port.parse::<u16>().is_err() { Err(wrong()) } else { Ok(host.to_owned()) }
}

fn read_token(path: &std::path::Path) -> Result<Token, CloudError> {
    let text = std::fs::read_to_string(path).map_err(|error| tls::file_error("token_file", path, &error))?;
    Token::new(text.trim()).map_err(|error| tls::file_error("token_file", path, &error))
}
