//! Line charts as SVG, for pages that need no network.

use std::fmt::Write;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// (x, y), x ascending.
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
    /// A horizontal line to compare with, and its name.
    pub level: Option<(f64, String)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
const TICKS: usize = 5;
/// Distinguishable by the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6c6c6c", "#b5a500"];

/// Where data lie on the paper.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn of(chart: &Chart) -> Self {
        let points =
            || chart.series.iter().flat_map(|series| &series.points).filter(|p| p.0.is_finite() && p.1.is_finite());
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            if low > high {
                (0.0, 1.0)
            } else if low == high {
                (low - 0.5, high + 0.5)
            } else {
                (low, high)
            }
        };
        let level = chart.level.as_ref().map(|(level, _)| *level);
        let (low, high) = range(&mut points().map(|p| p.1).chain(level));
        let room = (high - low) * 0.05;
        Self { x: range(&mut points().map(|p| p.0)), y: (low - room, high + room) }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The chart with its caption and legend as HTML.
    pub fn html(&self) -> String {
        let frame = Frame::of(self);
        let title = super::html::escape(&self.title);
        let mut svg = format!("<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        axes(&mut svg, &frame, self);
        if let Some((level, _)) = &self.level {
            let y = frame.y(*level);
            let right = WIDTH - RIGHT;
            let _ = write!(svg, "<line class=\"level\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        for (i, series) in self.series.iter().enumerate() {
            line(&mut svg, &frame, series, COLOURS[i % COLOURS.len()]);
        }
        svg += "</svg>";
        let _ = write!(svg, "<figcaption><b>{title}</b> {}</figcaption></figure>", self.legend());
        svg
    }

    fn legend(&self) -> String {
        let mut legend = String::new();
        for (i, series) in self.series.iter().enumerate() {
            let (colour, name) = (COLOURS[i % COLOURS.len()], super::html::escape(&series.name));
            let _ = write!(legend, "<span><i style=\"background:{colour}\"></i>{name}</span> ");
        }
        if let Some((_, name)) = &self.level {
            let _ = write!(legend, "<span><i class=\"dashed\"></i>{}</span>", super::html::escape(name));
        }
        legend
    }
}

fn axes(svg: &mut String, frame: &Frame, chart: &Chart) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let y = frame.y.0 + share * (frame.y.1 - frame.y.0);
        let x = frame.x.0 + share * (frame.x.1 - frame.x.0);
        let (at_y, at_x) = (frame.y(y), frame.x(x));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at_y:.1}\" y2=\"{at_y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT - 6.0,
            at_y + 4.0,
            number(y),
            bottom + 16.0,
            number(x)
        );
    }
    let (x_label, y_label) = (super::html::escape(&chart.x_label), super::html::escape(&chart.y_label));
    let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
    let _ = write!(
        svg,
        "<text x=\"{middle_x}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\
         <text x=\"14\" y=\"{middle_y}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle_y})\">{y_label}</text>",
        bottom + 34.0
    );
}

fn line(svg: &mut String, frame: &Frame, series: &Series, colour: &str) {
    let finite = series.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite());
    let points: Vec<String> = finite.map(|p| format!("{:.1},{:.1}", frame.x(p.0), frame.y(p.1))).collect();
    let _ = write!(svg, "<polyline points=\"{}\" stroke=\"{colour}\"/>", points.join(" "));
}

/// Three significant digits, without an exponent where people read none.
fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.01 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_within_the_frame_and_escapes_names() {
        let chart = Chart {
            title: "a < b".into(),
            x_label: "x".into(),
            y_label: "y".into(),
            series: vec![Series { name: "<script>".into(), points: vec![(0.0, 1.0), (10.0, f64::NAN), (20.0, 3.0)] }],
            level: Some((2.0, "level".into())),
        };
        let html = chart.html();
        assert!(html.contains("a &lt; b") && !html.contains("<script>") && !html.contains("NaN"));
        assert_eq!(html.matches("<polyline").count(), 1);
    }

    #[test]
    fn nothing_to_draw_is_not_a_failure() {
        let empty = Chart { title: "t".into(), x_label: "".into(), y_label: "".into(), series: vec![], level: None };
        assert!(empty.html().contains("<svg"));
    }
}
