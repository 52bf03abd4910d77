//! A recorded link, one row a second: what a robot's uplink really did, for replays and for training.

/// Far above a day of seconds, far below what would exhaust a laptop.
pub const MAX_ROWS: usize = 1_000_000;
pub const MAX_FILE_BYTES: usize = 64 << 20;
/// Rows may be missing for so long (a logger that was busy); after that the link counts as down until the next row.
const HOLD_S: f64 = 5.0;
/// A link that is down for this long within one transfer has lost it.
pub const MAX_SEND_S: f64 = 3_600.0;
/// Uplink for downlink where the recorded uplink is only acknowledgements. LTE and 5G plans are asymmetric by about
/// as much; it is printed wherever it is used.
pub const DEFAULT_UPLINK_SHARE: f64 = 0.1;

const HEADER: &str = "t_s,down_mbps,up_mbps,rtt_ms";

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TraceError {
    #[error("a trace begins with the line `{HEADER}`, this one with {found:?}")]
    Header { found: String },
    #[error("line {line}, {field}: {problem}")]
    Field { line: usize, field: &'static str, problem: String },
    #[error("a trace needs at least two rows, this one has {0}")]
    TooShort(usize),
    #[error("{given} {what}, at most {limit} are allowed")]
    Limit { what: &'static str, given: usize, limit: usize },
    #[error("the link is never up in this trace")]
    NeverUp,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    at_s: f64,
    up_bits_per_s: f64,
    down_bits_per_s: f64,
    rtt_ms: Option<f64>,
}

/// A link over time. It loops: after its last row the first one follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    rows: Vec<Row>,
    duration_s: f64,
    /// The recorded uplink was not used (see [`Trace::parse`]).
    shared_uplink: bool,
}

impl Trace {
    /// Reads the text of a trace: `t_s,down_mbps,up_mbps,rtt_ms`, blank where nothing was measured.
    ///
    /// Where the downlink was measured it was the load, and the recorded uplink its acknowledgements: the uplink is then
    /// `uplink_share` of the downlink. Where the downlink is blank, the uplink was the load, and the downlink is taken
    /// to equal it.
    ///
    /// # Errors
    /// [`TraceError`] names the line and the field.
    pub fn parse(text: &str, uplink_share: f64) -> Result<Trace, TraceError> {
        limit("bytes", text.len(), MAX_FILE_BYTES)?;
        let mut lines = text.lines();
        let found = lines.next().unwrap_or_default().trim();
        if found != HEADER {
            return Err(TraceError::Header { found: found.chars().take(80).collect() });
        }
        let written = lines.enumerate().filter(|(_, text)| !text.trim().is_empty());
        let forms = written.map(|(at, text)| form(at + 2, text)).collect::<Result<Vec<_>, _>>()?;
        limit("rows", forms.len(), MAX_ROWS)?;
        if forms.len() < 2 {
            return Err(TraceError::TooShort(forms.len()));
        }
        let shared_uplink = forms.iter().any(|form| form.down.is_some());
        let mut rows: Vec<Row> = Vec::with_capacity(forms.len());
        for form in forms {
            if let Some(before) = rows.last()
                && form.at_s <= before.at_s
            {
                let problem = format!("{} does not come after {}", form.at_s, before.at_s);
                return Err(TraceError::Field { line: form.line, field: "t_s", problem });
            }
            // Nothing measured in a second: what was before still holds.
            let before = rows.last();
            let load = if shared_uplink { form.down } else { form.up };
            let kept = |of: fn(&Row) -> f64| before.map_or(0.0, of);
            let down = load.unwrap_or_else(|| kept(|row| row.down_bits_per_s / 1e6)) * 1e6;
            let up = if shared_uplink { down * uplink_share } else { down };
            rows.push(Row { at_s: form.at_s, up_bits_per_s: up, down_bits_per_s: down, rtt_ms: form.rtt });
        }
        if rows.iter().all(|row| row.up_bits_per_s <= 0.0) {
            return Err(TraceError::NeverUp);
        }
        // The last row holds as long as the ones before it did on average.
        let (first, last) = (rows[0].at_s, rows[rows.len() - 1].at_s);
        let duration_s = (last - first) * rows.len() as f64 / (rows.len() - 1) as f64;
        rows.iter_mut().for_each(|row| row.at_s -= first);
        Ok(Trace { rows, duration_s, shared_uplink })
    }

    /// A link that never changes, for comparison and tests.
    pub fn constant(up_bits_per_s: f64, down_bits_per_s: f64, rtt_ms: f64) -> Trace {
        let row = |at_s| Row { at_s, up_bits_per_s, down_bits_per_s, rtt_ms: Some(rtt_ms) };
        Trace { rows: vec![row(0.0), row(1.0)], duration_s: 2.0, shared_uplink: false }
    }

    pub fn duration_s(&self) -> f64 {
        self.duration_s
    }

    /// Whether the uplink is a share of the recorded downlink.
    pub fn has_shared_uplink(&self) -> bool {
        self.shared_uplink
    }

    pub fn up_bits_per_s(&self, at_s: f64) -> f64 {
        self.rate(at_s, |row| row.up_bits_per_s).0
    }

    pub fn down_bits_per_s(&self, at_s: f64) -> f64 {
        self.rate(at_s, |row| row.down_bits_per_s).0
    }

    /// The newest round trip at or before `at_s`; `None`: none was measured yet.
    pub fn rtt_ms(&self, at_s: f64) -> Option<f64> {
        let (index, _) = self.row(at_s);
        self.rows[..=index].iter().rev().chain(self.rows[index..].iter()).find_map(|row| row.rtt_ms)
    }

    /// How long `bytes` take that begin to be sent at `at_s`; `None`: longer than [`MAX_SEND_S`].
    pub fn send_s(&self, at_s: f64, bytes: u64) -> Option<f64> {
        self.transfer_s(at_s, bytes, |row| row.up_bits_per_s)
    }

    /// The same for bytes that come down.
    pub fn receive_s(&self, at_s: f64, bytes: u64) -> Option<f64> {
        self.transfer_s(at_s, bytes, |row| row.down_bits_per_s)
    }

    fn transfer_s(&self, at_s: f64, bytes: u64, of: fn(&Row) -> f64) -> Option<f64> {
        let mut bits = bytes as f64 * 8.0;
        let mut passed = 0.0;
        while passed < MAX_SEND_S {
            let (rate, holds_s) = self.rate(at_s + passed, of);
            if rate * holds_s >= bits {
                return Some(if bits > 0.0 { passed + bits / rate } else { passed });
            }
            bits -= rate * holds_s;
            passed += holds_s;
        }
        None
    }

    /// The rate at a moment, and for how long it holds.
    fn rate(&self, at_s: f64, of: fn(&Row) -> f64) -> (f64, f64) {
        let (index, within_s) = self.row(at_s);
        let next_s = self.rows.get(index + 1).map_or(self.duration_s, |row| row.at_s);
        let since_s = within_s - self.rows[index].at_s;
        // Never nothing, so that adding it up ends in spite of rounding.
        let until = |end_s: f64| (end_s - within_s).max(1e-6);
        if since_s < HOLD_S {
            (of(&self.rows[index]), until(next_s.min(self.rows[index].at_s + HOLD_S)))
        } else {
            (0.0, until(next_s))
        }
    }

    fn row(&self, at_s: f64) -> (usize, f64) {
        let within_s = at_s.rem_euclid(self.duration_s);
        (self.rows.partition_point(|row| row.at_s <= within_s).saturating_sub(1), within_s)
    }
}

struct Form {
    line: usize,
    at_s: f64,
    down: Option<f64>,
    up: Option<f64>,
    rtt: Option<f64>,
}

fn form(line: usize, text: &str) -> Result<Form, TraceError> {
    let cells: Vec<&str> = text.split(',').map(str::trim).collect();
    if cells.len() != 4 {
        let problem = format!("{} columns, there are 4", cells.len());
        return Err(TraceError::Field { line, field: "row", problem });
    }
    let number = |field: &'static str, cell: &str| match cell.parse::<f64>() {
        _ if cell.is_empty() => Ok(None),
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(Some(value)),
        _ => Err(TraceError::Field { line, field, problem: format!("{cell:?} is not a number from 0 on") }),
    };
    let missing = || TraceError::Field { line, field: "t_s", problem: "it is missing".into() };
    Ok(Form {
        line,
        at_s: number("t_s", cells[0])?.ok_or_else(missing)?,
        down: number("down_mbps", cells[1])?,
        up: number("up_mbps", cells[2])?,
        rtt: number("rtt_ms", cells[3])?,
    })
}

fn limit(what: &'static str, given: usize, limit: usize) -> Result<(), TraceError> {
    if given > limit { Err(TraceError::Limit { what, given, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(rows: &str) -> Result<Trace, TraceError> {
        Trace::parse(&format!("{HEADER}\n{rows}"), 0.1)
    }

    #[test]
    fn a_blank_downlink_equals_the_uplink_and_a_measured_one_is_shared() {
        let wifi = parse("10,,8,20\n11,,16,\n12,,0,\n").unwrap();
        assert_eq!((wifi.up_bits_per_s(0.5), wifi.down_bits_per_s(1.5), wifi.up_bits_per_s(2.5)), (8e6, 16e6, 0.0));
        assert_eq!((wifi.rtt_ms(2.0), wifi.duration_s()), (Some(20.0), 3.0));
        let cellular = parse("0,20,0.1,\n1,40,0.2,70\n").unwrap();
        assert!(cellular.has_shared_uplink());
        assert_eq!((cellular.up_bits_per_s(0.0), cellular.up_bits_per_s(1.0)), (2e6, 4e6));
        // It loops, and before the first measured round trip the first one is taken.
        assert_eq!((cellular.up_bits_per_s(2.0), cellular.rtt_ms(0.0)), (2e6, Some(70.0)));
    }

    #[test]
    fn a_transfer_waits_for_an_outage_to_end() {
        let trace = parse("0,,8,\n1,,0,\n2,,0,\n3,,8,\n").unwrap();
        assert_eq!(trace.send_s(0.5, 500_000), Some(0.5));
        assert_eq!(trace.send_s(0.5, 1_000_000), Some(3.0));
        assert_eq!(trace.send_s(0.0, 0), Some(0.0));
        // A gap in the rows longer than the hold counts as an outage.
        let gap = parse("0,,8,\n20,,8,\n").unwrap();
        assert_eq!((gap.up_bits_per_s(4.9), gap.up_bits_per_s(5.1)), (8e6, 0.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |rows: &str| parse(rows).unwrap_err().to_string();
        assert!(message("0,,NaN,\n1,,1,\n").contains("line 2, up_mbps"));
        assert!(message("0,,1,\n1,,-1,\n").contains("line 3, up_mbps"));
        assert!(message("0,,1,\n0,,1,\n").contains("line 3, t_s"));
        assert!(message("0,,1\n").contains("columns"));
        assert!(message(",,1,\n").contains("t_s"));
        assert_eq!(parse("0,,1,\n"), Err(TraceError::TooShort(1)));
        assert_eq!(parse("0,,0,\n1,,0,\n"), Err(TraceError::NeverUp));
        assert!(matches!(Trace::parse("a,b\n1,2", 0.1), Err(TraceError::Header { .. })));
        assert!(matches!(Trace::parse("", 0.1), Err(TraceError::Header { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n|,|[0-9.]){0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn more_bytes_never_arrive_earlier(
            rates in prop::collection::vec(0.0f64..20.0, 2..30), at in 0.0f64..100.0, bytes in 0u64..1_000_000,
        ) {
            prop_assume!(rates.iter().any(|rate| *rate > 0.1));
            let rows: String = rates.iter().enumerate().map(|(t, rate)| format!("{t},,{rate},\n")).collect();
            let trace = parse(&rows).unwrap();
            let (one, two) = (trace.send_s(at, bytes), trace.send_s(at, bytes + 1_000));
            prop_assert!(one.is_some() && one <= two.or(Some(f64::INFINITY)), "{one:?} {two:?}");
        }
    }
}
