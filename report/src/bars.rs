//! Horizontal bars as SVG: values with intervals, and shares of a whole.

use crate::html::escape;
use crate::plot::COLOURS;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const LABEL: f64 = 255.0;
const RIGHT: f64 = 60.0;
const ROW: f64 = 22.0;

/// A value and where it may lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub interval: [f64; 2],
}

/// Values from 0, or from the lowest if that is negative, each with its interval.
pub fn values(title: &str, bars: &[Bar]) -> String {
    let ends = || bars.iter().flat_map(|bar| [bar.value, bar.interval[0], bar.interval[1]]).filter(|v| v.is_finite());
    let (low, high) = (ends().fold(0.0, f64::min), ends().fold(0.0, f64::max));
    let span = if high > low { high - low } else { 1.0 };
    let x = |value: f64| LABEL + (value - low) / span * (WIDTH - LABEL - RIGHT);
    let rows = bars.iter().enumerate().map(|(row, bar)| {
        let middle = row as f64 * ROW + ROW / 2.0;
        let (from, to) = (x(0.0f64.min(bar.value)), x(0.0f64.max(bar.value)));
        let [left, right] = bar.interval.map(x);
        format!(
            "{}<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" fill-opacity=\".75\"/>\
             <line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"currentColor\" \
             stroke-width=\"1.6\"/><text x=\"{:.1}\" y=\"{:.1}\">{:.3}</text>",
            label(middle, &bar.name),
            middle - 7.0,
            to - from,
            14.0,
            COLOURS[0],
            right.max(to) + 5.0,
            middle + 4.0,
            bar.value
        )
    });
    figure(title, bars.len(), &rows.collect::<String>(), "<span>line: 95 % of the mean, dialogues drawn again</span>")
}

/// Parts of each whole, in the order and colours of `parts`. Shares are in 0..1 and sum to at most 1.
pub fn shares(title: &str, parts: &[&str], wholes: &[(String, Vec<f64>)]) -> String {
    let rows = wholes.iter().enumerate().map(|(row, (name, shares))| {
        let middle = row as f64 * ROW + ROW / 2.0;
        let mut svg = label(middle, name);
        let mut at = LABEL;
        for (part, share) in shares.iter().enumerate() {
            let width = share * (WIDTH - LABEL - RIGHT);
            let _ = write!(
                svg,
                "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" {}><title>{}: {:.1} %</title></rect>",
                middle - 7.0,
                fill(part),
                escape(parts.get(part).unwrap_or(&"")),
                100.0 * share
            );
            at += width;
        }
        svg
    });
    let legend: String = parts
        .iter()
        .enumerate()
        .map(|(part, name)| {
            format!(
                "<span><svg class=\"key\" viewBox=\"0 0 12 12\"><rect width=\"12\" height=\"12\" {}/></svg>{}</span> ",
                fill(part),
                escape(name)
            )
        })
        .collect();
    figure(title, wholes.len(), &rows.collect::<String>(), &legend)
}

/// A ninth part and those after it repeat the colours, lighter.
fn fill(part: usize) -> String {
    let opacity = if part < COLOURS.len() { ".85" } else { ".4" };
    format!("fill=\"{}\" fill-opacity=\"{opacity}\"", COLOURS[part % COLOURS.len()])
}

fn label(middle: f64, name: &str) -> String {
    format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LABEL - 8.0, middle + 4.0, escape(name))
}

fn figure(title: &str, rows: usize, content: &str, legend: &str) -> String {
    let (title, height) = (escape(title), rows.max(1) as f64 * ROW + 4.0);
    format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">{content}</svg>\
         <figcaption><b>{title}</b> {legend}</figcaption></figure>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_everything_is_within_the_frame() {
        let bar = |name: &str, value: f64| Bar { name: name.into(), value, interval: [value - 0.1, value + 0.1] };
        let html = values("a < b", &[bar("<i>", 1.0), bar("low", -0.5)]);
        assert!(html.contains("a &lt; b") && !html.contains("<i>") && html.matches("<rect").count() == 2);
        let places = html.split(" x=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(places.into_iter().all(|x| (0.0..=WIDTH).contains(&x)), "{html}");
        assert!(values("empty", &[]).contains("<svg"));
    }

    #[test]
    fn shares_fill_their_row() {
        let html = shares("mix", &["one", "two"], &[("all".into(), vec![0.25, 0.75])]);
        let width = WIDTH - LABEL - RIGHT;
        assert!(html.contains(&format!("width=\"{:.1}\"", width * 0.25)));
        assert!(html.contains(&format!("x=\"{:.1}\"", LABEL + width * 0.25)));
        assert!(html.contains("two: 75.0 %"));
    }
}
