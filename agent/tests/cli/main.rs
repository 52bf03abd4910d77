//! The command line as a shell sees it: a real process, real standard streams, signals and exit codes.

mod fake;
mod field;
mod ledger;

use fake::{Fake, Say, error, good_answer, whole_answer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tether(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tether"));
    command.arg("--socket").arg(socket).args(args).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(socket: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = tether(socket, args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    finish(child).await
}

async fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Reads standard output until this text has come.
async fn wait_for(child: &mut Child, text: &str) {
    let out = child.stdout.as_mut().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).await.unwrap(), 1, "ended before {text:?}: {seen:?}");
        seen.push(byte[0]);
    }
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed());
    kill(pid, Signal::SIGINT).unwrap();
}

#[tokio::test]
async fn ask_prints_words_to_stdout_and_the_facts_to_stderr() {
    let fake = Fake::start(vec![Say::Events(good_answer(&["It ", "is ", "on."]))]);
    let ran =
        run(&fake.socket, &["ask", "Is", "it", "on?", "--session", "k", "--max-tokens", "8", "--seed=-1"], "").await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "It is on.\n"));
    assert!(!ran.err.contains('\x1b'), "no colours where no terminal is: {:?}", ran.err);
    for fact in ["[cloud with front]", "tiny", "asks what it sees", "2.0 tokens/s", "up 41.2 kB", "$0.5", "turn1"] {
        assert!(ran.err.contains(fact), "{fact} is not in {:?}", ran.err);
    }
    let expected = json!({"messages": [{"role": "user", "content": "Is it on?"}], "stream": true, "max_tokens": 8,
        "stream_options": {"include_usage": true}, "seed": -1, "tether": {"session": "k", "route": "auto"}});
    assert_eq!(fake.chats(), [expected]);
}

#[tokio::test]
async fn ask_reads_stdin_and_sends_views_and_sensors() {
    let fake = Fake::start(vec![Say::Events(good_answer(&["ok"]))]);
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("a.png");
    image::RgbImage::new(2, 2).save(&picture).unwrap();
    let view = format!("front={}", picture.display());
    let args = ["ask", "Sum", "-", "--view", &view, "--sensor", r#"grip={"open":false}"#, "--local-only", "-q"];
    let ran = run(&fake.socket, &args, "one\ntwo\n").await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    // With the request, never pushed: a pushed reading would outlive the local-only turn.
    assert_eq!(fake.asked().len(), 1);
    let chat = &fake.chats()[0];
    assert_eq!(
        (&chat["tether"]["local_only"], &chat["tether"]["sensors"]),
        (&json!(true), &json!({"grip": {"open": false}}))
    );
    assert_eq!(chat["messages"][0]["content"][0]["text"], "Sum one\ntwo");
    let image = &chat["messages"][0]["content"][1];
    assert_eq!(image["tether"]["view"], "front");
    assert!(image["image_url"]["url"].as_str().unwrap().starts_with("data:image/png;base64,"));
}

#[tokio::test]
async fn json_is_the_api_object_on_one_line() {
    let fake = Fake::start(vec![Say::Status(200, whole_answer("hi"))]);
    let ran = run(&fake.socket, &["ask", "x", "--json"], "").await;
    assert_eq!((ran.code, ran.err.as_str(), ran.out.lines().count()), (Some(0), "", 1));
    assert_eq!(ran.out.parse::<Value>().unwrap(), whole_answer("hi"));
    assert_eq!(fake.chats()[0]["stream"], false);
}

#[tokio::test]
async fn a_missing_daemon_is_named_with_the_command_that_starts_it() {
    let ran = run(Path::new("/nowhere/t.sock"), &["ask", "x"], "").await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("/nowhere/t.sock") && ran.err.contains("tether serve"), "{}", ran.err);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_two() {
    let socket = Path::new("/nowhere/t.sock");
    for args in [&["ask", "x", "--view", "front"][..], &["ask"], &["ask", "x", "--route", "mars"], &["nonsense"]] {
        let ran = run(socket, args, "").await;
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn refusals_and_late_failures_are_told_in_the_daemons_words() {
    let mut broken = good_answer(&["half "]);
    broken.truncate(2);
    let cut = broken.clone();
    broken.push(error("the model stopped"));
    let fake = Fake::start(vec![Say::Status(429, error("queue full")), Say::Events(broken), Say::Events(cut)]);
    let refused = run(&fake.socket, &["ask", "x"], "").await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.contains("queue full [429 backend_failed]; try again in 7 s"), "{}", refused.err);
    let late = run(&fake.socket, &["ask", "x"], "").await;
    assert_eq!((late.code, late.out.as_str()), (Some(1), "half \n"));
    // The answer had begun with a 200, so there is no status to tell.
    assert!(late.err.contains("the model stopped [backend_failed]"), "{}", late.err);
    let cut = run(&fake.socket, &["ask", "x"], "").await;
    assert_eq!(cut.code, Some(1));
    assert!(cut.err.contains("broke off"), "{}", cut.err);
}

#[tokio::test]
async fn ctrl_c_cancels_the_turn_while_it_streams() {
    let (gone, seen) = oneshot::channel();
    let fake = Fake::start(vec![Say::Hang(good_answer(&["word"])[..2].to_vec(), gone)]);
    let mut child = tether(&fake.socket, &["ask", "x"]).spawn().unwrap();
    wait_for(&mut child, "word").await;
    interrupt(&child);
    let ran = finish(child).await;
    assert_eq!(ran.code, Some(130), "{}", ran.err);
    assert!(seen.await.is_err(), "the daemon sees the connection close");
}

#[tokio::test]
async fn ctrl_c_cancels_the_turn_before_its_first_token() {
    let (gone, seen) = oneshot::channel();
    let fake = Fake::start(vec![Say::Silence(gone)]);
    let child = tether(&fake.socket, &["ask", "x"]).spawn().unwrap();
    while fake.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    interrupt(&child);
    assert_eq!(finish(child).await.code, Some(130));
    assert!(seen.await.is_err());
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let many = vec!["0123456789abcdef "; 20_000];
    let fake = Fake::start(vec![Say::Events(good_answer(&many))]);
    let mut child = tether(&fake.socket, &["ask", "x"]).spawn().unwrap();
    wait_for(&mut child, "012").await;
    drop(child.stdout.take());
    let ran = finish(child).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn chat_reads_lines_in_one_session_and_goes_on_after_a_failure() {
    let says = vec![
        Say::Events(good_answer(&["one"])),
        Say::Status(503, error("no model")),
        Say::Events(good_answer(&["three"])),
    ];
    let fake = Fake::start(says);
    let ran = run(&fake.socket, &["chat"], "first\n\n/route local\nsecond\nthird").await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "one\nthree\n"), "{}", ran.err);
    assert!(ran.err.contains("no model"));
    let chats = fake.chats();
    assert_eq!(chats.len(), 3);
    assert_eq!(chats[0]["tether"]["session"], chats[2]["tether"]["session"]);
    assert_eq!([&chats[0]["tether"]["route"], &chats[1]["tether"]["route"]], ["auto", "local"]);
}

#[tokio::test]
async fn chat_rates_the_last_answer_and_begins_anew() {
    let rated = json!({"turn_id": "turn1", "rating": 1.0, "replaced": null});
    let says = vec![Say::Events(good_answer(&["one"])), Say::Status(200, rated), Say::Events(good_answer(&["two"]))];
    let fake = Fake::start(says);
    let ran = run(&fake.socket, &["chat", "--session", "a"], "first\n/rate good\n/new\nsecond\n/quit\nnever").await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(fake.asked()[1], ("POST /v1/feedback".into(), r#"{"turn_id":"turn1","rating":1.0}"#.into()));
    let chats = fake.chats();
    assert_eq!(chats[0]["tether"]["session"], "a");
    assert_ne!(chats[1]["tether"]["session"], "a");
    assert_eq!(chats.len(), 2);
}

#[tokio::test]
async fn version_works_without_a_daemon() {
    let ran = run(Path::new("/nowhere/t.sock"), &["version", "--json"], "").await;
    let version: Value = ran.out.parse().unwrap();
    assert_eq!((ran.code, &version["daemon"]), (Some(0), &Value::Null));
    assert_eq!(version["client"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn completions_are_a_script() {
    let ran = run(Path::new("/nowhere/t.sock"), &["completions", "bash"], "").await;
    assert!(ran.code == Some(0) && ran.out.contains("complete -F"), "{}", ran.err);
}
