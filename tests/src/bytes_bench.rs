//! Predicted against measured uplink bytes: a daemon and a gateway as real processes, QUIC between them through a relay that
//! follows recorded links.

use crate::bench::median;
use crate::relay::{Faults, Relay};
use crate::scene;
use crate::system::{Daemon, Gateway, folder};
use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tether::client::Client;
use tether_policies::trace::{DEFAULT_UPLINK_SHARE, Trace};
use tether_protocol::TurnRecord;
use tether_protocol::api::{ChatCompletion, TurnList};
use tokio_util::task::AbortOnDropHandle;

/// Of each of these, from so many seconds on: good WiFi, weak WiFi, a drive through mobile cells.
const SEGMENTS: [(&str, f64); 3] = [
    ("wifi_shipyard_ax_80mhz_5ghz_run1_loc1.csv", 20.0),
    ("wifi_shipyard_n_20mhz_24ghz_run1_loc3.csv", 20.0),
    ("irish5g_driving_20200116_072643.csv", 100.0),
];
const TURNS: u32 = 40;
/// How often the relay's weather follows the trace.
const WEATHER: Duration = Duration::from_millis(100);

const ZOO: &str = r#"
[[zoo]]
name = "scripted"
kind = "scripted"
vision = "native"
script = { answer = "I see {images} pictures. {user}", first_token_ms = 30, token_ms = 8 }
"#;

/// Of the turns with pictures that the cloud answered.
pub struct Errors {
    /// Of |predicted - measured| / measured of each turn.
    pub median: f64,
    pub mean: f64,
    pub p90: f64,
    /// Of all turns together.
    pub total: f64,
    /// Of the upload times.
    pub time_median: Option<f64>,
    pub turns: usize,
    pub bytes: u64,
    pub resized: usize,
}

impl Errors {
    fn of(records: &[TurnRecord]) -> Result<Self> {
        let bytes = |record: &TurnRecord| Some((record.predicted.uplink_bytes?, record.measured.uplink_bytes?));
        let pairs: Vec<(u64, u64)> = records.iter().filter_map(bytes).collect();
        let mut each: Vec<f64> = pairs.iter().map(|(p, m)| p.abs_diff(*m) as f64 / *m as f64).collect();
        anyhow::ensure!(!each.is_empty(), "no turn has predicted and measured bytes");
        let times = records.iter().filter_map(|record| {
            let upload = record.upload.as_ref()?;
            let measured_ms = upload.measured_ms?;
            Some((upload.predicted_ms? - measured_ms).abs() / measured_ms)
        });
        let mut times: Vec<f64> = times.collect();
        let resized = records.iter().filter(|record| {
            record.upload.as_ref().is_some_and(|upload| upload.pictures.iter().any(|sent| sent.max_side_px < 768))
        });
        let (predicted, measured) = pairs.iter().fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
        let median = median(&mut each);
        Ok(Self {
            median,
            mean: each.iter().sum::<f64>() / each.len() as f64,
            p90: each[each.len() * 9 / 10],
            total: (predicted as f64 / measured as f64 - 1.0).abs(),
            time_median: (!times.is_empty()).then(|| crate::bench::median(&mut times)),
            turns: pairs.len(),
            bytes: measured,
            resized: resized.count(),
        })
    }

    pub fn how(&self) -> String {
        format!(
            "median over {} cloud turns with 1 to 3 pictures of |predicted - measured| / measured uplink bytes (UDP payload, \
             predicted before the decision and before the pictures were encoded; {} segments of recorded links, real QUIC between \
             real processes); mean {:.4}, 90th percentile {:.4}, of all {} bytes together {:.4}; {} turns had smaller pictures; \
             upload times: median error {:.3}",
            self.turns,
            SEGMENTS.len(),
            self.mean,
            self.p90,
            self.bytes,
            self.total,
            self.resized,
            self.time_median.unwrap_or(f64::NAN),
        )
    }
}

/// # Errors
/// A trace or a program is missing, or a turn fails.
pub async fn run(traces: &Path) -> Result<Errors> {
    let mut records = Vec::new();
    for (seed, (name, offset_s)) in SEGMENTS.iter().enumerate() {
        let path = traces.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let trace = Trace::parse(&text, DEFAULT_UPLINK_SHARE).with_context(|| path.display().to_string())?;
        records.extend(segment(trace, *offset_s, seed as u64).await.with_context(|| (*name).to_owned())?);
    }
    Errors::of(&records)
}

/// The records of the turns on one segment.
async fn segment(trace: Trace, offset_s: f64, seed: u64) -> Result<Vec<TurnRecord>> {
    let folder = folder()?;
    let gateway = Gateway::start(folder.path(), ZOO)?;
    let server = format!("127.0.0.1:{}", gateway.port);
    let relay = Relay::start(server.parse()?, seed, Faults::default()).await?;
    let cloud = gateway.cloud_section().replace(&server, &relay.address().to_string());
    let settings =
        format!("[model]\nname = \"none\"\n[policy]\nname = \"always-cloud\"\n{cloud}connect_timeout_ms = 20000\n");
    let _weather = AbortOnDropHandle::new(tokio::spawn(async move { follow(&relay, &trace, offset_s).await }));
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let client = daemon.client();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let cameras = ["front", "side", "overhead"];
    let mut records = Vec::new();
    for turn in 0..TURNS {
        for (camera, name) in cameras.iter().enumerate() {
            let frame = scene::frame(seed * 10 + camera as u64, turn);
            client.put(&format!("/v1/cameras/{name}"), frame.into()).await?;
        }
        let count = random.random_range(1..=cameras.len());
        // One turn that an outage ate is no turn that was measured.
        if let Ok(record) = ask(&client, turn, &cameras[..count]).await {
            records.push(record);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
    }
    Ok(records)
}

async fn ask(client: &Client, turn: u32, views: &[&str]) -> Result<TurnRecord> {
    let words = "and tell me what is on the table now ".repeat(1 + turn as usize % 4);
    let request = json!({
        "messages": [{"role": "user", "content": format!("Look {words}")}],
        "tether": {"route": "cloud", "views": views, "deadline_ms": 60_000},
    });
    let _: ChatCompletion = client.ask(&request).await?;
    let newest: TurnList = client.get("/v1/turns?limit=1").await?;
    newest.turns.into_iter().next().context("the turn is in the ledger")
}

/// Until it is dropped.
async fn follow(relay: &Relay, trace: &Trace, offset_s: f64) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(WEATHER);
    loop {
        ticks.tick().await;
        let at_s = offset_s + begun.elapsed().as_secs_f64();
        let rate = |bits_per_s: f64| Some((bits_per_s / 8.0) as u64);
        let delay_ms = trace.rtt_ms(at_s).unwrap_or(20.0).min(2_000.0) / 2.0;
        relay.set(Faults {
            delay: Duration::from_secs_f64(delay_ms / 1e3),
            up_bytes_per_s: rate(trace.up_bits_per_s(at_s)),
            down_bytes_per_s: rate(trace.down_bits_per_s(at_s)),
            ..Faults::default()
        });
    }
}
