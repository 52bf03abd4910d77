//! The most that a turn may cost, which is what is reserved for it. Pure.

use crate::config::BudgetSettings;
use tether_policies::Candidate;
use tether_policies::budget::{Accounts, Amounts, Most, Resource};
use tether_protocol::Route;
use tether_protocol::context::Load;

/// Headroom over the predicted uplink: a packet in ten sent twice, and headers of some 4 %.
const UPLINK_HEADROOM: f64 = 1.15;
/// Acknowledgements, probes and the request's frames of a turn that waits for a long answer, and the tail of a cut one.
const UPLINK_EXTRA_BYTES: u64 = 16 * 1024;
/// A token may travel in a datagram of its own: 20 to 30 bytes of frame and QUIC, some 10 of text, an acknowledgement.
const DOWNLINK_TOKEN_BYTES: u64 = 96;
/// Acknowledgements of what goes up are a datagram of some 40 bytes for every other one of 1,200 and more.
const DOWNLINK_UPLINK_SHARE: f64 = 0.03;
const DOWNLINK_EXTRA_BYTES: u64 = 16 * 1024;
/// A token is at least a byte; each message brings a template's words.
const MESSAGE_TOKENS: u64 = 32;
/// The rates of a slow device, until its own have been measured: the first turn reserves much and settles less.
const SLOW_PREFILL_TOKENS_PER_S: f64 = 10.0;
const SLOW_DECODE_TOKENS_PER_S: f64 = 2.0;
/// Headroom over the measured rates.
const ENERGY_HEADROOM: f64 = 1.5;
/// How long a cloud turn may draw power; beyond it is cut off where energy has a budget.
const CLOUD_SECONDS: f64 = 60.0;

/// Which side's power is drawn.
pub type LocalOrCloud = Route;

/// What is known of the turn, whichever action is taken.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub settings: &'a BudgetSettings,
    pub load: Option<&'a Load>,
    pub prompt_tokens: u32,
    pub max_tokens: u32,
    /// Text that would travel, sensors' readings not included, and its messages.
    pub text_bytes: u64,
    pub messages: u64,
}

/// The predicted uplink whose most is within `left`.
pub fn uplink_within(left: u64) -> u64 {
    (left.saturating_sub(UPLINK_EXTRA_BYTES) as f64 / UPLINK_HEADROOM) as u64
}

/// The most that goes up with a turn that is predicted to send so many bytes.
pub fn most_uplink(uplink_bytes: u64) -> u64 {
    (uplink_bytes as f64 * UPLINK_HEADROOM) as u64 + UPLINK_EXTRA_BYTES
}

/// The most that comes down with its answer.
pub fn most_downlink(uplink_bytes: u64, max_tokens: u32) -> u64 {
    let answer = u64::from(max_tokens) * DOWNLINK_TOKEN_BYTES;
    answer + (uplink_bytes as f64 * DOWNLINK_UPLINK_SHARE) as u64 + DOWNLINK_EXTRA_BYTES
}

/// The most that this action may cost. `images` and `sensor_bytes` are those that it sends.
///
/// # Errors
/// A resource that has a budget and of which the most cannot be told.
pub fn most(asked: &Asked<'_>, accounts: &Accounts, candidate: &Candidate, images: u64, sensor_bytes: u64) -> Most {
    let mut amounts = Amounts::ZERO;
    let counts: [Option<u64>; 4] = match candidate.action.route() {
        Route::Local => [Some(0), local_energy(asked), Some(0), Some(0)],
        Route::Cloud => {
            let uplink = candidate.predicted.uplink_bytes;
            [
                cloud_usd(asked, images, sensor_bytes),
                joules(asked.settings.energy.cloud_power_w.map(|power_w| power_w * CLOUD_SECONDS)),
                uplink.map(most_uplink),
                uplink.map(|bytes| most_downlink(bytes, asked.max_tokens)),
            ]
        }
    };
    for resource in Resource::ALL {
        match counts[resource as usize] {
            Some(count) => amounts[resource] = count,
            None if accounts.limits(resource) => return Err(resource),
            None => {}
        }
    }
    Ok(amounts)
}

fn cloud_usd(asked: &Asked<'_>, images: u64, sensor_bytes: u64) -> Option<u64> {
    let prices = asked.settings.prices?;
    let text = asked.text_bytes + sensor_bytes + MESSAGE_TOKENS * (asked.messages + 1);
    let prompt = text + images * u64::from(asked.settings.image_tokens);
    let tokens = prompt as f64 * prices.prompt + f64::from(asked.max_tokens) * prices.completion;
    let usd = tokens + prices.request + images as f64 * prices.image;
    Resource::Usd.count_up(usd)
}

fn local_energy(asked: &Asked<'_>) -> Option<u64> {
    let power_w = asked.settings.energy.local_power_w?;
    let rate =
        |rate: fn(&Load) -> Option<f64>, slow| asked.load.and_then(rate).filter(|rate| *rate > 0.0).unwrap_or(slow);
    let prefill = rate(|load| load.prefill_tokens_per_s, SLOW_PREFILL_TOKENS_PER_S);
    let decode = rate(|load| load.decode_tokens_per_s, SLOW_DECODE_TOKENS_PER_S);
    let seconds = f64::from(asked.prompt_tokens) / prefill + f64::from(asked.max_tokens) / decode;
    joules(Some(power_w * (seconds * ENERGY_HEADROOM + 1.0)))
}

fn joules(energy_j: Option<f64>) -> Option<u64> {
    energy_j.and_then(|energy_j| Resource::EnergyJ.count_up(energy_j))
}
