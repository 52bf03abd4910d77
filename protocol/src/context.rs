//! What the device knew when it decided. Each part is a [`Reading`]: a value with its age, or unknown.

use crate::id::ViewName;
use crate::reading::Reading;
use serde::{Deserialize, Serialize};

/// A snapshot of the device at one moment; part of the observation and of the turn's record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Context {
    pub battery: Reading<Battery>,
    /// What the device draws, where something measures it.
    #[serde(default)]
    pub power: Reading<Power>,
    #[serde(default)]
    pub machine: Reading<Machine>,
    pub link: Reading<Link>,
    pub load: Reading<Load>,
    /// One entry for each named view, in the action space's order.
    pub views: Vec<ViewContext>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Battery {
    pub percent: f64,
    /// True on mains; a battery that charges is on mains.
    pub on_ac: bool,
    /// Drawn from the battery; negative while charging.
    pub power_w: Option<f64>,
    /// What is left.
    pub energy_j: Option<f64>,
}

impl Battery {
    /// Off mains: what floors are held against.
    pub fn draining_percent(&self) -> Option<f64> {
        (!self.on_ac).then_some(self.percent)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Power {
    pub watts: f64,
    /// What is measured: `board (VDD_IN)`, `package-0`, `device, from its battery`.
    pub covers: String,
}

/// How busy the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Of all processors, over the last sampling period.
    pub cpu_ratio: Option<f64>,
    /// Time in which something waited for memory, over ten seconds.
    pub memory_pressure_ratio: Option<f64>,
    /// The hottest zone.
    pub temperature_c: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    Up,
    Degraded,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    pub state: LinkState,
    /// Smoothed, with what queues on the way.
    pub rtt_ms: Option<f64>,
    /// The least that was seen: an empty path's.
    #[serde(default)]
    pub min_rtt_ms: Option<f64>,
    /// What sends got so far: as likely more as less.
    pub uplink_bits_per_s: Option<f64>,
    /// Nine sends of ten get more than the first and less than the second.
    #[serde(default)]
    pub uplink_low_bits_per_s: Option<f64>,
    #[serde(default)]
    pub uplink_high_bits_per_s: Option<f64>,
    pub downlink_bits_per_s: Option<f64>,
    pub loss_ratio: Option<f64>,
    /// What may be on its way unacknowledged.
    #[serde(default)]
    pub congestion_window_bytes: Option<u64>,
    /// What went up over this connection and was not lost, as far as is known: what is on its way counts as delivered.
    #[serde(default)]
    pub delivered_bytes: Option<u64>,
    /// Whether bytes cost money here, where somebody says so.
    pub metered: Option<bool>,
}

impl Link {
    /// A link of which nothing else is known.
    pub const fn in_state(state: LinkState) -> Self {
        Self {
            state,
            rtt_ms: None,
            min_rtt_ms: None,
            uplink_bits_per_s: None,
            uplink_low_bits_per_s: None,
            uplink_high_bits_per_s: None,
            downlink_bits_per_s: None,
            loss_ratio: None,
            congestion_window_bytes: None,
            delivered_bytes: None,
            metered: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Jobs waiting for the local model, the one being served included.
    pub queue: u32,
    /// Measured rates of the local model; unknown until it has answered once.
    pub prefill_tokens_per_s: Option<f64>,
    pub decode_tokens_per_s: Option<f64>,
}

/// One view at the time of the decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewContext {
    pub name: ViewName,
    /// Bytes that the view would put on the wire; unknown when there is nothing to send.
    pub encoded_bytes: Reading<u64>,
    /// Whether the view came with this request (rather than being pushed earlier).
    pub attached: bool,
    /// Text (sensor readings): the local model reads it as well as the cloud does. Images it only gets described.
    #[serde(default)]
    pub is_text: bool,
    /// Privacy: this view never leaves the device.
    pub local_only: bool,
    /// How strongly the prompt is about this view, in 0..1, where a model estimates it.
    pub association: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_recorded_before_windows_and_delivered_bytes_were_is_read() {
        let (window, delivered) = (Some(30_000), Some(400_000));
        let link =
            Link { congestion_window_bytes: window, delivered_bytes: delivered, ..Link::in_state(LinkState::Up) };
        let mut json = serde_json::to_value(link).unwrap();
        assert_eq!((&json["congestion_window_bytes"], &json["delivered_bytes"]), (&30_000.into(), &400_000.into()));
        assert_eq!(serde_json::from_value::<Link>(json.clone()).unwrap(), link);
        for name in ["congestion_window_bytes", "delivered_bytes"] {
            json.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(serde_json::from_value::<Link>(json).unwrap(), Link::in_state(LinkState::Up));
    }
}
