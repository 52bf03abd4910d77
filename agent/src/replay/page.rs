//! Outcomes as a page with plots, of a replay or of a real log.

use super::tally::{Outcome, Point};
use tether_policies::budget::pacing::MAX_LEAD;
use tether_report::html;
use tether_report::plot::{Chart, Series};

/// Charts and columns of which nothing is known are left out. Lines over time show the first trace and seed.
pub fn page(title: &str, intro: &str, outcomes: &[Outcome]) -> String {
    let mut body = format!("<p>{}</p>\n", html::escape(intro));
    body += &table(&lines(outcomes, false));
    if let Some(first) = outcomes.first() {
        let shown: Vec<&Outcome> = outcomes.iter().filter(|o| o.trace == first.trace && o.seed == first.seed).collect();
        if !first.trace.is_empty() {
            body += &format!("<h2>{}, seed {}</h2>\n", html::escape(&first.trace), first.seed);
        }
        body += "<div class=\"plots\">";
        body.extend(charts(&shown).iter().filter(|chart| !chart.series.is_empty()).map(Chart::html));
        body += "</div>\n";
        if outcomes.iter().any(|outcome| outcome.trace != first.trace) {
            body += "<h2>Trace by trace</h2>\n";
            body += &table(&lines(outcomes, true));
        }
    }
    html::page(title, &body)
}

/// A line of the table: the outcomes of one policy, over seeds or over everything.
pub struct Line<'a> {
    pub trace: &'a str,
    pub policy: &'a str,
    pub of: Vec<&'a Outcome>,
}

/// The policies in their first outcomes' order; with `by_trace` for each trace, otherwise over all.
pub fn lines(outcomes: &[Outcome], by_trace: bool) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for outcome in outcomes {
        let trace = if by_trace { outcome.trace.as_str() } else { "" };
        match lines.iter_mut().find(|line| line.trace == trace && line.policy == outcome.policy) {
            Some(line) => line.of.push(outcome),
            None => lines.push(Line { trace, policy: &outcome.policy, of: vec![outcome] }),
        }
    }
    lines
}

pub const HEAD: [&str; 15] = [
    "policy",
    "turns",
    "reward",
    "rating",
    "cloud",
    "fell back",
    "refused",
    "failed",
    "unserved",
    "seconds",
    "USD",
    "kJ",
    "MB up",
    "battery left",
    "ahead",
];

/// As texts, in the order of [`HEAD`]; "-" where nothing is known.
pub fn cells(line: &Line<'_>) -> Vec<String> {
    let mean = |value: &dyn Fn(&Outcome) -> Option<f64>| {
        let known: Vec<f64> = line.of.iter().filter_map(|outcome| value(outcome)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let text = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    let share = |value: &dyn Fn(&Outcome) -> u64| {
        let mean = mean(&|outcome| Some(value(outcome) as f64 / outcome.turns.max(1) as f64));
        mean.map_or("-".into(), |share| format!("{:.0} %", share * 100.0))
    };
    let percent = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$} %"));
    let ahead = line.of.iter().filter_map(|outcome| outcome.overshoot).reduce(f64::max);
    vec![
        if line.trace.is_empty() { line.policy.to_owned() } else { format!("{}: {}", line.trace, line.policy) },
        line.of.iter().map(|outcome| outcome.turns).sum::<u64>().to_string(),
        text(mean(&|o| o.reward), 3),
        text(mean(&|o| o.rating), 3),
        share(&|o| o.cloud),
        share(&|o| o.fell_back),
        share(&|o| o.refused),
        share(&|o| o.failed),
        share(&|o| o.unserved),
        text(mean(&|o| o.latency_s), 2),
        text(mean(&|o| Some(o.cost_usd)), 4),
        text(mean(&|o| Some(o.energy_j / 1e3)), 1),
        text(mean(&|o| Some(o.uplink_bytes as f64 / 1e6)), 2),
        percent(mean(&|o| o.battery_left_percent), 0),
        percent(ahead.map(|ahead| ahead * 100.0), 2),
    ]
}

fn table(lines: &[Line<'_>]) -> String {
    let rows: Vec<Vec<String>> = lines.iter().map(cells).collect();
    let known: Vec<usize> = (0..HEAD.len()).filter(|&at| rows.iter().any(|row| row[at] != "-")).collect();
    let head: Vec<&str> = known.iter().map(|&at| HEAD[at]).collect();
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| known.iter().map(|&at| row[at].clone()).collect()).collect();
    html::table(&head, &rows)
}

fn charts(shown: &[&Outcome]) -> Vec<Chart> {
    let chart = |title: &str, unit: &str, value: &dyn Fn(&Point) -> Option<f64>| {
        let series = shown.iter().map(|outcome| series(&outcome.policy, outcome, value));
        Chart {
            title: title.into(),
            x_label: "hours".into(),
            y_label: unit.into(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
            level: None,
        }
    };
    let mut link = chart("Uplink, as the device took it to be", "Mbit/s", &|point| point.uplink_mbps);
    // The link itself is the same for all.
    let recorded = shown.first().map(|first| series("the trace, at the turns", first, &|point| point.trace_mbps));
    link.series.extend(recorded.filter(|series| !series.points.is_empty()));
    let mut lead = chart("Furthest ahead of the budgets' straight lines", "% of a cap", &|point| {
        point.lead.map(|lead| lead * 100.0)
    });
    lead.level = Some((MAX_LEAD * 100.0, "a paced policy's limit".into()));
    vec![
        chart("Battery", "%", &|point| point.battery_percent),
        chart("Bytes sent", "MB", &|point| Some(point.uplink_bytes as f64 / 1e6)),
        chart("Money", "USD", &|point| Some(point.cost_usd)),
        link,
        chart("Routes: answered in the cloud", "share of turns", &|point| point.cloud_share),
        chart("Views sent", "mean per turn", &|point| point.views),
        chart("Satisfaction", "mean rating", &|point| point.rating),
        chart("Reward", "mean per turn", &|point| point.reward),
        lead,
    ]
}

fn series(name: &str, outcome: &Outcome, value: &dyn Fn(&Point) -> Option<f64>) -> Series {
    let points = outcome.points.iter().filter_map(|point| Some((point.at_h, value(point)?)));
    Series { name: name.to_owned(), points: points.collect() }
}
