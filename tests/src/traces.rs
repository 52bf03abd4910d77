//! Robots over real link traces in virtual time, against the budgets' own accounts: do caps hold, and how far is spending
//! ever ahead of its line?

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use tether_policies::budget::{Account, Accounts, Amounts, Budget, BudgetName, Reservation, Resource, Window};
use tether_policies::trace::{DEFAULT_UPLINK_SHARE, Trace};
use tether_protocol::Cost;

pub const SEEDS: u64 = 20;
/// Of what the robot would spend without budgets.
pub const LEVELS: [f64; 3] = [0.1, 0.3, 0.7];
/// A mission's expected length, and how long a run lasts: two hours, so that hours roll over.
const RUN_MS: i64 = 2 * 3_600_000;
/// Mean pause between turns.
const PAUSE_MS: f64 = 4_000.0;
const MOST_AT_ONCE: usize = 8;

/// A recorded link and its file's name.
pub struct Recorded {
    pub name: String,
    pub trace: Trace,
}

/// Reads every trace of a folder.
///
/// # Errors
/// No folder, or a file that is no trace.
pub fn load(folder: &Path) -> Result<Vec<Recorded>> {
    let mut traces = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let trace = Trace::parse(&text, DEFAULT_UPLINK_SHARE).with_context(|| path.display().to_string())?;
        traces.push(Recorded { name, trace });
    }
    traces.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!traces.is_empty(), "{} holds no traces", folder.display());
    Ok(traces)
}

/// What was seen over all runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub turns: u64,
    pub exceeded: u64,
    /// The largest lead over the line, as a part of the cap.
    pub overshoot: f64,
    /// What was spent at windows' ends, as a part of the line, in the mean.
    pub line_used: f64,
}

pub fn run_all(traces: &[Recorded]) -> Outcome {
    let mut all = Outcome::default();
    let mut used = (0.0, 0u64);
    for (trace, seed, level, priced) in traces.iter().flat_map(|trace| {
        let seeds = (0..SEEDS).flat_map(|seed| LEVELS.map(|level| (seed, level)));
        seeds.flat_map(move |(seed, level)| [(trace, seed, level, false), (trace, seed, level, true)])
    }) {
        let one = Robot::new(&trace.trace, seed, level, priced).run();
        all.turns += one.turns;
        all.exceeded += one.exceeded;
        all.overshoot = all.overshoot.max(one.overshoot);
        used.0 += one.line_used;
        used.1 += 1;
    }
    all.line_used = used.0 / used.1.max(1) as f64;
    all
}

/// A turn under way. Ordered so that the next to end is the greatest.
struct Under {
    end_ms: i64,
    reservation: Reservation,
    cost: [Option<u64>; 4],
}

impl PartialEq for Under {
    fn eq(&self, other: &Self) -> bool {
        self.end_ms == other.end_ms
    }
}
impl Eq for Under {}
impl PartialOrd for Under {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Under {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.end_ms.cmp(&self.end_ms)
    }
}

struct Robot<'a> {
    trace: &'a Trace,
    offset_s: usize,
    random: ChaCha8Rng,
    accounts: Accounts,
    under: BinaryHeap<Under>,
    /// Takes the cloud where its value is above its price; otherwise whenever it is permitted.
    priced: bool,
    /// Those who cannot wait ignore the pace, never the cap.
    urgent: f64,
    outcome: Outcome,
}

impl<'a> Robot<'a> {
    fn new(trace: &'a Trace, seed: u64, level: f64, priced: bool) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let turns_an_hour = 3_600_000.0 / PAUSE_MS;
        // About what a turn costs: 0.004 USD, 6 J, 60 kB up, 8 kB down.
        let typical = [4e6, 6e6, 6e4, 8e3];
        let budget = |resource: Resource, window: Window| {
            let hours = if window == Window::Hour { 1.0 } else { RUN_MS as f64 / 3.6e6 };
            let name = BudgetName { resource, window };
            let cap = (typical[resource as usize] * turns_an_hour * hours * level) as u64;
            Budget { name, cap, mission_ms: Some(RUN_MS), floor_percent: None }
        };
        let budgets: Vec<Budget> = Resource::ALL
            .into_iter()
            .flat_map(|resource| [budget(resource, Window::Hour), budget(resource, Window::Mission)])
            .collect();
        let offset_s = random.random_range(0..trace.duration_s() as usize);
        Self {
            trace,
            offset_s,
            accounts: Accounts::new(&budgets, &BTreeMap::new(), 0),
            under: BinaryHeap::new(),
            priced,
            // Pacing is measured without those who ignore it; caps with them, too.
            urgent: if seed.is_multiple_of(2) { 0.0 } else { 0.2 },
            random,
            outcome: Outcome::default(),
        }
    }

    fn run(mut self) -> Outcome {
        let mut now_ms = 0;
        while now_ms < RUN_MS {
            now_ms += (-self.random.random_range(f64::EPSILON..1.0).ln() * PAUSE_MS) as i64 + 1;
            self.settle_until(now_ms);
            self.turn(now_ms.min(RUN_MS - 1));
        }
        self.settle_until(RUN_MS - 1);
        let missions = self.accounts.accounts().iter().filter(|account| account.budget.name.window == Window::Mission);
        let share =
            |account: &Account| account.spending.spent as f64 / account.line(RUN_MS - 1).unwrap_or(1.0).max(1.0);
        // The budget that binds is the one that is used most.
        self.outcome.line_used = missions.map(share).fold(0.0, f64::max);
        self.outcome
    }

    fn turn(&mut self, now_ms: i64) {
        self.outcome.turns += 1;
        let images = self.random.random_range(0..4u64);
        let bytes = 2_000 + images * self.random.random_range(20_000..60_000);
        let answer = self.random.random_range(20..256u64);
        let value: f64 = self.random.random_range(0.0..1.0);
        // As the daemon reserves: headroom over what is predicted, the whole of what an answer may hold.
        let reserved = Amounts([
            1_000_000 * images + 256 * 15_000 + 200_000,
            12_000_000,
            bytes * 115 / 100 + 16_384,
            256 * 96 + 16_384,
        ]);
        let predicted = Cost {
            latency_ms: None,
            cost_usd: Some(Resource::Usd.value(1_000_000 * images + answer * 15_000)),
            energy_j: Some(6.0),
            uplink_bytes: Some(bytes),
            downlink_bytes: Some(answer * 40),
        };
        self.accounts.roll(now_ms);
        let urgent = self.random.random_range(0.0..1.0) < self.urgent;
        if self.under.len() >= MOST_AT_ONCE {
            return;
        }
        if !urgent {
            let price = self.accounts.prices(now_ms).of(&predicted);
            if self.accounts.on_pace(now_ms, &reserved).is_err() || (self.priced && value <= price) {
                return;
            }
        }
        let Ok(reservation) = self.accounts.reserve(now_ms, reserved, None) else { return };
        self.check();
        // Losses send bytes again, up to where the guard cuts.
        let again = self.random.random_range(0.0..0.3f64).powi(2) + 1.04;
        let up = ((bytes as f64 * again) as u64 + 2_000).min(reserved[Resource::UplinkBytes]);
        let down = (answer * self.random.random_range(10..110u64)).min(reserved[Resource::DownlinkBytes]);
        let unknown = self.random.random_range(0.0..1.0) < 0.02;
        let usd = Resource::Usd.count(predicted.cost_usd.unwrap_or(0.0)).filter(|_| !unknown);
        let energy = self.random.random_range(2_000_000..12_000_000u64);
        let end_ms = now_ms + self.upload_ms(now_ms, up) + answer as i64 * 20;
        self.under.push(Under { end_ms, reservation, cost: [usd, Some(energy), Some(up), Some(down)] });
    }

    fn settle_until(&mut self, now_ms: i64) {
        while self.under.peek().is_some_and(|under| under.end_ms <= now_ms) {
            let Some(Under { end_ms, reservation, cost }) = self.under.pop() else { return };
            let _ = self.accounts.settle(end_ms, reservation, cost);
            self.check();
            if self.urgent == 0.0 {
                let lead = |account: &Account| account.lead(end_ms, 0);
                let lead = self.accounts.accounts().iter().filter_map(lead).fold(0.0, f64::max);
                self.outcome.overshoot = self.outcome.overshoot.max(lead);
            }
        }
    }

    /// The promise itself, from outside: no cap is below what is spent and reserved.
    fn check(&mut self) {
        let accounts = self.accounts.accounts().iter();
        let over = accounts.filter(|account| account.spending.spent + account.reserved > account.budget.cap);
        self.outcome.exceeded += over.count() as u64;
    }

    /// How long so many bytes take on the trace, at most a minute (then the turn is given up, its bytes spent).
    fn upload_ms(&self, now_ms: i64, bytes: u64) -> i64 {
        let (mut left, mut ms) = (bytes as f64 * 8.0, 0);
        while left > 0.0 && ms < 60_000 {
            left -= self.trace.up_bits_per_s(self.offset_s as f64 + (now_ms + ms) as f64 / 1e3) * 0.1;
            ms += 100;
        }
        ms
    }
}
