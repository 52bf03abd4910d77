//! Local answers on the published devices: arithmetic and memory bandwidth, whichever is slower for each token.

use crate::tmo::data::Dataset;
use crate::tmo::paper::{DEVICES, Device};
use tether_protocol::Route;

/// A published device with the memory bandwidth that the published table leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hardware {
    pub device: Device,
    pub bandwidth_gb_per_s: f64,
    pub source: &'static str,
}

/// In the order of [`DEVICES`]. Nominal figures: bus width times transfer rate.
pub const HARDWARE: [Hardware; 8] = [
    hardware(0, 12.8, "BCM2711 documentation: 32-bit LPDDR4-3200"),
    hardware(1, 17.1, "BCM2712 documentation: 32-bit LPDDR4X-4267"),
    hardware(2, 25.6, "NVIDIA Jetson Nano module data sheet: 64-bit LPDDR4-1600"),
    hardware(3, 59.7, "NVIDIA Jetson TX2 module data sheet: 128-bit LPDDR4-1866"),
    hardware(4, 59.7, "NVIDIA Jetson Xavier NX module data sheet: 128-bit LPDDR4x-1866"),
    hardware(5, 102.4, "NVIDIA Jetson Orin NX module data sheet: 128-bit LPDDR5-3200"),
    hardware(6, 204.8, "NVIDIA Jetson AGX Orin module data sheet: 256-bit LPDDR5-3200"),
    hardware(7, 51.2, "teardown reports: 64-bit LPDDR5-6400; the vendor publishes none"),
];

const fn hardware(device: usize, bandwidth_gb_per_s: f64, source: &'static str) -> Hardware {
    Hardware { device: DEVICES[device], bandwidth_gb_per_s, source }
}

/// The local model (TMO: Phi-3-mini), at 4.5 bits a weight as the usual 4-bit GGUF files have with their scales.
const PARAMETERS: f64 = 3.8e9;
const BYTES_PER_PARAMETER: f64 = 4.5 / 8.0;
/// Shares of the nominal figures that an inference engine reaches. Half the arithmetic is common for prefill; .82 of
/// TX2's bandwidth is what M4A1's own times come to (see [`check`]), and what streaming reads usually reach.
const ARITHMETIC_SHARE: f64 = 0.5;
const BANDWIDTH_SHARE: f64 = 0.82;
/// Of English text, for tokenizers of this size.
pub const BYTES_PER_TOKEN: f64 = 4.3;
/// Means of M4A1's local turns: 64 bytes of question, 821 of answer. Earlier turns are in the key-value cache.
pub const PROMPT_TOKENS: f64 = 64.0 / BYTES_PER_TOKEN;
pub const ANSWER_TOKENS: f64 = 821.0 / BYTES_PER_TOKEN;

impl Hardware {
    /// Seconds of a local answer: the prompt is bound by arithmetic, each new token by arithmetic or by reading every
    /// weight once.
    pub fn local_s(&self, prompt_tokens: f64, answer_tokens: f64) -> f64 {
        let arithmetic_s = 2.0 * PARAMETERS / (self.device.peak_gflops * 1e9 * ARITHMETIC_SHARE);
        let memory_s = PARAMETERS * BYTES_PER_PARAMETER / (self.bandwidth_gb_per_s * 1e9 * BANDWIDTH_SHARE);
        prompt_tokens * arithmetic_s + answer_tokens * arithmetic_s.max(memory_s)
    }

    /// Joules of a local answer, at the published power.
    pub fn local_j(&self, prompt_tokens: f64, answer_tokens: f64) -> f64 {
        self.device.power_w * self.local_s(prompt_tokens, answer_tokens)
    }
}

/// Predicted against measured times of the local turns of some data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    pub turns: usize,
    pub predicted_mean_s: f64,
    pub measured_mean_s: f64,
    /// Of the two over turns: does the time follow the answer's length, as bandwidth says?
    pub correlation: f64,
}

/// The local turns of `data` as this device would take them, from their questions' and answers' lengths. M4A1 does not
/// name the machine that its times were measured on. `None` with fewer than two measured turns.
pub fn check(data: &Dataset, hardware: &Hardware) -> Option<Check> {
    let turns = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).filter(|turn| turn.route == Route::Local);
    let pairs: Vec<(f64, f64)> = turns
        .filter_map(|turn| {
            let tokens = |bytes: usize| bytes as f64 / BYTES_PER_TOKEN;
            Some((hardware.local_s(tokens(turn.question.len()), tokens(turn.answer_bytes)), turn.latency_s?))
        })
        .collect();
    if pairs.len() < 2 {
        return None;
    }
    let count = pairs.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
    let (predicted, measured) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
    let shared = mean(&|pair| (pair.0 - predicted) * (pair.1 - measured));
    let spread = mean(&|pair| (pair.0 - predicted).powi(2)) * mean(&|pair| (pair.1 - measured).powi(2));
    Some(Check {
        turns: pairs.len(),
        predicted_mean_s: predicted,
        measured_mean_s: measured,
        correlation: shared / spread.sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_device_is_bound_by_arithmetic_and_a_large_one_by_memory() {
        let token_s = |at: usize| HARDWARE[at].local_s(0.0, 1.0);
        let memory_s = |at: usize| 3.8e9 * 0.5625 / (HARDWARE[at].bandwidth_gb_per_s * 0.82e9);
        assert!(token_s(0) > 2.0 * memory_s(0), "Raspberry Pi-4B");
        assert!((token_s(3) - memory_s(3)).abs() < 1e-12, "Jetson TX2");
        // Not the published 0.0114 s: a whole answer takes seconds.
        let answer_s = HARDWARE[3].local_s(PROMPT_TOKENS, ANSWER_TOKENS);
        assert!((7.0..10.0).contains(&answer_s), "{answer_s}");
    }

    #[test]
    fn names_match_the_published_table() {
        for (hardware, device) in HARDWARE.iter().zip(DEVICES) {
            assert_eq!(hardware.device, device);
            assert!(!hardware.source.is_empty());
        }
    }
}
