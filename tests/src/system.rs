//! A whole tether in a temporary folder: a gateway and a daemon as real processes, found by their sockets.

use crate::process::{Process, binary};
use crate::relay::{Faults, Relay};
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tether::client::Client;
use tether::cloud::quic::QuicConfig;

/// Long enough for a busy machine to map a model; a program that ends early is noticed at once.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A gateway's zoo of two models behind MESS+; only the dear one is any good.
pub const GOOD_OR_CHEAP: &str = r#"
[routing]
alpha = 0.8
[[zoo]]
name = "large"
kind = "scripted"
script = { answer = "good" }
usd_per_million_completion_tokens = 10.0
[[zoo]]
name = "small"
kind = "scripted"
script = { answer = "bad" }
usd_per_million_completion_tokens = 1.0
"#;

/// The settings of a client of the gateway at `address`, from the files that `tether-cloud init` made in `folder`.
pub fn client_config(folder: &Path, address: impl Into<String>) -> QuicConfig {
    let file = |name: &str| Some(folder.join(name));
    QuicConfig {
        address: address.into(),
        server_name: Some("localhost".into()),
        ca: file("ca.pem"),
        server_sha256: None,
        token_file: file("robot.token"),
        client_cert: None,
        client_key: None,
        // A busy machine must not look like an unreachable gateway.
        connect_timeout_ms: 20_000,
    }
}

/// A gateway process with its certificates, made by `tether-cloud init`.
#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    pub port: u16,
    pub metrics_port: u16,
    folder: PathBuf,
}

impl Gateway {
    /// Starts one in `folder/gateway`; `zoo` is the TOML of its `[[zoo]]` entries.
    pub fn start(folder: &Path, zoo: &str) -> Result<Gateway> {
        let folder = folder.join("gateway");
        if !folder.exists() {
            init(&folder)?;
        }
        let (port, metrics_port) = (free_udp_port()?, free_tcp_port()?);
        Self::start_at(folder, zoo, port, metrics_port)
    }

    /// The same gateway again, at the same address, after it was stopped.
    pub fn restart(self, zoo: &str) -> Result<Gateway> {
        let (folder, port, metrics_port) = (self.folder.clone(), self.port, self.metrics_port);
        drop(self);
        Self::start_at(folder, zoo, port, metrics_port)
    }

    fn start_at(folder: PathBuf, zoo: &str, port: u16, metrics_port: u16) -> Result<Gateway> {
        let token_sha256 = token_sha256(&folder.join("robot.token"))?;
        let settings = format!(
            "listen = \"127.0.0.1:{port}\"\ncert = \"server.pem\"\nkey = \"server.key\"\nmetrics = \"127.0.0.1:{metrics_port}\"\n\
             [[tokens]]\nname = \"robot\"\nsha256 = \"{token_sha256}\"\n{zoo}"
        );
        let config = folder.join("gateway.toml");
        std::fs::write(&config, settings)?;
        let program = binary("tether-cloud")?;
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(&config).current_dir(&folder);
        let mut process = Process::start_with("gateway", &mut command, &folder)?;
        process.wait_until(READY_WITHIN, || http_get(metrics_port, "/readyz").is_ok_and(|body| body == "ready\n"))?;
        Ok(Gateway { process, port, metrics_port, folder })
    }

    /// The daemon's `[cloud]` section for this gateway.
    pub fn cloud_section(&self) -> String {
        self.section_at(self.address())
    }

    /// A relay in front of this gateway, and the daemon's `[cloud]` section that goes through it: with time enough to connect
    /// over a bad link.
    ///
    /// # Errors
    /// There is no port for the relay.
    pub async fn behind_relay(&self, seed: u64, faults: Faults) -> Result<(Relay, String)> {
        let relay = Relay::start(self.address(), seed, faults).await?;
        let section = self.section_at(relay.address()) + "connect_timeout_ms = 20000\n";
        Ok((relay, section))
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn section_at(&self, address: SocketAddr) -> String {
        let folder = self.folder.display();
        format!(
            "[cloud]\nkind = \"quic\"\naddress = \"{address}\"\nserver_name = \"localhost\"\nca = \"{folder}/ca.pem\"\ntoken_file = \"{folder}/robot.token\"\n"
        )
    }

    /// The JSON behind `tether-cloud status`.
    pub fn status(&self) -> Result<String> {
        http_get(self.metrics_port, "/status")
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        http_get(self.metrics_port, "/metrics")
    }
}

fn init(folder: &Path) -> Result<()> {
    let output = Command::new(binary("tether-cloud")?)
        .args(["init", "--dir"])
        .arg(folder)
        .output()
        .context("running tether-cloud init")?;
    anyhow::ensure!(output.status.success(), "tether-cloud init: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A daemon process on a socket in `folder/run`.
#[derive(Debug)]
pub struct Daemon {
    pub process: Process,
    pub socket: PathBuf,
    pub config: PathBuf,
    /// From the process's start until `/readyz` said yes.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts one; `settings` is TOML, and its top-level keys come first.
    pub async fn start(folder: &Path, settings: &str) -> Result<Daemon> {
        Self::start_with(folder, settings, &[]).await
    }

    /// As [`start`](Self::start), with more in its environment.
    pub async fn start_with(folder: &Path, settings: &str, environment: &[(&str, &str)]) -> Result<Daemon> {
        let config = folder.join("tether.toml");
        // What was learned may be learned anew; a test says where it wants that.
        let policy = if settings.contains("[policy]") { "" } else { "\n[policy]\nname = \"rule\"\n" };
        std::fs::write(&config, format!("{settings}{policy}"))?;
        let socket = folder.join("run/tether.sock");
        let mut command = Command::new(binary("tether")?);
        command.args(["serve", "--config"]).arg(&config);
        command.envs(environment.iter().copied());
        command.env("TETHER_SOCKET_PATH", &socket).env("TETHER_LEDGER_PATH", folder.join("tether.db"));
        let begun = std::time::Instant::now();
        let mut process = Process::start_with("daemon", &mut command, folder)?;
        let client = Client::new(&socket);
        while begun.elapsed() < READY_WITHIN && client.ready().await.is_err() {
            process.ensure_running()?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ready_after = begun.elapsed();
        anyhow::ensure!(ready_after < READY_WITHIN, "the daemon was not ready in time:\n{}", process.log());
        Ok(Daemon { process, socket, config, ready_after })
    }

    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// A folder for one system, gone when dropped.
pub fn folder() -> Result<TempDir> {
    TempDir::with_prefix("tether-").context("a temporary folder")
}

fn token_sha256(file: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let token = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    Ok(Sha256::digest(token.trim().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A port that was free a moment ago. Settings need a number before the process that will own it runs.
fn free_udp_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The body of a plain GET, from a server that closes when asked to.
fn http_get(port: u16, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the headers")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
