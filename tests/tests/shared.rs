//! Several gateways, one learned state: real processes, ratings that arrive anywhere, `kill -9`, and a real Redis
//! (`make test-redis`; without the server those tests are ignored, and say so).

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether::cloud::CloudTurn;
use tether::cloud::quic::QuicCloud;
use tether_protocol::TurnId;
use tether_protocol::wire::{Feedback, FeedbackReply, Message, Part, Role, Sampling, TurnEvent, TurnRequest};
use tether_tests::process::Process;
use tether_tests::system::{GOOD_OR_CHEAP, Gateway, client_config, folder};

const PATIENCE: Duration = Duration::from_secs(20);

/// One gateway and a client of it; all clients are called `robot`.
struct Site {
    gateway: Gateway,
    device: QuicCloud,
    settings: String,
}

impl Site {
    fn start(folder: &Path, name: &str, state: &str) -> Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let settings = format!("{GOOD_OR_CHEAP}\n[state]\n{state}\n");
        let gateway = Gateway::start(&folder, &settings)?;
        let address = format!("127.0.0.1:{}", gateway.port);
        let device = QuicCloud::new(client_config(&folder.join("gateway"), address))?;
        Ok(Self { gateway, device, settings })
    }

    fn routing(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.gateway.status()?)?;
        Ok(status["routing"].clone())
    }

    /// Ratings and answers of the only tenant.
    fn counts(&self) -> Result<(u64, u64)> {
        let tenant = self.routing()?["tenants"][0].clone();
        let count = |key: &str| tenant[key].as_u64().unwrap_or(0);
        Ok((count("rated"), count("answered")))
    }

    /// Asks once; the whole answer.
    async fn ask(&self, turn_id: &str) -> Result<String> {
        let request = TurnRequest {
            turn_id: TurnId::new(turn_id)?,
            model: None,
            deadline_ms: Some(60_000),
            sampling: Sampling::default(),
            messages: vec![Message { role: Role::User, parts: vec![Part::Text("is it red?".into())] }],
            images: Vec::new(),
        };
        let turn = CloudTurn {
            request,
            images: Vec::<Bytes>::new(),
            deadline: Instant::now() + PATIENCE,
            most_up_bytes: None,
        };
        let mut stream = self.device.turn(turn).await?;
        let mut text = String::new();
        while let Some(event) = stream.events.recv().await {
            match event {
                TurnEvent::Text(piece) => text.push_str(&piece),
                TurnEvent::Error(error) => anyhow::bail!("{turn_id}: {}", error.message),
                TurnEvent::Accepted(_) => {}
                TurnEvent::Done(_) => return Ok(text),
            }
        }
        anyhow::bail!("{turn_id}: the answer has no end")
    }

    async fn rate(&self, turn_id: &str, satisfied: bool) -> Result<FeedbackReply> {
        let rating = f32::from(u8::from(satisfied));
        Ok(self.device.feedback(Feedback { turn_id: TurnId::new(turn_id)?, rating }).await?)
    }

    /// Asks here and rates the answer there.
    async fn ask_and_rate(&self, there: &Site, turn_id: &str) -> Result<()> {
        let text = self.ask(turn_id).await?;
        let reply = there.rate(turn_id, text == "good").await?;
        ensure!(reply == FeedbackReply::Recorded, "{turn_id}: {reply:?}");
        Ok(())
    }
}

async fn soon(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What must hold wherever the state lies.
async fn a_fleet_is_one(folder: &Path, state: &str) -> Result<(Site, Site)> {
    let (one, two) = (Site::start(folder, "one", state)?, Site::start(folder, "two", state)?);
    let at_one = async {
        for n in 0..40 {
            one.ask_and_rate(&two, &format!("a{n}")).await?;
        }
        anyhow::Ok(())
    };
    let at_two = async {
        for n in 0..40 {
            two.ask_and_rate(&one, &format!("b{n}")).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(at_one, at_two)?;
    // Again, at both and with another opinion: the first stands.
    one.rate("a3", true).await?;
    two.rate("a3", false).await?;
    soon("80 ratings at both", || Ok(one.counts()? == (80, 80) && two.counts()? == (80, 80))).await?;
    let (first, second) = (one.routing()?, two.routing()?);
    ensure!(first["tenants"] == second["tenants"] && first["models"] == second["models"], "{first}\n{second}");
    let satisfaction = first["tenants"][0]["satisfaction"].as_f64().context("a mean")?;
    ensure!(satisfaction >= 0.7, "both taught both that only the dear model satisfies: {satisfaction}");

    // The gateway that answered is killed; its turn is rated at the other, and the fleet goes on.
    one.ask("d0").await?;
    let Site { mut gateway, device, settings } = one;
    gateway.process.kill()?;
    ensure!(two.rate("d0", true).await? == FeedbackReply::Recorded);
    two.ask_and_rate(&two, "d1").await?;
    let one = Site { gateway: gateway.restart(&settings)?, device, settings };
    // A device needs a moment to see that its connection is dead.
    let begun = Instant::now();
    while let Err(error) = one.ask("d2").await {
        ensure!(begun.elapsed() < PATIENCE, "d2: {error:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each reads what the other wrote a moment later, so both are waited for.
    soon("what it missed", || Ok(one.counts()? == (82, 83) && two.counts()? == (82, 83))).await?;
    Ok((one, two))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_serves_several_gateways() -> Result<()> {
    let folder = folder()?;
    let state = format!("kind = \"files\"\npath = \"{}\"", folder.path().join("shared").display());
    a_fleet_is_one(folder.path(), &state).await?;
    Ok(())
}

/// A Redis of this test's own.
struct Redis {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Redis {
    fn start() -> Result<Self> {
        let folder = folder()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Self::run(folder.path(), port)?;
        Ok(Self { process, port, folder })
    }

    fn run(folder: &Path, port: u16) -> Result<Process> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--appendonly", "yes", "--dir"]).arg(folder);
        let mut process = Process::start_with("redis", &mut command, folder)
            .context("needs redis-server (Debian: apt install redis-server)")?;
        process.wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(process)
    }

    fn state(&self) -> String {
        format!("kind = \"redis\"\nurl = \"redis://127.0.0.1:{}/1\"\nname = \"test\"", self.port)
    }

    fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(self.folder.path(), self.port)?;
        Ok(())
    }

    fn command(&self, words: &str) -> Result<()> {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(format!("{words}\r\n").as_bytes())?;
        let mut reply = [0; 3];
        stream.read_exact(&mut reply)?;
        ensure!(&reply == b"+OK", "{words}: {reply:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: run `make test-redis`"]
async fn redis_serves_several_gateways_and_may_be_killed_and_emptied() -> Result<()> {
    let folder = folder()?;
    let mut redis = Redis::start()?;
    let (one, two) = a_fleet_is_one(folder.path(), &redis.state()).await?;

    redis.process.kill()?;
    // The first turn may wait for half a second; no turn fails.
    for n in 0..10 {
        one.ask(&format!("e{n}")).await?;
    }
    soon("it is told", || Ok(one.routing()?["shared"]["reachable"] == false && one.routing()?["kept"] == false))
        .await?;
    ensure!(one.routing()?["shared"]["unsent"].as_u64() > Some(0), "what happened waits: {}", one.routing()?["shared"]);
    ensure!(one.gateway.process.log().contains("turns go on with what is known here"));
    redis.start_again()?;
    let written = soon("what waited is written", || Ok(one.counts()? == (82, 93) && two.counts()? == (82, 93))).await;
    written.with_context(|| format!("{:?} {:?} {}", one.counts(), two.counts(), one.gateway.process.log()))?;
    ensure!(two.rate("e3", true).await? == FeedbackReply::Recorded, "answered while Redis was away");

    redis.command("FLUSHALL")?;
    soon("what was lost is put back", || {
        Ok(one.gateway.process.log().contains("put back from here")
            || two.gateway.process.log().contains("put back from here"))
    })
    .await?;
    soon("turns count again", || Ok(one.routing()?["shared"]["reachable"] == true)).await?;
    one.ask("f0").await?;
    soon("ratings count again", || Ok(two.counts()?.1 == 94 && one.counts()?.1 == 94)).await?;
    ensure!(two.rate("f0", true).await? == FeedbackReply::Recorded);
    let third = Site::start(folder.path(), "three", &redis.state())?;
    ensure!(third.counts()? == (84, 94), "{:?}", third.counts());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: run `make test-redis`"]
async fn gateways_killed_in_mid_traffic_lose_and_double_nothing_that_was_acknowledged() -> Result<()> {
    let folder = folder()?;
    let redis = Redis::start()?;
    let two = Site::start(folder.path(), "two", &redis.state())?;
    let mut one = Site::start(folder.path(), "one", &redis.state())?;
    let (mut acknowledged, mut number) = (0, 0);
    for round in 0..4u64 {
        let until = Instant::now() + Duration::from_millis(150 + 70 * round);
        let killed = async {
            tokio::time::sleep_until(until.into()).await;
            one.gateway.process.signal(nix::sys::signal::Signal::SIGKILL)
        };
        let traffic = async {
            loop {
                number += 1;
                let turn_id = format!("t{number}");
                let Ok(Ok(text)) = tokio::time::timeout(Duration::from_secs(2), one.ask(&turn_id)).await else { break };
                let rated = tokio::time::timeout(Duration::from_secs(2), one.rate(&turn_id, text == "good")).await;
                let Ok(Ok(FeedbackReply::Recorded)) = rated else { break };
                acknowledged += 1;
            }
        };
        tokio::join!(killed, traffic).0?;
        let settings = one.settings.clone();
        one = Site { gateway: one.gateway.restart(&settings)?, ..one };
        // At most the one rating under way when it was killed was taken and not acknowledged.
        let (rated, answered) = two.counts()?;
        ensure!(
            (acknowledged..=acknowledged + round + 1).contains(&rated),
            "{acknowledged} acknowledged, {rated} counted"
        );
        ensure!(answered >= rated);
        soon("the same at both", || Ok(one.counts()? == two.counts()?)).await?;
    }
    ensure!(acknowledged > 20, "enough happened: {acknowledged}");
    Ok(())
}
