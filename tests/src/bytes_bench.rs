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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tether_policies::trace::{DEFAULT_UPLINK_SHARE, Trace};
use tether_protocol::TurnRecord;
use tether_protocol::api::{ChatCompletion, TurnList};
use tether_protocol::record::{Outcome, Upload};
use tokio_util::task::AbortOnDropHandle;

/// Of each of these, from so many seconds on: good WiFi, weak WiFi, a drive through mobile cells.
const SEGMENTS: [(&str, f64); 3] = [
    ("wifi_shipyard_ax_80mhz_5ghz_run1_loc1.csv", 20.0),
    ("wifi_shipyard_n_20mhz_24ghz_run1_loc3.csv", 20.0),
    ("irish5g_driving_20200116_072643.csv", 100.0),
];
/// Each seed begins so much later: longer than 40 turns take.
const LATER_S: f64 = 100.0;
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

/// Below this uplink a segment is in an outage: a picture would take minutes.
const OUTAGE_BITS_PER_S: f64 = 20e3;

/// A turn that put something on the network.
struct Turn {
    record: TurnRecord,
    predicted: u64,
    measured: u64,
    is_answered: bool,
    /// While it was under way the trace had an outage, or it failed.
    met_outage: bool,
}

impl Turn {
    /// `None`: nothing of it left the device.
    fn of(record: TurnRecord, trace: &Trace, begun_unix_ms: i64, offset_s: f64) -> Option<Self> {
        let (predicted, measured) = (record.predicted.uplink_bytes?, record.measured.uplink_bytes?);
        let is_answered = matches!(record.outcome, Outcome::Answered { .. });
        let from_s = offset_s + (record.started_unix_ms - begun_unix_ms) as f64 / 1e3;
        let steps = (record.timings.total_ms.unwrap_or(0.0) / WEATHER.as_secs_f64() / 1e3) as u32 + 1;
        let up = |step: u32| trace.up_bits_per_s(from_s + f64::from(step) * WEATHER.as_secs_f64());
        let met_outage = !is_answered || (0..steps).any(|step| up(step) < OUTAGE_BITS_PER_S);
        (measured > 0).then_some(Self { record, predicted, measured, is_answered, met_outage })
    }

    fn error(&self) -> f64 {
        self.predicted.abs_diff(self.measured) as f64 / self.measured as f64
    }
}

/// Of the turns with pictures.
pub struct Errors {
    /// Of |predicted - measured| / measured of each turn that was answered.
    median: f64,
    mean: f64,
    p90: f64,
    /// Of the bytes of all turns together, those that failed included.
    total: f64,
    answered: usize,
    /// That failed after they had sent something, and what they had.
    failed: usize,
    failed_bytes: u64,
    unsent: usize,
    bytes: u64,
    /// Of the answered turns' bytes that were predicted wrongly, the share of those turns that met an outage.
    outage_share: f64,
    outages: usize,
    picture_bytes: u64,
    resized: usize,
    pub time_median: f64,
    time_covered: f64,
}

impl Errors {
    fn of(turns: &[Turn], asked: usize) -> Result<Self> {
        let answered: Vec<&Turn> = turns.iter().filter(|turn| turn.is_answered).collect();
        anyhow::ensure!(!answered.is_empty(), "no turn has predicted and measured bytes");
        let mut each: Vec<f64> = answered.iter().map(|turn| turn.error()).collect();
        let (predicted, bytes) = turns.iter().fold((0, 0), |sum, turn| (sum.0 + turn.predicted, sum.1 + turn.measured));
        let failed = turns.iter().filter(|turn| !turn.is_answered);
        let wrong = |turns: &[&Turn]| turns.iter().map(|turn| turn.predicted.abs_diff(turn.measured)).sum::<u64>();
        let met: Vec<&Turn> = answered.iter().copied().filter(|turn| turn.met_outage).collect();
        let uploads: Vec<&Upload> = answered.iter().filter_map(|turn| turn.record.upload.as_ref()).collect();
        let sizes = uploads.iter().flat_map(|upload| &upload.pictures);
        let timed = uploads.iter().filter_map(|upload| {
            let (predicted, measured) = (upload.predicted_ms?, upload.measured_ms?);
            let interval = upload.predicted_low_ms?..=upload.predicted_high_ms?;
            Some(((predicted - measured).abs() / measured, interval.contains(&measured)))
        });
        let (mut times, covered): (Vec<f64>, Vec<bool>) = timed.unzip();
        anyhow::ensure!(!times.is_empty(), "no turn has a predicted and a measured upload time");
        let median_error = median(&mut each);
        Ok(Self {
            median: median_error,
            mean: each.iter().sum::<f64>() / each.len() as f64,
            p90: each[each.len() * 9 / 10],
            total: (predicted as f64 / bytes as f64 - 1.0).abs(),
            answered: answered.len(),
            failed: failed.clone().count(),
            failed_bytes: failed.map(|turn| turn.measured).sum(),
            unsent: asked - turns.len(),
            bytes,
            outage_share: wrong(&met) as f64 / wrong(&answered).max(1) as f64,
            outages: met.len(),
            picture_bytes: sizes.clone().map(|sent| sent.bytes).sum(),
            resized: uploads.iter().filter(|up| up.pictures.iter().any(|sent| sent.max_side_px < 768)).count(),
            time_median: median(&mut times),
            time_covered: covered.iter().filter(|covered| **covered).count() as f64 / covered.len() as f64,
        })
    }

    /// The one that is harder to meet: neither may hide the other's misses.
    pub fn value(&self) -> f64 {
        self.median.max(self.total)
    }

    pub fn how(&self) -> String {
        format!(
            "the larger one of two errors of predicted uplink bytes (UDP payload, predicted before the decision and before the \
             pictures were encoded; {} segments of recorded links, real QUIC between real processes): of all {} bytes together \
             {:.4}, turns that failed included; of the median of {} answered turns with 1 to 3 pictures {:.4}. Their mean {:.4}, 90th \
             percentile {:.4}; {} of them met an outage, and have {:.0} % of the bytes predicted wrongly. {} turns failed after \
             they had sent {} bytes, {} before they sent any (not counted). {:.4} bytes sent for a byte of an answered turn's \
             picture; {} turns had smaller pictures",
            SEGMENTS.len(),
            self.bytes,
            self.total,
            self.answered,
            self.median,
            self.mean,
            self.p90,
            self.outages,
            self.outage_share * 100.0,
            self.failed,
            self.failed_bytes,
            self.unsent,
            self.bytes as f64 / self.picture_bytes as f64,
            self.resized,
        )
    }

    pub fn how_time(&self) -> String {
        format!(
            "the same {} answered turns: median of |predicted - measured| / measured of the time until the upload was acknowledged; \
             the 90 % interval covers {:.3}",
            self.answered, self.time_covered
        )
    }
}

/// `seed`: other pauses, other numbers of pictures, and a later part of each trace; 0 is the benchmark's row. `records`: a file
/// that gets the turns' records, one JSON object a line.
///
/// # Errors
/// A trace or a program is missing, or no turn was answered.
pub async fn run(traces: &Path, seed: u64, records: Option<&Path>) -> Result<Errors> {
    let mut turns = Vec::new();
    for (place, (name, offset_s)) in SEGMENTS.iter().enumerate() {
        let (offset_s, own_seed) = (offset_s + seed as f64 * LATER_S, seed * SEGMENTS.len() as u64 + place as u64);
        let path = traces.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let trace = Trace::parse(&text, DEFAULT_UPLINK_SHARE).with_context(|| path.display().to_string())?;
        turns.extend(segment(trace, offset_s, own_seed).await.with_context(|| (*name).to_owned())?);
    }
    if let Some(path) = records {
        let lines: Result<Vec<String>, _> = turns.iter().map(|turn| serde_json::to_string(&turn.record)).collect();
        std::fs::write(path, lines?.join("\n") + "\n").with_context(|| path.display().to_string())?;
    }
    Errors::of(&turns, SEGMENTS.len() * TURNS as usize)
}

/// The turns on one segment that sent something.
async fn segment(trace: Trace, offset_s: f64, seed: u64) -> Result<Vec<Turn>> {
    let folder = folder()?;
    let gateway = Gateway::start(folder.path(), ZOO)?;
    let (relay, cloud) = gateway.behind_relay(seed, Faults::default()).await?;
    let settings = format!("[model]\nname = \"none\"\n[policy]\nname = \"always-cloud\"\n{cloud}");
    let begun_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let weather = trace.clone();
    let _weather = AbortOnDropHandle::new(tokio::spawn(async move { follow(&relay, &weather, offset_s).await }));
    let daemon = Daemon::start(folder.path(), &settings).await?;
    let client = daemon.client();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let cameras = ["front", "side", "overhead"];
    for turn in 0..TURNS {
        for (camera, name) in cameras.iter().enumerate() {
            let frame = scene::frame(seed * 10 + camera as u64, turn);
            client.put(&format!("/v1/cameras/{name}"), frame.into()).await?;
        }
        let count = random.random_range(1..=cameras.len());
        // An outage makes it fail; what it sent is in its record all the same.
        let _: Result<ChatCompletion, _> = client.ask(&question(turn, &cameras[..count])).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
    }
    let list: TurnList = client.get(&format!("/v1/turns?limit={TURNS}")).await?;
    let turns = list.turns.into_iter().rev();
    Ok(turns.filter_map(|record| Turn::of(record, &trace, begun_unix_ms, offset_s)).collect())
}

fn question(turn: u32, views: &[&str]) -> serde_json::Value {
    let words = "and tell me what is on the table now ".repeat(1 + turn as usize % 4);
    json!({
        "messages": [{"role": "user", "content": format!("Look {words}")}],
        "tether": {"route": "cloud", "views": views, "deadline_ms": 60_000},
    })
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
