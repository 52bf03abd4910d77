//! Do caps hold where bytes really travel? A daemon and a gateway as real processes, a byte cap, and pictures of which one has
//! many times the bytes of the one before.

use crate::relay::Faults;
use crate::scene;
use crate::system::{Daemon, Gateway, folder};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tether_protocol::api::{BudgetList, ChatCompletion};

/// Bytes; each with a link of its own. Too little for any picture of chance, for a small one, for a few large ones.
const CAPS: [(u64, f64); 4] = [(40_000, 0.0), (120_000, 0.0), (400_000, 0.2), (4_000_000, 0.4)];
const TURNS: u64 = 12;

const ZOO: &str = r#"
[[zoo]]
name = "scripted"
kind = "scripted"
vision = "native"
script = { answer = "I see {images} pictures.", first_token_ms = 5, token_ms = 1 }
"#;

/// What was seen over all caps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    pub exceeded: u64,
    pub answered: u64,
    pub refused: u64,
    pub bytes: u64,
}

impl Held {
    pub fn how(&self) -> String {
        format!(
            "turns after which more was spent than the cap ({} bytes a day), real QUIC between real processes, of the links two lose \
             20 and 40 % of the datagrams; pictures of one shade, of a camera and of chance by turns; {} turns answered, {} cut or \
             refused, {} bytes sent",
            CAPS.map(|(cap, _)| cap.to_string()).join(", "),
            self.answered,
            self.refused,
            self.bytes
        )
    }
}

/// # Errors
/// A program is missing, or the daemon does not answer about its budgets.
pub async fn run() -> Result<Held> {
    let mut held = Held::default();
    for (cap, loss_ratio) in CAPS {
        under(cap, loss_ratio, &mut held).await?;
    }
    Ok(held)
}

async fn under(cap: u64, loss_ratio: f64, held: &mut Held) -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::start(folder.path(), ZOO)?;
    let faults = Faults { loss_ratio, delay: Duration::from_millis(2), ..Faults::default() };
    let (_relay, cloud) = gateway.behind_relay(cap, faults).await?;
    let settings =
        format!("[model]\nname = \"none\"\n[budgets]\nuplink_bytes_per_day = {cap}\npacing = false\n{cloud}");
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let client = daemon.client();
    let request = json!({
        "messages": [{"role": "user", "content": "what do you see?"}],
        "tether": {"route": "cloud", "views": ["front"], "deadline_ms": 10_000},
    });
    for turn in 0..TURNS {
        let picture = match turn % 3 {
            0 => scene::flat(),
            1 => scene::noise(turn),
            _ => scene::frame(1, turn as u32),
        };
        client.put("/v1/cameras/front", picture.into()).await?;
        match client.ask::<ChatCompletion>(&request).await {
            Ok(_) => held.answered += 1,
            Err(_) => held.refused += 1,
        }
        let list: BudgetList = client.get("/v1/budgets").await?;
        held.exceeded +=
            list.budgets.iter().filter(|budget| budget.spent + budget.reserved > budget.cap).count() as u64;
    }
    let list: BudgetList = client.get("/v1/budgets").await?;
    held.bytes += list.budgets.iter().map(|budget| budget.spent as u64).sum::<u64>();
    Ok(())
}
