//! The tables as a page with plots.

use super::run::{Point, WINDOW};
use super::table::{Line, Table};
use tether_report::html;
use tether_report::plot::{Chart, Series};

pub fn page(tables: &[Table]) -> String {
    let mut body = String::from(
        "<p>Every router sees the same requests in the same random orders. No router is told a mean, a cost or a label \
         before it has asked and paid for it. <b>held</b>: seeds that end at alpha - 0.005 or above. \
         <b>/ static</b>: mean cost over that of the cheapest static mix that knows the means. \
         <b>Our heads, know other labels</b>: what the features allow, by heads that were taught every model's label of the other \
         requests for nothing. The oracle knows every label beforehand; a result near it would mean a leak.</p>\n",
    );
    tables.iter().for_each(|table| body += &section(table));
    html::page("Routing among a zoo of models", &body)
}

fn section(table: &Table) -> String {
    let title = format!("{}, {}, alpha {}", table.data, table.scenario, table.alpha);
    let head = [
        "router",
        "satisfaction",
        "lowest",
        "held",
        "windows below",
        "mean cost",
        "/ static",
        "largest Q",
        "calls",
        "extra",
        "labels",
    ];
    let rows: Vec<Vec<String>> = table.lines.iter().map(|line| cells(line, table.seeds)).collect();
    let plots = [satisfaction(table), windows(table), cost(table), queue(table), promise(table)]
        .map(|chart| chart.html())
        .concat();
    format!(
        "<h2>{}</h2><p>{} requests, {} seeds; models {}.</p>{}<div class=\"plots\">{plots}</div>\n",
        html::escape(&title),
        table.rows,
        table.seeds,
        html::escape(&table.models.join(", ")),
        html::table(&head, &rows)
    )
}

fn cells(line: &Line, seeds: u64) -> Vec<String> {
    let list = |numbers: &[f64]| numbers.iter().map(|n| format!("{n:.0}")).collect::<Vec<_>>().join(", ");
    vec![
        line.router.clone(),
        format!("{:.4}", line.satisfaction),
        format!("{:.4}", line.lowest_satisfaction),
        format!("{}/{seeds}", line.seeds_held),
        format!("{:.3}", line.windows_below),
        format!("{:.6}", line.mean_cost),
        format!("{:.3}", line.cost_ratio),
        if line.runs.iter().any(|run| run.largest_queue > 0.0) {
            format!("{:.1}", line.largest_queue)
        } else {
            "-".into()
        },
        list(&line.calls),
        list(&line.extra_calls),
        list(&line.labels),
    ]
}

/// The first seed's curve of each router that learns or mixes; single models are straight lines.
fn series(table: &Table, of: impl Fn(&Point) -> f64) -> Vec<Series> {
    let lines = table.lines.iter().filter(|line| !line.router.starts_with("only ") && !line.runs.is_empty());
    let points = |line: &Line| line.runs[0].curve.iter().map(|point| (point.request as f64, of(point))).collect();
    lines.map(|line| Series { name: line.router.clone(), points: points(line) }).collect()
}

fn chart(title: &str, y_label: &str, series: Vec<Series>, level: Option<(f64, String)>) -> Chart {
    Chart { title: title.into(), x_label: "request".into(), y_label: y_label.into(), series, level }
}

fn alpha(table: &Table) -> Option<(f64, String)> {
    Some((table.alpha, format!("alpha {}", table.alpha)))
}

fn satisfaction(table: &Table) -> Chart {
    chart("Satisfaction so far.", "mean satisfaction", series(table, |point| point.satisfaction), alpha(table))
}

/// What the queue guarantees at any time, beside what was measured, for the routers that promise something.
fn promise(table: &Table) -> Chart {
    let promised = series(table, |point| point.at_least.unwrap_or(f64::NAN));
    let promises = |series: &Series| series.points.iter().any(|point| point.1.is_finite());
    let promised: Vec<Series> = promised.into_iter().filter(promises).collect();
    let named = |series: &Series| promised.iter().any(|promised| promised.name == series.name);
    let mut all: Vec<Series> = series(table, |point| point.satisfaction).into_iter().filter(named).collect();
    all.extend(promised.iter().map(|series| Series { name: format!("{}, at least", series.name), ..series.clone() }));
    chart("Satisfaction so far, and what the first tenant's queue guarantees.", "mean satisfaction", all, alpha(table))
}

fn windows(table: &Table) -> Chart {
    let title = format!("Satisfaction of the last {WINDOW} requests.");
    chart(&title, "mean satisfaction", series(table, |point| point.window), alpha(table))
}

fn cost(table: &Table) -> Chart {
    let level = Some((table.static_mix_cost, "static mix, by its means".to_owned()));
    chart(
        "Mean cost so far, everything asked included.",
        "cost per request",
        series(table, |point| point.mean_cost),
        level,
    )
}

fn queue(table: &Table) -> Chart {
    let mut series = series(table, |point| point.queue.unwrap_or(f64::NAN));
    series.retain(|series| series.points.iter().any(|point| point.1.is_finite()));
    chart("Virtual queue of the first tenant.", "queue", series, None)
}
