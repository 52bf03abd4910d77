//! The form of every benchmark's rows: one JSON object a line.

use serde_json::json;

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    AtMost,
    AtLeast,
}

/// Prints `{"bar","value","target","unit","met","how"}` and says whether the bar was met.
pub fn row(bar: &str, value: f64, good: Good, target: f64, unit: &str, how: &str) -> bool {
    let met = match good {
        Good::AtMost => value <= target,
        Good::AtLeast => value >= target,
    };
    // Four significant digits are more than any of these repeats to.
    let value = format!("{value:.4}").parse::<f64>().unwrap_or(value);
    println!("{}", json!({"bar": bar, "value": value, "target": target, "unit": unit, "met": met, "how": how}));
    met
}

/// Prints a row for what was not measured: its value is null, and it is not met.
pub fn skipped(bar: &str, target: f64, unit: &str, why: &str) {
    let how = format!("skipped: {why}");
    println!("{}", json!({"bar": bar, "value": null, "target": target, "unit": unit, "met": false, "how": how}));
}

/// The middle value.
///
/// # Panics
/// If there is none.
pub fn median(values: &mut [f64]) -> f64 {
    assert!(!values.is_empty(), "a median needs values");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_itself_is_met_from_both_sides() {
        assert!(row("a", 1.0, Good::AtMost, 1.0, "s", "") && row("a", 1.0, Good::AtLeast, 1.0, "s", ""));
        assert!(!row("a", 1.1, Good::AtMost, 1.0, "s", "") && !row("a", 0.9, Good::AtLeast, 1.0, "s", ""));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }
}
