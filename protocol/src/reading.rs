//! What the device knows about itself: a value with its age and its source, or "unknown" with the reason.

use serde::{Deserialize, Serialize};

/// One measured quantity. A reading that is missing is [`Reading::Unknown`], never zero.
///
/// As JSON: `{"value":81.5,"age_ms":120,"source":"sysfs"}` or `{"unknown":"no battery found"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading<T> {
    Known { value: T, age_ms: u64, source: String },
    Unknown { unknown: String },
}

impl<T> Reading<T> {
    pub fn known(value: T, age_ms: u64, source: impl Into<String>) -> Self {
        Self::Known { value, age_ms, source: source.into() }
    }

    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { unknown: why.into() }
    }

    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// The value, if it is known and at most `max_age_ms` old.
    pub fn fresh(&self, max_age_ms: u64) -> Option<&T> {
        match self {
            Self::Known { value, age_ms, .. } if *age_ms <= max_age_ms => Some(value),
            _ => None,
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Known { value, age_ms, source } => Reading::Known { value: f(value), age_ms, source },
            Self::Unknown { unknown } => Reading::Unknown { unknown },
        }
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::unknown("not measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_not_zero_and_survives_json() {
        let unknown: Reading<f64> = Reading::unknown("no battery found");
        assert_eq!(unknown.value(), None);
        let text = serde_json::to_string(&unknown).unwrap();
        assert_eq!(text, r#"{"unknown":"no battery found"}"#);
        assert_eq!(serde_json::from_str::<Reading<f64>>(&text).unwrap(), unknown);
    }

    #[test]
    fn a_stale_reading_is_not_fresh() {
        let reading = Reading::known(0.8, 1_500, "sysfs");
        assert_eq!(reading.fresh(1_500), Some(&0.8));
        assert_eq!(reading.fresh(1_499), None);
    }
}
