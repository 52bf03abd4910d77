//! Numbers for people.

/// `0 B`, `999 B`, `41.2 kB`, `1.5 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1e3;
    let mut unit = 0;
    // A value that would be printed as 1000.0 belongs to the next unit.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `12 ms`, `1.24 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn duration_ms(ms: f64) -> String {
    match ms {
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 3_600_000.0 => format!("{:.0} min", ms / 60e3),
        ms if ms < 48.0 * 3_600_000.0 => format!("{:.1} h", ms / 3.6e6),
        ms => format!("{:.1} d", ms / 86.4e6),
    }
}

/// Dollars with as many digits as a small price needs: `$0`, `$0.000012`, `$1.25`.
pub(crate) fn usd(amount: f64) -> String {
    let text = if amount.abs() >= 0.01 { format!("{amount:.2}") } else { format!("{amount:.7}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("${text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_at_the_borders() {
        let written: Vec<String> = [0, 999, 1000, 41_234, 999_949, 999_950, 98_362_432].map(bytes).into();
        assert_eq!(written, ["0 B", "999 B", "1.0 kB", "41.2 kB", "999.9 kB", "1.0 MB", "98.4 MB"]);
        let written: Vec<String> = [0.4, 999.0, 999.6, 59_999.0, 60_000.0, 7.2e6].map(duration_ms).into();
        assert_eq!(written, ["0 ms", "999 ms", "1.00 s", "60.00 s", "1 min", "2.0 h"]);
        assert_eq!([0.0, 0.000_012, 1.25, 10.0].map(usd), ["$0", "$0.000012", "$1.25", "$10"]);
    }
}
