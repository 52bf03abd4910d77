//! The whole system as a user has it: two processes, a socket, QUIC between them, and what happens when parts of it
//! go away. A tiny random model answers, so nothing needs to be downloaded.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tether::client::Client;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_protocol::api::{ChatCompletion, Status, TurnList};
use tether_protocol::record::Outcome;
use tether_protocol::wire::Vision;
use tether_protocol::{Route, TurnRecord};
use tether_tests::kitchen;
use tether_tests::system::{Daemon, Gateway, folder};

/// A zoo of one that answers always the same, slowly enough to be interrupted.
const ZOO: &str = r#"
[[zoo]]
name = "scripted"
kind = "scripted"
vision = "native"
concurrency = 100
queue = 100
script = { answer = "hello from the cloud", first_token_ms = 5, token_ms = 1 }
"#;

/// A folder with a tiny model, and the daemon's settings for it.
fn world() -> Result<(TempDir, String)> {
    let folder = folder()?;
    let model = folder.path().join("tiny.gguf");
    TinyModel::new(TinyArchitecture::Llama).write(&model)?;
    Ok((folder, format!("[model]\npath = \"{}\"\nmax_tokens = 16\n", model.display())))
}

async fn ask(client: &Client, text: &str, tether: Value) -> Result<ChatCompletion> {
    let request = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 8, "tether": tether});
    Ok(client.ask(&request).await?)
}

async fn turns(client: &Client) -> Result<Vec<TurnRecord>> {
    Ok(client.get::<TurnList>("/v1/turns").await?.turns)
}

#[tokio::test]
async fn a_turn_is_answered_on_the_device_without_any_cloud() -> Result<()> {
    let (folder, settings) = world()?;
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let answer = ask(&daemon.client(), "hello", json!({})).await?;
    assert_eq!((answer.tether.route, answer.tether.views.len()), (Route::Local, 0));
    let costs = answer.tether.costs.context("a complete answer has costs")?;
    assert_eq!((costs.uplink_bytes, costs.downlink_bytes, costs.usd), (Some(0), Some(0), Some(0.0)));
    Ok(())
}

#[tokio::test]
async fn views_travel_and_the_answer_says_so() -> Result<()> {
    let (folder, settings) = world()?;
    let gateway = Gateway::start(folder.path(), ZOO)?;
    let daemon = Daemon::start(folder.path(), &(settings + &gateway.cloud_section())).await?;
    let client = daemon.client();
    for camera in kitchen::CAMERAS {
        client.put(&format!("/v1/cameras/{camera}"), kitchen::frame(camera, 0).into()).await?;
    }
    let answer = ask(&client, "what is on the front camera?", json!({})).await?;
    assert_eq!(answer.choices[0].message.content, "hello from the cloud");
    assert_eq!(answer.tether.views.iter().map(|view| view.as_str()).collect::<Vec<_>>(), ["front"]);
    let uplink = answer.tether.costs.context("costs")?.uplink_bytes.context("bytes are measured")?;
    ensure!(uplink > 1_000, "a picture is more than {uplink} bytes");
    assert_eq!(answer.tether.vision, Some(Vision::Native));
    Ok(())
}

#[tokio::test]
async fn an_answer_from_pixels_that_were_measured_says_so() -> Result<()> {
    let (folder, settings) = world()?;
    let gateway = Gateway::start(folder.path(), &ZOO.replace("native", "measured"))?;
    let daemon = Daemon::start(folder.path(), &(settings + &gateway.cloud_section())).await?;
    let client = daemon.client();
    client.put("/v1/cameras/front", kitchen::frame("front", 0).into()).await?;
    let seen = ask(&client, "what is on the front camera?", json!({"route": "cloud", "views": ["front"]})).await?;
    assert_eq!(seen.tether.vision, Some(Vision::Measured));
    let unseen = ask(&client, "hello", json!({"route": "cloud", "views": []})).await?;
    assert_eq!(unseen.tether.vision, None);
    let recorded: Vec<_> = turns(&client).await?.into_iter().map(|turn| turn.vision).collect();
    assert_eq!(recorded, [None, Some(Vision::Measured)]);
    Ok(())
}

/// What a command of the client prints, on both outputs.
fn tether(daemon: &Daemon, arguments: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new(tether_tests::process::binary("tether")?);
    command.arg("--socket").arg(&daemon.socket).arg("--config").arg(&daemon.config).args(arguments);
    let output = command.output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Asks, leaving the choice to the policy, until the reason is the one that is waited for.
async fn ask_until(daemon: &Daemon, reason: &str) -> Result<ChatCompletion> {
    for _ in 0..600 {
        let answer = ask(&daemon.client(), "hello", json!({})).await?;
        if answer.tether.reason == reason {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no answer ever gave the reason {reason}:\n{}", daemon.process.log())
}

#[tokio::test]
async fn a_wrong_certificate_and_a_wrong_token_are_told_wherever_somebody_looks() -> Result<()> {
    let (folder, settings) = world()?;
    let (gateway, stranger) = (Gateway::start(folder.path(), ZOO)?, tether_tests::system::folder()?);
    let other = Gateway::start(stranger.path(), ZOO)?;
    let right = gateway.cloud_section();
    let wrong_ca = right.replace("ca.pem", "other.pem");
    let wrong_token = right.replace("robot.token", "other.token");
    let (own, theirs) = (folder.path().join("gateway"), stranger.path().join("gateway"));
    std::fs::copy(theirs.join("ca.pem"), own.join("other.pem"))?;
    std::fs::copy(theirs.join("robot.token"), own.join("other.token"))?;
    drop(other);
    for (section, reason, problem, fix) in [
        (wrong_ca, "cloud_untrusted", "is not trusted", "cloud.ca or cloud.server_sha256"),
        (wrong_token, "cloud_unauthorized", "token", "the token or certificate of this device"),
    ] {
        let run = tempfile::tempdir_in(folder.path())?;
        let daemon = Daemon::start(run.path(), &format!("{settings}{section}")).await?;
        let answer = ask_until(&daemon, reason).await?;
        assert_eq!(answer.tether.route, Route::Local);
        let (detail, log) = (answer.tether.reason_detail, daemon.process.log());
        for (place, text) in [
            ("the answer", detail),
            ("the log", log),
            ("status", tether(&daemon, &["status"])?),
            ("doctor", tether(&daemon, &["doctor"])?),
        ] {
            ensure!(text.contains(problem) && text.contains(fix), "{place} does not tell of {reason}: {text}");
        }
        let warned = daemon.process.log().lines().filter(|line| line.contains("cloud not connected")).count();
        assert_eq!(warned, 1, "once, not with every attempt:\n{}", daemon.process.log());
    }
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_is_local_only_does_not_even_greet_the_gateway() -> Result<()> {
    let (folder, settings) = world()?;
    let mut gateway = Gateway::start(folder.path(), ZOO)?;
    let settings = |local_only: bool| format!("local_only = {local_only}\n{settings}{}", gateway.cloud_section());
    let (closed, open) = (settings(true), settings(false));
    let daemon = Daemon::start(folder.path(), &closed).await?;
    ask(&daemon.client(), "hello", json!({})).await?;
    // Long enough for a greeting over loopback. A machine too busy for that only misses a fault here.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(!gateway.process.log().contains("client connected"), "{}", gateway.process.log());
    let status = tether(&daemon, &["status"])?;
    ensure!(status.contains("not used") && !status.contains("not configured"), "{status}");
    ensure!(tether(&daemon, &["doctor"])?.contains("never used"));

    std::fs::write(&daemon.config, open)?;
    daemon.process.signal(Signal::SIGHUP)?;
    gateway.process.wait_for_log("client connected")?;
    std::fs::write(&daemon.config, closed)?;
    daemon.process.signal(Signal::SIGHUP)?;
    gateway.process.wait_for_log("client disconnected")?;
    Ok(())
}

#[tokio::test]
async fn the_gateway_goes_away_and_comes_back() -> Result<()> {
    let (folder, settings) = world()?;
    let mut gateway = Gateway::start(folder.path(), ZOO)?;
    let settings = format!("{settings}[policy]\nname = \"always-cloud\"\n{}", gateway.cloud_section());
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let client = daemon.client();
    let cloud = json!({});
    assert_eq!(ask(&client, "one", cloud.clone()).await?.tether.route, Route::Cloud);

    gateway.process.kill()?;
    let answer = ask(&client, "two", json!({"deadline_ms": 30_000})).await?;
    assert_eq!(answer.tether.route, Route::Local);
    let told = answer.tether.fallback.is_some() || answer.tether.reason == "link_down";
    ensure!(told, "the answer must tell that the cloud was lost, it says {}", answer.tether.reason);

    let _gateway = gateway.restart(ZOO)?;
    // The device probes in the background; how soon it finds the gateway again is its business, within reason.
    for _ in 0..200 {
        if ask(&client, "three", cloud.clone()).await?.tether.route == Route::Cloud {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the daemon did not find the gateway again:\n{}", daemon.process.log())
}

#[tokio::test]
async fn sigkill_loses_no_settled_turn_and_no_session() -> Result<()> {
    let (folder, settings) = world()?;
    let mut daemon = Daemon::start(folder.path(), &settings).await?;
    for text in ["my name is Ada", "I like tea"] {
        ask(&daemon.client(), text, json!({"session": "s"})).await?;
    }
    // A third turn is under way when the power goes.
    let client = daemon.client();
    let running = tokio::spawn(async move {
        let request = json!({"messages": [{"role": "user", "content": "go on"}], "max_tokens": 4000, "stream": true});
        let mut stream = client.ask_streamed(&request).await?;
        while stream.next().await?.is_some() {}
        anyhow::Ok(())
    });
    ensure!(busy(&daemon.client(), || running.is_finished()).await?, "the answer was over before anybody looked");
    daemon.process.kill()?;
    let _ = running.await;

    let daemon = Daemon::start(folder.path(), &settings).await?;
    let turns = turns(&daemon.client()).await?;
    let answered = turns.iter().filter(|turn| matches!(turn.outcome, Outcome::Answered { .. })).count();
    let unfinished = turns.iter().filter(|turn| turn.outcome == Outcome::Unfinished).count();
    assert_eq!((answered, unfinished), (2, 1), "{turns:?}");
    let answer = ask(&daemon.client(), "and now?", json!({"session": "s"})).await?;
    let alone = ask(&daemon.client(), "and now?", json!({})).await?;
    ensure!(answer.usage.prompt_tokens > alone.usage.prompt_tokens, "the session's history was lost");
    Ok(())
}

/// Waits until the model works; false if what should keep it busy is over.
async fn busy(client: &Client, mut over: impl FnMut() -> bool) -> Result<bool> {
    while !over() {
        let status: Status = client.get("/v1/status").await?;
        if status.model.context("a local model")?.load.queue > 0 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(false)
}

#[tokio::test]
async fn a_local_only_turn_never_travels_as_history() -> Result<()> {
    let (folder, settings) = world()?;
    let gateway = Gateway::start(folder.path(), ZOO)?;
    let daemon = Daemon::start(folder.path(), &(settings + &gateway.cloud_section())).await?;
    let client = daemon.client();
    let plain = |session: &str| json!({"session": session, "route": "cloud"});
    // The first cloud turn pays for the connection, whoever it is.
    ask(&client, "hello", plain("first")).await?;
    let secret = "secret ".repeat(100);
    ask(&client, &secret, json!({"session": "private", "local_only": true})).await?;
    let after = ask(&client, "hello", plain("private")).await?;
    let fresh = ask(&client, "hello", plain("empty")).await?;
    assert_eq!((after.tether.route, fresh.tether.route), (Route::Cloud, Route::Cloud));
    let bytes = |answer: &ChatCompletion| answer.tether.costs.as_ref().and_then(|costs| costs.uplink_bytes);
    // The same text went up both times; acknowledgements, which count too, may differ by a few datagrams of 40 bytes. The
    // secret alone has 700.
    let (after, fresh) = (bytes(&after).context("bytes")?, bytes(&fresh).context("bytes")?);
    ensure!(after.abs_diff(fresh) <= 250, "{after} bytes after a private turn, {fresh} without one");
    Ok(())
}

#[tokio::test]
async fn sigterm_lets_the_running_answer_finish() -> Result<()> {
    let (folder, settings) = world()?;
    let mut daemon = Daemon::start(folder.path(), &settings).await?;
    let answer = loop {
        let client = daemon.client();
        let running = tokio::spawn(async move {
            let request = json!({"messages": [{"role": "user", "content": "go on"}], "max_tokens": 200});
            client.ask::<ChatCompletion>(&request).await
        });
        // The tiny model may be done before anybody has looked; then it is asked again.
        if busy(&daemon.client(), || running.is_finished()).await? {
            daemon.process.signal(Signal::SIGTERM)?;
            break running.await??;
        }
    };
    ensure!(!answer.choices[0].message.content.is_empty());
    let status = daemon.process.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "the daemon ended with {status}:\n{}", daemon.process.log());
    ensure!(!daemon.socket.exists(), "the socket is left behind");
    Ok(())
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_a_stale_socket_is_not() -> Result<()> {
    let (folder, settings) = world()?;
    let mut first = Daemon::start(folder.path(), &settings).await?;
    let second = second_daemon(folder.path(), &first)?;
    ensure!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(message.contains("tether.sock"), "the message does not name the socket: {message}");
    ask(&first.client(), "still here?", json!({})).await?;

    first.process.kill()?;
    ensure!(first.socket.exists(), "SIGKILL leaves a stale socket");
    let again = Daemon::start(folder.path(), &settings).await?;
    ask(&again.client(), "hello", json!({})).await?;
    Ok(())
}

fn second_daemon(folder: &Path, first: &Daemon) -> Result<std::process::Output> {
    let mut command = std::process::Command::new(tether_tests::process::binary("tether")?);
    command.args(["serve", "--config"]).arg(&first.config);
    command.env("TETHER_SOCKET_PATH", &first.socket).env("TETHER_LEDGER_PATH", folder.join("other.db"));
    Ok(command.output()?)
}

#[tokio::test]
async fn many_clients_share_one_model() -> Result<()> {
    let (folder, settings) = world()?;
    let daemon = Daemon::start(folder.path(), &(settings + "queue = 64\n")).await?;
    let asking = (0..32).map(|number| {
        let client = daemon.client();
        tokio::spawn(async move { ask(&client, &format!("question {number}"), json!({})).await })
    });
    for answer in asking.collect::<Vec<_>>() {
        ensure!(answer.await??.usage.completion_tokens > 0);
    }
    assert_eq!(turns(&daemon.client()).await?.len(), 20, "one page holds 20 turns");
    Ok(())
}
