//! Sensor readings: any JSON value, kept as it was written (numbers keep their digits) without its white space.

use serde::de::IgnoredAny;
use std::time::Instant;
use tether_protocol::limits::{MAX_SENSOR_BYTES, MAX_SENSOR_DEPTH};
use tether_protocol::{IdError, ViewName};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SensorError {
    #[error("sensor name: {0}")]
    Name(#[from] IdError),
    #[error("sensor {name}: the reading has {given} bytes, at most {MAX_SENSOR_BYTES} are allowed")]
    TooLarge { name: ViewName, given: usize },
    #[error("sensor {name}: the reading is not JSON: {problem}")]
    NotJson { name: ViewName, problem: String },
    #[error("sensor {name}: the reading is nested deeper than {MAX_SENSOR_DEPTH}")]
    TooDeep { name: ViewName },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sensor {
    pub(super) json: String,
    pub(super) at: Instant,
}

impl Sensor {
    pub(super) fn read(name: &str, json: &[u8], at: Instant) -> Result<(ViewName, Self), SensorError> {
        let name = ViewName::new(name)?;
        if json.len() > MAX_SENSOR_BYTES {
            return Err(SensorError::TooLarge { name, given: json.len() });
        }
        let not_json = |problem: String| SensorError::NotJson { name: name.clone(), problem };
        let text = str::from_utf8(json).map_err(|error| not_json(error.to_string()))?;
        // Depth first: the JSON reader has a depth limit of its own, with a less helpful message.
        let json = compact(text).ok_or_else(|| SensorError::TooDeep { name: name.clone() })?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(error.to_string()))?;
        Ok((name, Self { json, at }))
    }
}

/// Drops the white space between tokens; `None` if it is nested too deeply. Meant for text that is checked to be
/// JSON; anything else comes out as some string.
fn compact(json: &str) -> Option<String> {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            match c {
                ' ' | '\t' | '\n' | '\r' => continue,
                '"' => in_string = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            if depth > MAX_SENSOR_DEPTH {
                return None;
            }
        }
        compact.push(c);
    }
    Some(compact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn read(json: &str) -> Result<String, SensorError> {
        Sensor::read("gripper", json.as_bytes(), Instant::now()).map(|(_, sensor)| sensor.json)
    }

    #[test]
    fn digits_order_and_strings_are_kept() {
        let json = "{ \"b\" : 1.50,\n\t\"a b\": [ 1e3, \"x \\\" y \\\\\" , null ] }";
        assert_eq!(read(json).unwrap(), r#"{"b":1.50,"a b":[1e3,"x \" y \\",null]}"#);
        assert_eq!(read(" 21.5 ").unwrap(), "21.5");
    }

    #[test]
    fn the_limits_hold_exactly() {
        let deep = |depth: i32| "[".repeat(depth as usize) + &"]".repeat(depth as usize);
        assert!(read(&deep(MAX_SENSOR_DEPTH)).is_ok());
        assert!(matches!(read(&deep(MAX_SENSOR_DEPTH + 1)), Err(SensorError::TooDeep { .. })));
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(read(&long(MAX_SENSOR_BYTES)).is_ok());
        assert!(matches!(read(&long(MAX_SENSOR_BYTES + 1)), Err(SensorError::TooLarge { .. })));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let error = read("{\"a\": \n closed}").unwrap_err().to_string();
        assert!(error.contains("gripper") && error.contains("line 2"), "{error}");
        for bad in ["", "{", "{} {}", "nan", "\"a\nb\""] {
            assert!(matches!(read(bad), Err(SensorError::NotJson { .. })), "{bad:?}");
        }
        assert!(matches!(Sensor::read("a b", b"1", Instant::now()), Err(SensorError::Name(_))));
        assert!(matches!(Sensor::read("a", b"\"\xff\"", Instant::now()), Err(SensorError::NotJson { .. })));
    }

    proptest! {
        #[test]
        fn compacting_never_changes_the_value(text in r#"[ \n]{0,2}(\{ "[a-z\\\\ ]{0,4}" : \[ ?(-?[1-9][0-9]{0,3}|true|"[ a-z"\\\\]{0,5}") \] \}|.{0,20})"#) {
            if let Ok(compact) = read(&text) {
                let value: Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(serde_json::from_str::<Value>(&compact).unwrap(), value);
            }
        }
    }
}
