//! The gateway as people run it: `tether-cloud` as a process, a device's client over real QUIC, and signals.

use bytes::Bytes;
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether::cloud::quic::QuicCloud;
use tether::cloud::{CloudStream, CloudTurn};
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::TurnId;
use tether_protocol::wire::{ErrorCode, Message, Part, Role, Sampling, TurnEvent, TurnRequest, WireError};
use tether_tests::process::{Process, binary};
use tether_tests::system::client_config;

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway made by `init` in a temporary folder.
struct World {
    folder: TempDir,
    process: Process,
    port: u16,
    metrics_port: u16,
}

fn run(arguments: &[&str]) -> std::process::Output {
    Command::new(binary("tether-cloud").unwrap()).args(arguments).output().unwrap()
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    fn start(zoo: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = run(&["init", "--dir", folder.path().to_str().unwrap(), "--client", "robot"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (port, metrics_port) = (free_port(), free_port());
        write_settings(folder.path(), port, metrics_port, zoo);
        let config = folder.path().join("gateway.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut process =
            Process::start("gateway", &binary("tether-cloud").unwrap(), &arguments, folder.path()).unwrap();
        process.wait_until(PATIENCE, || status(metrics_port).is_some()).unwrap();
        Self { folder, process, port, metrics_port }
    }

    fn rewrite(&self, zoo: &str) {
        write_settings(self.folder.path(), self.port, self.metrics_port, zoo);
    }

    fn device(&self) -> QuicCloud {
        let settings = client_config(self.folder.path(), format!("127.0.0.1:{}", self.port));
        QuicCloud::new(settings).unwrap()
    }
}

/// Keeps the clients that `init` wrote and replaces the rest.
fn write_settings(folder: &Path, port: u16, metrics_port: u16, zoo: &str) {
    let path = folder.join("gateway.toml");
    let old = std::fs::read_to_string(&path).unwrap();
    let hash = old.lines().find(|line| line.starts_with("sha256")).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nmetrics = \"127.0.0.1:{metrics_port}\"\ncert = \"server.pem\"\n\
         key = \"server.key\"\ndrain_ms = 20000\nlog.level = \"debug\"\n[[tokens]]\nname = \"robot\"\n{hash}\n{zoo}"
    );
    std::fs::write(path, text).unwrap();
}

/// `tether-cloud status --json`; `None` until the gateway answers.
fn status(metrics_port: u16) -> Option<serde_json::Value> {
    let output = run(&["status", "--url", &format!("http://127.0.0.1:{metrics_port}"), "--json"]);
    serde_json::from_slice(&output.stdout).ok()
}

fn turn(text: &str) -> CloudTurn {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let request = TurnRequest {
        turn_id: TurnId::new(format!("turn-{}", TURNS.fetch_add(1, Ordering::Relaxed))).unwrap(),
        model: None,
        deadline_ms: Some(60_000),
        sampling: Sampling::default(),
        messages: vec![Message { role: Role::User, parts: vec![Part::Text(text.into())] }],
        images: Vec::new(),
    };
    CloudTurn { request, images: Vec::<Bytes>::new(), deadline: Instant::now() + PATIENCE, most_up_bytes: None }
}

async fn rest(stream: &mut CloudStream) -> (String, Option<WireError>) {
    let mut text = String::new();
    while let Some(event) = stream.events.recv().await {
        match event {
            TurnEvent::Text(piece) => text.push_str(&piece),
            TurnEvent::Error(error) => return (text, Some(error)),
            TurnEvent::Accepted(_) | TurnEvent::Done(_) => {}
        }
    }
    (text, None)
}

async fn say(device: &QuicCloud, text: &str) -> (String, Option<WireError>) {
    rest(&mut device.turn(turn(text)).await.unwrap()).await
}

async fn first_text(stream: &mut CloudStream) -> String {
    loop {
        match stream.events.recv().await.expect("an answer") {
            TurnEvent::Text(text) => return text,
            TurnEvent::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the gateway has written `text`.
async fn logged(process: &Process, text: &str) {
    let written = async {
        while !process.log().contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap_or_else(|_| panic!("{text}: not in {}", process.log()));
}

const ECHO: &str = "[[zoo]]\nname = \"echo\"\nkind = \"scripted\"\nscript.answer = \"heard: {user}\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_over_quic_a_reload_and_the_status() {
    let world = World::start(ECHO);
    let device = world.device();
    assert_eq!(say(&device, "hello").await, ("heard: hello".into(), None));
    world.rewrite(&ECHO.replace("heard", "read anew"));
    world.process.signal(Signal::SIGHUP).unwrap();
    // The reload is seen by its effect; until then the old zoo answers.
    let reloaded = async { while say(&device, "hello").await.0 != "read anew: hello" {} };
    tokio::time::timeout(PATIENCE, reloaded).await.expect("the new zoo never answered");
    world.rewrite("[[zoo]]\nname = \"echo\"\nkind = \"wrong\"\n");
    world.process.signal(Signal::SIGHUP).unwrap();
    logged(&world.process, "the old settings stay").await;
    assert_eq!(say(&device, "hello").await.0, "read anew: hello");
    let status = status(world.metrics_port).unwrap();
    assert_eq!((&status["ready"], &status["zoo"][0]["name"]), (&true.into(), &"echo".into()));
    assert!(status["zoo"][0]["answered"].as_u64().unwrap() >= 3, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_turn_end_and_refuses_new_ones() {
    let mut world = World::start(
        "[[zoo]]\nname = \"slow\"\nkind = \"scripted\"\nscript = { answer = \"word \", answer_tokens = 40, token_ms = 50 }\n",
    );
    let device = world.device();
    let mut running = device.turn(turn("a")).await.unwrap();
    assert_eq!(first_text(&mut running).await, "word ");
    world.process.signal(Signal::SIGTERM).unwrap();
    logged(&world.process, "draining").await;
    let refused = match device.turn(turn("b")).await {
        Ok(mut stream) => rest(&mut stream).await.1.map(|error| error.code),
        // Refused before it had a stream.
        Err(_) => Some(ErrorCode::Draining),
    };
    assert_eq!(refused, Some(ErrorCode::Draining));
    assert_eq!(rest(&mut running).await, ("word ".repeat(39), None));
    assert!(world.process.wait(PATIENCE).unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_goes_away_frees_the_backend() {
    let world = World::start(
        "[[zoo]]\nname = \"one\"\nkind = \"scripted\"\nconcurrency = 1\nqueue = 0\n\
         script = { answer = \"word \", answer_tokens = 1000, token_ms = 20 }\ndefault_max_tokens = 1000\n",
    );
    let device = world.device();
    let mut running = device.turn(turn("a")).await.unwrap();
    first_text(&mut running).await;
    let error = say(&device, "b").await.1.unwrap();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after_ms.is_some());
    drop(running);
    let freed = async {
        loop {
            let mut next = device.turn(turn("c")).await.unwrap();
            match next.events.recv().await {
                Some(TurnEvent::Accepted(_)) => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the slot was not freed");
}

#[test]
fn no_secret_is_ever_written_anywhere() {
    let key = "sk-do-not-write-this";
    let world = World::start(ECHO);
    std::fs::write(world.folder.path().join("api.key"), key).unwrap();
    world.rewrite(
        "[[zoo]]\nname = \"far\"\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key_file = \"api.key\"\n",
    );
    let config = world.folder.path().join("gateway.toml");
    let checked = run(&["check", "--config", config.to_str().unwrap(), "--json"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    world.process.signal(Signal::SIGHUP).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let device = world.device();
        let failed = async {
            loop {
                if let Some(error) = say(&device, "hello").await.1 {
                    return error;
                }
            }
        };
        tokio::time::timeout(PATIENCE, failed).await.expect("the new zoo never answered")
    });
    assert_eq!(error.code, ErrorCode::BackendFailed, "{error}");
    let token = std::fs::read_to_string(world.folder.path().join("robot.token")).unwrap();
    let status = run(&["status", "--url", &format!("http://127.0.0.1:{}", world.metrics_port)]);
    let everything = [world.process.log().into_bytes(), checked.stdout, status.stdout, error.to_string().into_bytes()];
    for text in everything.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
        assert!(!text.contains(key) && !text.contains(token.trim()), "{text}");
    }
}

#[test]
fn mistakes_are_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let say = |text: &str, command: &str| {
        std::fs::write(&config, text).unwrap();
        let output = run(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let head = "cert = \"server.pem\"\nkey = \"server.key\"\n";
    let typo = say(&format!("{head}metrcis = \"none\""), "check");
    assert!(typo.contains("did you mean `metrics`?") && typo.contains("gateway.toml"), "{typo}");
    let clients = say(&format!("{head}listen = \"127.0.0.1:0\"\nmetrics = \"none\""), "serve");
    assert!(clients.contains("tether-cloud init"), "{clients}");
    let model = folder.path().join("cut.gguf");
    TinyModel::new(TinyArchitecture::Llama).write(&model).unwrap();
    let whole = std::fs::read(&model).unwrap();
    std::fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("server.pem"), "").unwrap();
    let token = "[[tokens]]\nname = \"robot\"\nsha256 = \"".to_owned() + &"ab".repeat(32) + "\"\n";
    let zoo = format!("[[zoo]]\nname = \"small\"\nkind = \"candle\"\nmodel = \"{}\"\n", model.display());
    let cut = say(&format!("{head}metrics = \"none\"\n{token}{zoo}"), "check");
    assert!(cut.contains("zoo model small") && cut.contains("cut short"), "{cut}");
    let nobody = run(&["status", "--url", "http://127.0.0.1:1"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is `tether-cloud serve` running?"));
    let missing = run(&["serve", "--config", "/nowhere/gateway.toml"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/gateway.toml"));
}
