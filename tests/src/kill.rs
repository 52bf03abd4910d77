//! A daemon that is killed under load, again and again, and whose books are then checked.

use crate::system::{Daemon, Gateway};
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tether::client::{Client, ClientError};
use tether::export::{Format, Source, export};
use tether_policies::budget::{BudgetName, Counts, Resource, counts};
use tether_protocol::api::{BudgetList, ChatCompletion};
use tether_protocol::record::Outcome;
use tether_protocol::{Cost, TurnRecord};

/// Clients that ask without a pause.
const CLIENTS: usize = 8;
/// The latest moment of a kill after the load began.
const LONGEST_MS: u64 = 250;

const ZOO: &str = r#"
[[zoo]]
name = "scripted"
kind = "scripted"
concurrency = 100
queue = 100
usd_per_million_prompt_tokens = 3.3
usd_per_million_completion_tokens = 17.7
script = { answer = "one two three four five six seven eight", first_token_ms = 2, token_ms = 1 }
"#;

const SETTINGS: &str = r#"
[model]
name = "none"
[policy]
name = "always-cloud"
[budgets]
usd_per_mission = 1000
uplink_bytes_per_mission = 10_000_000_000
downlink_bytes_per_mission = 10_000_000_000
pacing = false
usd_per_million_prompt_tokens = 3.3
usd_per_million_completion_tokens = 17.7
[log]
level = "error"
"#;

/// What was seen over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub kills: u32,
    /// Whose whole answer a client had.
    pub answered: u64,
    /// Begun, and cut off by a kill.
    pub cut_off: u64,
    pub turns: u64,
}

/// Kills a daemon at `kills` random moments under load, then checks that no turn whose end a client saw is missing or differs,
/// and that each budget's spending is exactly the sum over the records: what was measured, or what was reserved.
///
/// # Errors
/// What is missing, counted twice or wrong.
pub async fn kill_and_count(folder: &Path, kills: u32, seed: u64) -> Result<Tally> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let gateway = Gateway::start(folder, ZOO)?;
    let settings = format!("{SETTINGS}{}", gateway.cloud_section());
    let seen = Arc::new(Mutex::new(HashMap::new()));
    for _ in 0..kills {
        let mut daemon = Daemon::start(folder, &settings).await?;
        let asking: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(daemon.client(), seen.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(1..=LONGEST_MS))).await;
        daemon.process.kill()?;
        for client in asking {
            client.await??;
        }
    }
    let daemon = Daemon::start(folder, &settings).await?;
    let budgets: BudgetList = daemon.client().get("/v1/budgets").await?;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let mut tally = check(&folder.join("tether.db"), &seen, &budgets)?;
    tally.kills = kills;
    Ok(tally)
}

type Seen = HashMap<String, Counts>;

/// Asks until the daemon is gone.
async fn ask(client: Client, seen: Arc<Mutex<Seen>>) -> Result<()> {
    for number in 0.. {
        let text = format!("question {number} {}", "x".repeat(number % 50));
        let request = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 8});
        let answer: ChatCompletion = match client.ask(&request).await {
            Ok(answer) => answer,
            Err(ClientError::Refused { status: Some(502..=504), .. }) => continue,
            Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
            Err(_) => return Ok(()),
        };
        let costs = answer.tether.costs.context("an answer without its costs")?;
        let cost = Cost {
            latency_ms: None,
            cost_usd: costs.usd,
            energy_j: None,
            uplink_bytes: costs.uplink_bytes,
            downlink_bytes: costs.downlink_bytes,
        };
        let id = answer.tether.turn_id.to_string();
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id, counts(&cost));
    }
    Ok(())
}

fn check(ledger: &Path, seen: &Seen, budgets: &BudgetList) -> Result<Tally> {
    let mut lines = Vec::new();
    export(&Source::open(ledger, i64::MIN)?, Format::Jsonl, &mut lines, |_| {})?;
    let mut tally = Tally { answered: seen.len() as u64, ..Tally::default() };
    let mut sums: [u64; 4] = [0; 4];
    let mut found = 0;
    for line in std::str::from_utf8(&lines)?.lines() {
        let record: TurnRecord = serde_json::from_str(line)?;
        tally.turns += 1;
        let measured = counts(&record.measured);
        if let Some(told) = seen.get(record.turn_id.as_str()) {
            found += 1;
            ensure!(matches!(record.outcome, Outcome::Answered { .. }), "{} was answered: {record:?}", record.turn_id);
            for resource in [Resource::Usd, Resource::UplinkBytes, Resource::DownlinkBytes] {
                let at = resource as usize;
                ensure!(told[at] == measured[at], "{}: told {told:?}, recorded {measured:?}", record.turn_id);
            }
        }
        if matches!(record.outcome, Outcome::Refused { .. }) {
            continue;
        }
        let reserved = counts(&record.reserved.context("a turn without a reservation")?);
        tally.cut_off += u64::from(record.outcome == Outcome::Unfinished);
        let unfinished = record.outcome == Outcome::Unfinished;
        for at in 0..4 {
            let spent = if unfinished { reserved[at] } else { measured[at].or(reserved[at]) };
            sums[at] += spent.unwrap_or(0);
        }
    }
    ensure!(found == seen.len(), "{} turns were answered, the ledger has {found} of them", seen.len());
    let spent: BTreeMap<String, f64> =
        budgets.budgets.iter().map(|budget| (budget.name.clone(), budget.spent)).collect();
    ensure!(spent.len() == 3, "three budgets were set: {spent:?}");
    for (name, spent) in spent {
        let resource = name.parse::<BudgetName>()?.resource;
        let spent = resource.count(spent);
        let sum = sums[resource as usize];
        ensure!(spent == Some(sum), "{name}: the budget says {spent:?}, the records {sum}");
    }
    Ok(tally)
}
