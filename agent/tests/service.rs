//! `tether serve` as a service manager sees it: a real process, a notify socket, an inherited listener, signals.
//! The answers come from an upstream server inside the test, so that a turn lasts exactly as long as a test wants.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use tether::client::Client;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::api::Status;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixDatagram};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// A folder with settings, a socket's place, a fake service manager, and an upstream that answers when released.
struct World {
    dir: TempDir,
    manager: UnixDatagram,
    release: Arc<Notify>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let release = Arc::new(Notify::new());
        let upstream = upstream(release.clone()).await;
        let world = Self { dir, manager, release };
        world.configure(&format!(
            "[model]\nname = \"none\"\n[cloud]\nkind = \"openai\"\nbase_url = \"{upstream}\"\nmodel = \"far\"\n"
        ));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("t.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn add_setting(&self, line: &str) {
        let old = fs::read_to_string(self.path("config.toml")).unwrap();
        self.configure(&format!("{line}\n{old}"));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        command.env("TETHER_CONFIG", self.path("config.toml")).env("NOTIFY_SOCKET", self.path("notify"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn tether(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_tether"), arguments);
        command.env("TETHER_HOST", self.socket());
        command
    }

    /// Starts a daemon and waits until it says it is ready.
    async fn start(&self) -> Child {
        let child = self.tether(&["serve"]).spawn().unwrap();
        self.told("READY=1").await;
        child
    }

    /// The next message to the service manager that holds this line, whole.
    async fn told(&self, line: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let length = self.manager.recv(&mut bytes).await.unwrap();
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.lines().any(|told| told == line) {
                return message;
            }
        }
    }
}

/// An OpenAI-compatible server: the first word at once, the rest when the test releases it.
async fn upstream(release: Arc<Notify>) -> String {
    let chunk = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!(
            "data: {}\n\n",
            json!({"id": "1", "object": "chat.completion.chunk", "model": "far", "choices": [choice]})
        )
    };
    let first = chunk(json!({"role": "assistant", "content": "first "}), None);
    let rest = chunk(json!({"content": "last"}), None) + &chunk(json!({}), Some("stop")) + "data: [DONE]\n\n";
    let answer = post(move || async move {
        let later = futures::stream::once(async move {
            release.notified().await;
            Ok(Bytes::from(rest))
        });
        let now = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(first))]);
        axum::response::Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(now.chain(later)))
            .unwrap()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/v1/chat/completions", answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/v1")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
}

async fn ended(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn readiness_reload_and_stop_are_told() {
    let world = World::new().await;
    let daemon = world.start().await;
    world.client().healthy().await.unwrap();
    signal(&daemon, Signal::SIGHUP);
    assert!(world.told("RELOADING=1").await.contains("MONOTONIC_USEC="));
    assert!(world.told("READY=1").await.contains("STATUS=settings read again"));
    signal(&daemon, Signal::SIGTERM);
    world.told("STOPPING=1").await;
    let (code, log) = ended(daemon).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn a_reload_takes_up_good_settings_and_refuses_wrong_ones() {
    let world = World::new().await;
    let daemon = world.start().await;
    let policy = async || world.client().get::<Status>("/v1/status").await.unwrap().policy;
    assert_ne!(policy().await, "always-cloud");
    world.add_setting("policy.name = \"always-cloud\"");
    signal(&daemon, Signal::SIGHUP);
    assert!(world.told("READY=1").await.contains("changed: policy"));
    assert_eq!(policy().await, "always-cloud");
    world.add_setting("nonsense = 1");
    signal(&daemon, Signal::SIGHUP);
    assert!(world.told("READY=1").await.contains("STATUS=reload failed"));
    assert_eq!(policy().await, "always-cloud");
}

#[tokio::test]
async fn the_watchdog_is_fed_again_and_again() {
    let world = World::new().await;
    let mut command = world.tether(&["serve"]);
    let _daemon = command.env("WATCHDOG_USEC", "300000").spawn().unwrap();
    world.told("READY=1").await;
    for _ in 0..3 {
        world.told("WATCHDOG=1").await;
    }
}

#[tokio::test]
async fn an_inherited_socket_is_served_and_left_in_place() {
    let world = World::new().await;
    let listener = std::os::unix::net::UnixListener::bind(world.socket()).unwrap();
    // As systemd does: the listener is descriptor 3, and LISTEN_PID is the process that gets it.
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve";
    let mut command = world.command("/bin/sh", &["-c", script, env!("CARGO_BIN_EXE_tether")]);
    let daemon = command.stdin(Stdio::from(OwnedFd::from(listener))).spawn().unwrap();
    world.told("READY=1").await;
    world.client().healthy().await.unwrap();
    signal(&daemon, Signal::SIGTERM);
    assert_eq!(ended(daemon).await.0, Some(0));
    assert!(world.socket().exists(), "the socket is the service manager's");
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_names_the_first() {
    let world = World::new().await;
    let first = world.start().await;
    let (code, log) = ended(world.tether(&["serve"]).spawn().unwrap()).await;
    assert_eq!(code, Some(1));
    assert!(log.contains(&first.id().unwrap().to_string()) && log.contains("already"), "{log}");
    world.client().healthy().await.unwrap();
}

#[tokio::test]
async fn a_killed_daemons_socket_is_replaced() {
    let world = World::new().await;
    let mut first = world.start().await;
    first.kill().await.unwrap();
    assert!(world.socket().exists());
    let _second = world.start().await;
    world.client().healthy().await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_the_running_answer_end() {
    let world = World::new().await;
    let daemon = world.start().await;
    let ask = asking(&world).await;
    signal(&daemon, Signal::SIGTERM);
    world.told("STOPPING=1").await;
    world.release.notify_one();
    let answered = ask.wait_with_output().await.unwrap();
    assert_eq!((answered.status.code(), answered.stdout.as_slice()), (Some(0), &b"last\n"[..]));
    assert_eq!(ended(daemon).await.0, Some(0));
}

#[tokio::test]
async fn a_second_stop_does_not_wait() {
    let world = World::new().await;
    let daemon = world.start().await;
    let _ask = asking(&world).await;
    signal(&daemon, Signal::SIGINT);
    world.told("STOPPING=1").await;
    signal(&daemon, Signal::SIGINT);
    assert_eq!(ended(daemon).await.0, Some(1));
}

/// A turn under way: its first word has come.
async fn asking(world: &World) -> Child {
    let mut ask = world.tether(&["ask", "--route", "cloud", "hello"]).spawn().unwrap();
    let mut first = [0; "first ".len()];
    ask.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first ");
    ask
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let world = World::new().await;
    world.add_setting("polcy.name = \"rule\"");
    let (code, log) = ended(world.tether(&["serve"]).spawn().unwrap()).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("config.toml") && log.contains("policy"), "{log}");
}

#[tokio::test]
async fn files_that_the_settings_name_are_looked_at_by_check_as_by_a_start() {
    let world = World::new().await;
    let good = fs::read_to_string(world.path("config.toml")).unwrap();
    let model = world.path("tiny.gguf");
    TinyModel::new(TinyArchitecture::Llama).write(&model).unwrap();
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() - 100]).unwrap();
    fs::write(world.path("empty.gguf"), "").unwrap();
    let quic = "[model]\nname = \"none\"\n[cloud]\nkind = \"quic\"\naddress = \"localhost:4433\"\n";
    for (settings, wanted) in [
        (format!("{quic}token_file = \"nowhere.token\"\n"), "nowhere.token"),
        (format!("{good}api_key_env = \"NOT_SET_ANYWHERE\"\n"), "NOT_SET_ANYWHERE"),
        ("[model]\npath = \"tiny.gguf\"\n".into(), "cut short"),
        ("[model]\npath = \"empty.gguf\"\n".into(), "cut short"),
        ("[model]\npath = \"nowhere.gguf\"\n".into(), "nowhere.gguf"),
    ] {
        world.configure(&settings);
        for command in ["check", "serve"] {
            let arguments: &[&str] = if command == "check" { &["config", "check"] } else { &["serve"] };
            let (code, log) = ended(world.tether(arguments).spawn().unwrap()).await;
            assert_eq!(code, Some(1), "{command}: {settings}{log}");
            assert_eq!(log.matches(wanted).count(), 1, "{command}: told once: {log}");
        }
        let doctor = world.tether(&["doctor"]).output().await.unwrap();
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(doctor.status.code() == Some(1) && told.contains(wanted), "{told}");
    }
    // Another side can answer: told, and not refused.
    world.configure(&good.replace("name = \"none\"", "path = \"tiny.gguf\""));
    let (code, log) = ended(world.tether(&["config", "check"]).spawn().unwrap()).await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn the_log_tells_whoever_was_refused_and_has_one_span_a_turn() {
    let world = World::new().await;
    let daemon = world.start().await;
    let client = world.client();
    assert!(client.post::<Value>("/v1/chat/completions", &json!({"messages": 4})).await.is_err());
    assert!(client.get::<Value>("/v1/nothing").await.is_err());
    let ask = asking(&world).await;
    world.release.notify_one();
    assert!(ask.wait_with_output().await.unwrap().status.success());
    signal(&daemon, Signal::SIGTERM);
    let log = ended(daemon).await.1;
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("request refused")).collect();
    assert_eq!(refused.len(), 2, "{log}");
    assert!(refused.iter().all(|line| line.contains("uid=")), "{log}");
    assert!(refused[0].contains("400") && refused[1].contains("unknown_path"), "{log}");
    let turns: Vec<&str> = log.lines().filter(|line| line.contains("turn{")).collect();
    assert!(!turns.is_empty() && turns.iter().all(|line| line.contains("turn_id=") && line.contains("uid=")), "{log}");
}

#[tokio::test]
async fn doctor_works_with_and_without_a_daemon() {
    let world = World::new().await;
    let levels = async || {
        let output = world.tether(&["doctor", "--json"]).output().await.unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let level = move |name: &str| {
            let found = checks.iter().find(|check| check["name"] == name);
            found.unwrap_or_else(|| panic!("no check {name}"))["level"].as_str().unwrap().to_owned()
        };
        (output.status.code(), level)
    };
    let (code, level) = levels().await;
    assert_eq!((code, level("daemon"), level("config")), (Some(0), "warn".into(), "ok".into()));
    let _daemon = world.start().await;
    let (code, level) = levels().await;
    assert_eq!(
        (code, level("daemon"), level("socket"), level("cloud")),
        (Some(0), "ok".into(), "ok".into(), "ok".into())
    );
    world.add_setting("polcy.name = \"rule\"");
    let (code, level) = levels().await;
    assert_eq!((code, level("config")), (Some(1), "fail".into()));
}

#[tokio::test]
async fn config_show_names_every_origin() {
    let world = World::new().await;
    let mut command = world.tether(&["config", "show"]);
    let output = command.env("TETHER_MODEL_THREADS", "2").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let shown: toml::Table = text.parse().unwrap();
    assert_eq!(shown["model"]["threads"].as_integer(), Some(2));
    assert_eq!(shown["model"]["name"].as_str(), Some("none"));
    assert!(text.contains("# TETHER_MODEL_THREADS") && text.contains("config.toml") && text.contains("# default"));
}

#[tokio::test]
async fn a_policy_file_that_cannot_be_used_is_named_before_a_reload() {
    let world = World::new().await;
    for command in [["config", "check"], ["doctor", "--json"]] {
        let mut command = world.tether(&command);
        command.env("TETHER_POLICY_NAME", "tether");
        let good = command.output().await.unwrap();
        assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
        let bad = command.env("TETHER_POLICY_FILE", "mine.json").output().await.unwrap();
        let told = [bad.stdout, bad.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert_eq!(bad.status.code(), Some(1), "{told}");
        assert!(told.contains("mine.json") && told.contains("policy"), "{told}");
    }
}
