//! Metered links, as a NetworkManager says: a real `dbus-daemon` on a socket of its own, and on it a small object that
//! speaks for NetworkManager. `make test-dbus`.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether::context::MeteredWatch;
use tether_protocol::Reading;
use tether_protocol::api::Status;
use tether_tests::scene;
use tether_tests::system::{Daemon, Gateway, folder};
use zbus::Connection;

const OBJECT: &str = "/org/freedesktop/NetworkManager";
const PATIENCE: Duration = Duration::from_secs(60);

/// `NMMetered`: 1 yes, 2 no, 3 and 4 guesses.
struct NetworkManager(u32);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl NetworkManager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0
    }
}

/// A private bus; its process ends with it.
struct Bus {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Bus {
    fn start() -> Result<Self> {
        let folder = folder()?;
        let (socket, config) = (folder.path().join("bus"), folder.path().join("bus.conf"));
        let address = format!("unix:path={}", socket.display());
        let allowed = r#"<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>"#;
        let settings = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context="default">{allowed}</policy></busconfig>"#
        );
        std::fs::write(&config, settings)?;
        let process = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::null())
            .spawn()
            .context("dbus-daemon: on Debian, apt install dbus")?;
        let bus = Self { process, address, _folder: folder };
        let begun = Instant::now();
        while !socket.exists() {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "dbus-daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(bus)
    }

    async fn network_manager(&self, metered: u32) -> Result<Connection> {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        let builder = builder.serve_at(OBJECT, NetworkManager(metered)).name("org.freedesktop.NetworkManager");
        Ok(builder.build().await?)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn until(watch: &MeteredWatch, expected: impl Fn(&Reading<bool>) -> bool) {
    let wait = async {
        while !expected(&watch.reading()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?}", watch.reading()));
}

#[tokio::test]
#[ignore = "needs dbus-daemon: make test-dbus"]
async fn network_manager_says_whether_the_link_is_metered() -> Result<()> {
    let bus = Bus::start()?;
    let manager = bus.network_manager(1).await?;
    let watch = MeteredWatch::start_at(Some(bus.address.clone()));
    until(
        &watch,
        |reading| matches!(reading, Reading::Known { value: true, source, .. } if source == "NetworkManager"),
    )
    .await;
    // From the mobile network into the WiFi.
    manager.object_server().interface::<_, NetworkManager>(OBJECT).await?.get_mut().await.0 = 4;
    until(&watch, |reading| reading.value() == Some(&false)).await;
    drop(bus);
    until(&watch, |reading| matches!(reading, Reading::Unknown { .. })).await;
    Ok(())
}

#[tokio::test]
#[ignore = "needs dbus-daemon: make test-dbus"]
async fn pictures_stay_at_home_on_a_metered_link_and_text_travels() -> Result<()> {
    let bus = Bus::start()?;
    let _manager = bus.network_manager(1).await?;
    let folder = folder()?;
    let zoo =
        "[[zoo]]\nname = \"scripted\"\nkind = \"scripted\"\nvision = \"native\"\nscript = { answer = \"hello\" }\n";
    let gateway = Gateway::start(folder.path(), zoo)?;
    let settings = format!("[model]\nname = \"none\"\n[link]\nmetered_views = false\n{}", gateway.cloud_section());
    let environment = [("DBUS_SYSTEM_BUS_ADDRESS", bus.address.as_str())];
    let daemon = Daemon::start_with(folder.path(), &settings, &environment).await?;
    let client = daemon.client();
    let begun = Instant::now();
    loop {
        let status: Status = client.get("/v1/status").await?;
        if status.cloud.metered.value() == Some(&true) {
            assert_eq!(status.cloud.link.value().and_then(|link| link.metered), Some(true));
            break;
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{:?}", status.cloud);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.put("/v1/cameras/front", scene::frame(1, 0).into()).await?;
    let ask = |views: Value| json!({"messages": [{"role": "user", "content": "what do you see?"}], "tether": {"route": "cloud", "views": views}});
    let refused = client.ask::<Value>(&ask(json!(["front"]))).await.unwrap_err().to_string();
    assert!(refused.contains("metered"), "{refused}");
    let answer: Value = client.ask(&ask(json!([]))).await?;
    assert_eq!(answer["tether"]["route"], "cloud");
    Ok(())
}
